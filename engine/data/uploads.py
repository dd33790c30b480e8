"""Folders, zips and single files -> checked images with labels, and a sentence about everything left out."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from engine.data.file_kind import HEAD_BYTES, is_zip, kind_of, refuse_other_kinds
from engine.data.files import Candidate, Found, Group, natural, shown, skipped
from engine.data.images import ImageFile, Intake, Limits, Problem, inspect
from engine.data.understanding import in_words, understand
from engine.data.zips import megabytes, unpack
from engine.errors import BadImage, BadTask, LabError, joined, messages, reason_of

messages(
    upload_missing="{name} does not exist or is not a file or folder. Check the path.",
    upload_empty="{name} contains no files. Put images in it, in one sub-folder for each label.",
    upload_no_images="{name} contains no usable image. {reasons}",
    upload_images="{left} of {total} files were left out: one task may hold {limit} images. "
    "Delete some images, or raise CTL_MAX_IMAGES on your own machine.",
    upload_bytes="{left} of {total} files were left out: one upload may hold {limit:g} MB. "
    "Make the images smaller, or raise CTL_MAX_UPLOAD_MB on your own machine.",
    upload_labels="{left} of {total} sub-folders were left out, {first} the first of them: "
    "one task may hold {limit} labels. Use fewer sub-folders, or raise CTL_MAX_LABELS on your own machine.",
    upload_duplicate="{name} is the same file as {other} and was left out. Use different photos.",
)


def collect(
    paths: Sequence[str | Path],
    work: Path,
    limits: Limits | None = None,
    already: Sequence[ImageFile] = (),
    labels: Sequence[str] = (),
    repeats: bool = False,
) -> Intake:
    """Check all images in folders, zips, tables and single files.

    Zips and tables are unpacked into a new folder below ``work``; other files stay where they are. ``limits`` default
    to the environment's. ``already`` are images loaded before: they count towards the limits on images and labels, and
    a file with the same bytes *and* the same label as one of them is left out. Their labels, and those in ``labels``,
    keep their spelling. With ``repeats`` the same file counts as often as it comes.

    An image's label comes from a file that tells labels (a table, COCO, YOLO), or else from the folder it lies in, see
    :mod:`engine.data.folders`; None for single files, and at the root of a folder or zip. Over a limit, files are taken
    in turn from each label, so that none is lost.

    A bad file never stops the others. Raises :class:`BadTask` if a path does not exist, or if a folder or zip is
    given alone and holds no usable image; ``values["problems"]`` of the latter are the :class:`Problem` objects.
    """
    limits = limits or Limits.from_environment()
    if "" in map(str, paths):
        raise BadTask("upload_missing", name="")
    sources = [Path(path) for path in paths]
    found, loose = Found(limits), Group("")
    for source in sources:
        if os.path.isdir(source):  # unlike Path.is_dir, never raises
            found.groups.append(_walk(source, Path(work), found))
        elif not os.path.isfile(source):
            raise BadTask("upload_missing", name=shown(str(source)))
        elif is_zip(source):
            try:
                found.groups.append(unpack(source, Path(work), found))
            except LabError as error:
                found.problems.append(Problem.of(error))
        else:
            file = Candidate(shown(source.name), source, os.path.getsize(source))
            (loose.sides if file.is_side else loose.files).append(file)
    found.groups.append(loose)
    known = dict.fromkeys([*labels, *(image.label for image in already if image.label)])
    candidates, made = understand(found, _new_folder(work), known)
    intake = _check(found, candidates, already, repeats)
    alone = len(sources) == 1 and not loose.files
    if alone and not intake.images and not any(p.key.startswith("upload_") for p in intake.problems):
        _nothing_usable(sources[0], intake.problems)
    return replace(intake, understood=in_words(intake.images, made))


def _new_folder(work: Path) -> Path:
    """Return a folder name below ``work`` that nothing else has; it is made where it is needed."""
    return Path(work) / f"tables-{uuid.uuid4().hex[:8]}"


def _nothing_usable(source: Path, problems: tuple[Problem, ...]) -> None:
    name = shown(source.resolve().name)
    if not problems:
        raise BadTask("upload_empty", name=name)
    reasons = joined("in_turn", (problem.note for problem in problems[:3]))
    raise BadTask("upload_no_images", name=name, reasons=reasons, problems=problems)


def _check(found: Found, candidates: list[Candidate], already: Sequence[ImageFile], repeats: bool = False) -> Intake:
    """Decode the candidates, as many as the limits let in."""
    limits = found.limits
    about_all: list[Problem] = []
    pending = _within_labels(candidates, {image.label for image in already}, limits, about_all)
    pending = _within_bytes(_in_turn(pending), limits, about_all)
    problems = list(found.problems)
    images: list[ImageFile] = []
    seen = {(image.digest, image.label): image.name for image in already}
    room, total = limits.images - len(already), len(pending)

    def look(candidate: Candidate) -> tuple[ImageFile, Problem | None] | Problem:
        try:
            image, note = inspect(candidate.path, candidate.name, candidate.label, limits.megapixels)
            return replace(image, split=candidate.split), note
        except BadImage as error:
            return Problem.of(error)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        while pending and room > len(images):
            batch = pending[: room - len(images)]
            pending = pending[len(batch) :]
            for result in pool.map(look, batch):
                if isinstance(result, Problem):
                    problems.append(result)
                    continue
                image, note = result
                if (other := seen.get((image.digest, image.label))) and not repeats:
                    problems.append(Problem.of(BadImage("upload_duplicate", name=image.name, other=other)))
                    continue
                seen[image.digest, image.label] = image.name
                images.append(image)
                problems += [note] if note else []
    if pending:
        about_all.append(_over("upload_images", left=len(pending), total=total, limit=limits.images))
    images.sort(key=lambda image: natural(image.name))
    problems.sort(key=lambda problem: natural(problem.name))
    return Intake(tuple(images), tuple(problems + about_all))


def _over(key: str, **values: object) -> Problem:
    return Problem.of(BadTask(key, **values))


def _within_labels(
    candidates: list[Candidate], used: set[str | None], limits: Limits, problems: list[Problem]
) -> list[Candidate]:
    """Without the labels that are too many; those already used come first, then natural order."""
    new = sorted({c.label for c in candidates if c.label is not None} - used, key=lambda label: natural(label or ""))
    room = max(0, limits.labels - len(used - {None}))
    if len(new) <= room:
        return candidates
    dropped = set(new[room:])
    problems.append(_over("upload_labels", left=len(dropped), total=len(new), first=new[room], limit=limits.labels))
    return [candidate for candidate in candidates if candidate.label not in dropped]


def _in_turn(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Natural order within a label; one of each label and split in turn."""
    parts: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda candidate: natural(candidate.name)):
        parts[candidate.label or "", candidate.split or ""].append(candidate)
    columns = [parts[part] for part in sorted(parts, key=lambda part: (natural(part[0]), part[1]))]
    return [candidate for row in zip_longest(*columns) for candidate in row if candidate is not None]


def _within_bytes(candidates: list[Candidate], limits: Limits, problems: list[Problem]) -> list[Candidate]:
    kept, used = [], 0
    for candidate in candidates:
        if used + candidate.size <= limits.upload_bytes:
            kept.append(candidate)
            used += candidate.size
    if left := len(candidates) - len(kept):
        limit = megabytes(limits.upload_bytes)
        problems.append(_over("upload_bytes", left=left, total=len(candidates), limit=limit))
    return kept


def _walk(folder: Path, work: Path, found: Found) -> Group:
    """Return what lies below ``folder``; links to folders are followed, each folder is seen once, and a zip is read as
    the folder that it was made of."""
    group, visited = Group(shown(folder.resolve().name)), set()
    for where, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = sorted((name for name in below if not skipped([name])), key=natural)
        for path in (Path(where, file) for file in files if not skipped([file])):
            name = shown(path.relative_to(folder).as_posix())
            if not os.path.isfile(path) and os.path.exists(path):
                continue  # a pipe or device: opening it could wait for ever
            try:
                _take(path, name, group, work, found)
            except LabError as error:
                found.problems.append(Problem.of(error))
            except OSError as error:
                found.problems.append(Problem.of(BadImage("image_missing", name=name, reason=reason_of(error))))
    return group


def _take(path: Path, name: str, group: Group, work: Path, found: Found) -> None:
    """Add one file of a folder."""
    candidate = Candidate(name, path, os.path.getsize(path))
    if candidate.is_side:
        with open(path, "rb"):  # one that may not be read has its sentence now
            group.sides.append(candidate)
        return
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if kind_of(head) == "zip" and zipfile.is_zipfile(path):
        inner = unpack(path, work, found)
        tops = {file.name.split("/")[0] for file in inner.files}
        own = len(tops) == 1 and all("/" in file.name for file in inner.files)
        above = name.rpartition("/")[0] if own else name.removesuffix(path.suffix)
        prefix = f"{above}/" if above else ""
        group.files += [replace(file, name=prefix + file.name) for file in inner.files]
        group.sides += [replace(file, name=prefix + file.name) for file in inner.sides]
        return
    refuse_other_kinds(head, name)
    group.files.append(candidate)
