"""Folders, zips and single files -> checked images with labels, and a sentence about everything left out."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from engine.data.file_kind import HEAD_BYTES, is_zip, refuse_other_kinds
from engine.data.images import ImageFile, Intake, Limits, Problem, inspect
from engine.errors import BadImage, BadTask, LabError, messages
from engine.units import MB

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
    zip_broken="{name} is not a complete zip. Make it again, or upload it again if the upload was cut off.",
    zip_entries="{name} holds more than {limit} files. Make a zip with only the images of this task.",
    zip_too_large="{name} holds {megabytes:g} MB; the limit is {limit:g} MB. Use fewer or smaller images.",
    zip_bomb="{name} was refused: it unpacks to {ratio} times its size, as images never do. "
    "Make a new zip from the original images.",
    zip_unsafe_name="{name} was left out: its name points outside the zip. Make the zip again from a plain folder.",
    zip_link="{name} is a link, not a file, and was left out. Put the image itself into the zip.",
    zip_encrypted="{name} is protected by a password. Make the zip again without one.",
    zip_method="{name} is packed in a way that cannot be read here. Make the zip again with ordinary compression.",
    zip_entry_broken="{name} is damaged inside the zip. Make the zip again, or leave this file out.",
)

MAX_ENTRIES = 10_000
"""Files in one zip, folders and system files included."""
_MAX_RATIO, _RATIO_COUNTS_FROM = 200, 10 * 2**20  # times; bytes: small files of one colour may pack very well
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_CHUNK = 2**20  # bytes read at a time
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Candidate:
    """A file that may be an image."""

    name: str
    path: Path
    size: int  # bytes
    label: str | None = None


@dataclass
class _Found:
    """What looking through the given paths has brought up so far."""

    limits: Limits
    candidates: list[_Candidate] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unpacked: int = 0  # bytes, of all zips


def collect(
    paths: Sequence[str | Path], work: Path, limits: Limits | None = None, already: Sequence[ImageFile] = ()
) -> Intake:
    """Check all images in folders, zips and single files.

    Zips are unpacked into a new folder below ``work``; other files stay where they are. ``limits`` default to the
    environment's. ``already`` are images loaded before: they count towards the limits on images and labels, and
    a file with the same bytes *and* the same label as one of them is left out.

    An image's label is the name of the folder it lies in (None for single files, and at the root of a folder or
    zip). A top folder that holds everything else is no label: ``pets/cat/1.jpg`` has the label ``cat``, and
    ``pets/1.jpg`` none if all that is given lies in ``pets/`` of a zip. Hidden and system files are skipped.
    Over a limit, files are taken in turn from each label, so that none is lost.

    A bad file never stops the others. Raises :class:`BadTask` if a path does not exist, or if a folder or zip is
    given alone and holds no usable image; ``values["problems"]`` of the latter are the :class:`Problem` objects.
    """
    limits = limits or Limits.from_environment()
    sources = [Path(path) for path in paths]
    found = _Found(limits)
    groups: list[tuple[bool, list[_Candidate]]] = []  # (is it a zip, its files)
    for source in sources:
        if os.path.isdir(source):  # unlike Path.is_dir, never raises
            groups.append((False, list(_walk(source, found))))
        elif not os.path.isfile(source):
            raise BadTask("upload_missing", name=_shown(str(source)))
        elif is_zip(source):
            try:
                groups.append((True, _unpack(source, Path(work), found)))
            except LabError as error:
                found.problems.append(Problem.of(error))
        else:
            found.candidates.append(_Candidate(_shown(source.name), source, os.path.getsize(source)))
    loose = bool(found.candidates)
    found.candidates += _labelled(groups)
    intake = _check(found, already)
    alone = len(sources) == 1 and not loose
    if alone and not intake.images and not any(p.key.startswith("upload_") for p in intake.problems):
        _nothing_usable(sources[0], intake.problems)
    return intake


def _nothing_usable(source: Path, problems: tuple[Problem, ...]) -> None:
    name = _shown(source.resolve().name)
    if not problems:
        raise BadTask("upload_empty", name=name)
    reasons = " ".join(problem.message for problem in problems[:3])
    raise BadTask("upload_no_images", name=name, reasons=reasons, problems=problems)


def _check(found: _Found, already: Sequence[ImageFile]) -> Intake:
    """Decode the candidates, as many as the limits let in."""
    limits = found.limits
    about_all: list[Problem] = []
    pending = _within_labels(found.candidates, {image.label for image in already}, limits, about_all)
    pending = _within_bytes(_in_turn(pending), limits, about_all)
    problems = list(found.problems)
    images: list[ImageFile] = []
    seen = {(image.digest, image.label): image.name for image in already}
    room, total = limits.images - len(already), len(pending)

    def look(candidate: _Candidate) -> tuple[ImageFile, Problem | None] | Problem:
        try:
            return inspect(candidate.path, candidate.name, candidate.label, limits.megapixels)
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
                if other := seen.get((image.digest, image.label)):
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
    candidates: list[_Candidate], used: set[str | None], limits: Limits, problems: list[Problem]
) -> list[_Candidate]:
    """Without the labels that are too many; those already used come first, then natural order."""
    new = sorted({c.label for c in candidates if c.label is not None} - used, key=lambda label: natural(label or ""))
    room = max(0, limits.labels - len(used - {None}))
    if len(new) <= room:
        return candidates
    dropped = set(new[room:])
    problems.append(_over("upload_labels", left=len(dropped), total=len(new), first=new[room], limit=limits.labels))
    return [candidate for candidate in candidates if candidate.label not in dropped]


def _in_turn(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Natural order within a label; one of each label in turn."""
    by_label: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda candidate: natural(candidate.name)):
        by_label[candidate.label or ""].append(candidate)
    columns = [by_label[label] for label in sorted(by_label, key=natural)]
    return [candidate for row in zip_longest(*columns) for candidate in row if candidate is not None]


def _within_bytes(candidates: list[_Candidate], limits: Limits, problems: list[Problem]) -> list[_Candidate]:
    kept, used = [], 0
    for candidate in candidates:
        if used + candidate.size <= limits.upload_bytes:
            kept.append(candidate)
            used += candidate.size
    if left := len(candidates) - len(kept):
        limit = _megabytes(limits.upload_bytes)
        problems.append(_over("upload_bytes", left=left, total=len(candidates), limit=limit))
    return kept


def natural(name: str) -> tuple[tuple[object, ...], str]:
    """Sort key in which img2 comes before img10; capitals do not matter unless names are otherwise equal."""
    parts: list[object] = re.split(r"([0-9]+)", name.casefold())
    for index in range(1, len(parts), 2):
        digits = str(parts[index]).lstrip("0")
        parts[index] = (len(digits), digits)  # not int(): it refuses thousands of digits
    return tuple(parts), name


def _megabytes(count: int) -> float:
    return round(count / MB, 1) or round(count / MB, 6)


def _labelled(groups: list[tuple[bool, list[_Candidate]]]) -> list[_Candidate]:
    """Give each file of each folder or zip its folder's name as label."""
    tops = {candidate.name.split("/")[0] for _, group in groups for candidate in group}
    result = []
    for zipped, group in groups:
        own_tops = {candidate.name.split("/")[0] for candidate in group}
        deeper = any(candidate.name.count("/") > 1 for candidate in group)
        # A common top folder with folders below it is a wrapper. Without, it is one in a zip (made of the folder
        # "photos"), unless another zip has another top: then somebody packed each class by itself. A folder that
        # was given as such has no wrapper: its only sub-folder is a class.
        wrapped = len(own_tops) == 1 and (deeper or (zipped and len(tops) == 1))
        for candidate in group:
            parts = candidate.name.split("/")
            label = parts[-2].strip() if len(parts) > (2 if wrapped else 1) else ""
            result.append(replace(candidate, label=label or None))
    return result


def _shown(name: str) -> str:
    """A file system's name as people wrote it: whole Korean syllables (macOS splits them), no control characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # bytes in an older encoding
        name = _decoded(os.fsencode(name))
    name = unicodedata.normalize("NFC", name)
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" else c for c in name)


def _decoded(raw: bytes) -> str:
    """Bytes of a name without a declared encoding: UTF-8, Korean Windows (cp949), or what the zip standard says."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        korean = raw.decode("cp949")
    except UnicodeDecodeError:
        return raw.decode("cp437")
    # Western accents before a letter are valid cp949 too, but give syllables that hardly occur.
    pairs = [c.encode("cp949") for c in korean if ord(c) > 127]
    common = sum(min(pair) >= 0xA1 for pair in pairs)
    return korean if 2 * common >= len(pairs) else raw.decode("cp437")


def _skipped(parts: Sequence[str]) -> bool:
    return any((part.startswith(".") and part != "..") or part.lower() in _JUNK for part in parts)


def _walk(folder: Path, found: _Found) -> Iterator[_Candidate]:
    """All image-like files below ``folder``; links to folders are followed, each folder is seen once."""
    visited = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted((name for name in folders if not _skipped([name])), key=natural)
        for path in (Path(where, file) for file in files if not _skipped([file])):
            name = _shown(path.relative_to(folder).as_posix())
            if not os.path.isfile(path) and os.path.exists(path):
                continue  # a pipe or device: opening it could wait for ever
            try:
                with open(path, "rb") as file:
                    refuse_other_kinds(file.read(HEAD_BYTES), name)
                yield _Candidate(name, path, os.path.getsize(path))
            except BadImage as error:
                found.problems.append(Problem.of(error))
            except OSError as error:
                found.problems.append(Problem.of(BadImage("image_missing", name=name, reason=error.strerror)))


def _unpack(source: Path, work: Path, found: _Found) -> list[_Candidate]:
    """The image-like entries of a zip, as files with names of our own in a new folder below ``work``.

    Raises :class:`BadTask` if the whole zip is refused.
    """
    title = _shown(source.name)
    _check_directory(source, title)
    try:
        archive = zipfile.ZipFile(source)
    except (*_BROKEN, NotImplementedError):
        raise BadTask("zip_broken", name=title) from None
    candidates = []
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_totals(entries, source, title, found)
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="zip-", dir=work))
        for number, entry in enumerate(entries):
            name = _entry_name(entry)
            parts = [part for part in name.split("/") if part not in ("", ".")]
            suffix = Path(name).suffix.lower()
            if _skipped(parts) or name.endswith("/"):
                continue
            try:
                _check_entry(entry, name, parts)
                name = "/".join(parts)
                target = folder / f"{number:05d}{suffix if suffix in _SUFFIXES else ''}"
                size = _copy(archive, entry, name, target, found)
            except LabError as error:
                found.problems.append(Problem.of(error))
                if error.key == "zip_too_large":
                    break
                continue
            candidates.append(_Candidate(name, target, size))
    return candidates


def _check_directory(source: Path, title: str) -> None:
    """Count the entries before zipfile makes an object of each: a zip of 200 MB may list four million."""
    count, tail = 0, b""
    with open(source, "rb") as file:
        while chunk := file.read(_CHUNK):
            count += (tail + chunk).count(b"PK\x01\x02")
            tail = chunk[-3:]
            if count > MAX_ENTRIES:
                raise BadTask("zip_entries", name=title, limit=MAX_ENTRIES)


def _check_totals(entries: list[zipfile.ZipInfo], source: Path, title: str, found: _Found) -> None:
    declared, packed = sum(entry.file_size for entry in entries), source.stat().st_size
    limit = found.limits.upload_bytes
    _check_ratio(declared, packed, title)
    if (size := max(declared, packed) + found.unpacked) > limit:
        raise BadTask("zip_too_large", name=title, megabytes=_megabytes(size), limit=_megabytes(limit))


def _check_ratio(size: int, packed: int, name: str) -> None:
    if size > _RATIO_COUNTS_FROM and size > _MAX_RATIO * packed:
        raise BadTask("zip_bomb", name=name, ratio=size // max(1, packed))


def _entry_name(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    if not entry.flag_bits & 0x800:  # not declared UTF-8: zipfile has read it as cp437
        with suppress(UnicodeEncodeError):  # it has found a Unicode name elsewhere
            name = _decoded(name.encode("cp437"))
    return _shown(name.replace("\\", "/"))


def _check_entry(entry: zipfile.ZipInfo, name: str, parts: list[str]) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or not parts:
        raise BadTask("zip_unsafe_name", name=name)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise BadTask("zip_link", name=name)
    if entry.flag_bits & 0x1:
        raise BadTask("zip_encrypted", name=name)
    # The others allow one small read to expand without bound, and nobody packs photos with them.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadTask("zip_method", name=name)
    _check_ratio(entry.file_size, entry.compress_size, name)


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, target: Path, found: _Found) -> int:
    """Write the entry to ``target`` if it begins like an image; returns its bytes, counted while reading."""
    limit, size = found.limits.upload_bytes, 0
    try:
        with archive.open(entry) as packed:
            chunk = packed.read(HEAD_BYTES)
            refuse_other_kinds(chunk, name)
            with open(target, "wb") as file:
                while chunk:
                    size += len(chunk)
                    found.unpacked += len(chunk)
                    if (total := found.unpacked) > limit:  # what the zip declares need not be true
                        title = _shown(Path(archive.filename or name).name)
                        raise BadTask("zip_too_large", name=title, megabytes=_megabytes(total), limit=_megabytes(limit))
                    file.write(chunk)
                    chunk = packed.read(_CHUNK)
    except (*_BROKEN, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk is not the zip's fault
        raise BadTask("zip_entry_broken", name=name) from None
    return size
