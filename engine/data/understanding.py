"""Files of folders, zips and tables -> files with labels and splits, and sentences that say what was understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.data import folders, label_files
from engine.data.file_kind import HEAD_BYTES, refuse_other_kinds
from engine.data.files import Candidate, Found, Group, natural
from engine.data.images import ImageFile, Problem
from engine.data.label_files import Annotations
from engine.data.labels import plain_name
from engine.data.parquet import read_parquet
from engine.errors import BadImage, LabError, Note, messages

messages(
    layout_labels="Understood: {count} labels from {where} ({names}).",
    layout_labels_and_loose="Understood: {count} labels from {where} ({names}), {loose} unlabelled photos in {place}.",
    layout_loose="Understood: {loose} unlabelled photos in {place}, no label. If the folders are labels after all, "
    "rename them to say what the photos show.",
    layout_folders="the folders",
    layout_file_names="the file names",
    layout_zip_names="the names of the zips",
    layout_top="the top folder",
    layout_split="A split is given and kept: {parts}. Photos of train may train, those of test are tested"
    "; those of val are only tested where there is no test.",
    layout_odd="These folders are taken as no label of their own: {folders}.",
    layout_outer="The same folders ({inner}) lie in each of {outer}: the inner ones are taken as the labels. If the "
    "outer ones are, give each outer folder's photos without folders inside.",
    layout_spelling="{others} is taken as the same label as {label}.",
    layout_named="The names of the labels come from {file}.",
    layout_numbers="The labels are only numbers ({names}), which say nothing to the model. Put a file classes.txt with "
    "one name a line beside the folders, or type number = name in the labels.",
    layout_several="{count} photos have more than one label in {file}, and none here.",
    zip_without_label="The photos of {name} lie in no folder and have no label. Where the zip's name is the label, "
    "give the zips of all labels together.",
)

_SHOWN = 12  # names in a sentence


@dataclass
class Understanding:
    """What was made of the files, beside the files themselves."""

    sources: dict[str, object] = field(default_factory=dict)
    """Name of a file -> where its label comes from: a file's name or a Note."""
    notes: list[Note] = field(default_factory=list)
    plain: bool = True
    """Whether there is nothing to say: each folder is a label."""


def understand(found: Found, work: Path, known: Iterable[str]) -> tuple[list[Candidate], Understanding]:
    """Give each file its label and split, and note what was understood; files that tell nothing become problems.

    Args:
        known: labels that are there already, whose spelling counts.
    """
    made, files = Understanding(), []
    zips = sum(group.zipped for group in found.groups)
    tops = {file.name.split("/")[0] for group in found.groups for file in group.files if "/" in file.name}
    shared = [side for group in found.groups if not group.title for side in group.sides]
    used: set[str] = set()
    for group in found.groups:
        sides = group.sides + (shared if group.title else [])
        new, read = _of_group(group, sides, zips < 2 or len(tops) == 1, found, work, made)
        used |= {side.name for side in sides if side.name in read.used}
        files += new
    files = _zip_names(found.groups, files, made)
    for side in (side for group in found.groups for side in group.sides if side.name not in used):
        _refuse(side, found)
    return _one_spelling(files, known, made), made


def _of_group(
    group: Group, sides: Sequence[Candidate], alone: bool, found: Found, work: Path, made: Understanding
) -> tuple[list[Candidate], Annotations]:
    reading = folders.read_folders([file.name for file in group.files], group.zipped, alone)
    files = [
        replace(file, label=place.label, split=place.split)
        for file, place in zip(group.files, reading.files, strict=True)
    ]
    told = label_files.read_annotations(sides, files)
    if names := label_files.renamed(told.labels.values(), told.names):
        told.labels = {name: names[label] for name, label in told.labels.items()}
    files = [_with(file, told) for file in files]
    made.sources |= {name: _file_of(told) for name in told.labels}
    for side in (side for side in group.sides if side.path.suffix == ".parquet" or side.name.endswith(".parquet")):
        files += _table_of_images(side, found, work, made)
        told.used[side.name] = "parquet"
    if group.title and not any(file.label for file in files):
        files = _names_of_files(files, made)
    files = _class_names(files, told, made)
    _say(reading, files, told, made)
    return files, told


def _with(file: Candidate, told: Annotations) -> Candidate:
    label = told.labels.get(file.name)
    if label and label.isdecimal() and file.label and not file.label.isdecimal():
        label = None  # a folder's name says more than a number in a table
    return replace(file, label=label or file.label, split=told.splits.get(file.name) or file.split)


def _file_of(told: Annotations) -> object:
    kind = label_files.most_common_kind({name: kind for name, kind in told.used.items() if kind != "names"})
    names = [name for name, other in told.used.items() if other == kind]
    return names[0] if len(names) == 1 else names[0].rpartition("/")[0] + "/"


def _table_of_images(side: Candidate, found: Found, work: Path, made: Understanding) -> list[Candidate]:
    try:
        number = len(made.sources)
        room = found.limits.upload_bytes - found.unpacked
        # A few more than may be taken in, so that the sentence about the limit is said.
        files = read_parquet(side, work / f"parquet-{number:05d}", room, 20 * found.limits.images)
    except LabError as error:
        found.problems.append(Problem.of(error))
        return []
    found.unpacked += sum(file.size for file in files)
    made.sources |= {file.name: side.name for file in files if file.label}
    made.plain = False
    return files


def _names_of_files(files: list[Candidate], made: Understanding) -> list[Candidate]:
    labels = folders.labels_in_names([file.name for file in files])
    if labels is None:
        return files
    made.sources |= dict.fromkeys(labels, Note("layout_file_names"))
    made.plain = False
    return [replace(file, label=labels[file.name]) for file in files]


def _class_names(files: list[Candidate], told: Annotations, made: Understanding) -> list[Candidate]:
    """Put names in place of numbers and codes, where a file tells them."""
    labels = {file.label for file in files if file.label}
    source = next((name for name, kind in told.used.items() if kind == "names"), "")
    if labels and labels <= set(told.names.values()):
        made.notes.append(Note.of("layout_named", file=source))
    elif names := label_files.renamed(labels, told.names):
        made.notes.append(Note.of("layout_named", file=source))
        made.plain = False
        return [replace(file, label=names[file.label] if file.label else None) for file in files]
    for name in [name for name, kind in told.used.items() if kind == "names"]:
        if not labels & set(told.names.values()):
            del told.used[name]  # it names something else: say that it was not read
    if folders.numbers(labels):
        made.notes.append(Note.of("layout_numbers", names=_few(labels)))
    return files


def _say(reading: folders.Reading, files: Sequence[Candidate], told: Annotations, made: Understanding) -> None:
    if told.labels or any(file.split for file in files):
        made.plain = False
    if told.several:
        made.notes.append(Note.of("layout_several", count=told.several, file=_file_of(told)))
    if reading.odd and not told.labels:
        made.notes.append(Note.of("layout_odd", folders=_few(reading.odd)))
        made.plain = False
    if reading.outer and not told.labels:
        inner = {file.label for file in files if file.label}
        made.notes.append(Note.of("layout_outer", inner=_few(inner), outer=_few(reading.outer)))
        made.plain = False


def _zip_names(groups: Sequence[Group], files: list[Candidate], made: Understanding) -> list[Candidate]:
    """Where each label has a zip of its own without folders, the zips' names are the labels."""
    by_name = {file.path: file for file in files}
    bare = [
        group
        for group in groups
        if group.zipped
        and group.files
        and all("/" not in file.name for file in group.files)
        and not any(by_name[file.path].label for file in group.files)
    ]
    labels: dict[Path, str] = {}
    for group, label in zip(bare, folders.labels_of_zips([group.title for group in bare]), strict=True):
        if label:
            labels |= {file.path: label for file in group.files}
            made.plain = False
        else:
            made.notes.append(Note.of("zip_without_label", name=group.title + ".zip"))
    result = []
    for file in files:
        if label := labels.get(file.path):
            # Names of several zips may be the same.
            file = replace(file, label=label, name=f"{label}/{file.name}")
            made.sources[file.name] = Note("layout_zip_names")
        result.append(file)
    return result


def _one_spelling(files: list[Candidate], known: Iterable[str], made: Understanding) -> list[Candidate]:
    files = [replace(file, label=plain_name(file.label)) if file.label else file for file in files]
    ordered = sorted(files, key=lambda file: file.split != "train")  # the first spelling counts among equals
    changed = folders.one_spelling((file.label for file in ordered), known)
    for label in dict.fromkeys(changed.values()):
        others = tuple(sorted(old for old, new in changed.items() if new == label))
        made.notes.append(Note.of("layout_spelling", others=others, label=label))
    return [replace(file, label=changed.get(file.label or "", file.label)) for file in files]


def _refuse(side: Candidate, found: Found) -> None:
    """Say of a file that tells nothing that it is no image."""
    try:
        with open(side.path, "rb") as file:
            refuse_other_kinds(file.read(HEAD_BYTES), side.name)
        found.groups[-1].files.append(side)  # an image with another ending
    except BadImage as error:
        found.problems.append(Problem.of(error))


def _few(names: Iterable[str]) -> tuple[str, ...]:
    ordered = sorted(names, key=natural)
    return (*ordered[:_SHOWN], "…") if len(ordered) > _SHOWN else tuple(ordered)


def in_words(images: Sequence[ImageFile], made: Understanding) -> tuple[Note, ...]:
    """Return what was understood of the images that can be used; nothing where each folder is a label."""
    if made.plain or not images:
        return tuple(made.notes)
    labels = {image.label for image in images if image.label}
    loose = [image for image in images if not image.label]
    fields = {"loose": len(loose), "place": _places(loose)}
    if labels:
        where = tuple(
            dict.fromkeys(
                made.sources.get(image.name) or _place(image.name) or Note("layout_folders")
                for image in images
                if image.label
            )
        )
        key = "layout_labels_and_loose" if loose else "layout_labels"
        summary = Note.of(key, count=len(labels), where=where, names=_few(labels), **(fields if loose else {}))
    else:
        summary = Note.of("layout_loose", **fields)
    notes = [summary, *made.notes]
    parts = Counter(image.split for image in images if image.split and image.label)
    if parts["train"] and (parts["test"] or parts["val"]):
        told = tuple(f"{name} {parts[name]}" for name in ("train", "val", "test") if parts[name])
        notes.append(Note.of("layout_split", parts=told))
    return tuple(notes)


def _place(name: str) -> str | None:
    """Return the folder of a path that names a split."""
    return next((part + "/" for part in name.split("/")[:-1] if folders.split_of(part)), None)


def _places(images: Sequence[ImageFile]) -> tuple[object, ...]:
    folder = [_place(image.name) or image.name.rpartition("/")[0] or Note("layout_top") for image in images]
    places = dict.fromkeys(folder)
    return (*list(places)[:_SHOWN], *(["…"] if len(places) > _SHOWN else []))
