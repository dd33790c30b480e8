"""Images of one's own machine, on the command line and in a notebook: no visitor's limits on number and bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from engine.data import uploads
from engine.data.file_kind import is_zip
from engine.data.files import SIDE_SUFFIXES
from engine.data.images import OWN_MEGAPIXELS, ImageFile, Intake, Limits, Problem, inspect
from engine.errors import BadTask, LabError, joined, messages

PathOrText = str | PathLike[str]

messages(
    predict_nothing="None of the images can be read, so there is nothing to label. {reasons}",
)


def read_images(paths: Sequence[PathOrText], work: Path, labels: Sequence[str] = ()) -> Intake:
    """Check images in folders, zips and single files; zips are unpacked below ``work``. A visitor's limits on number
    and bytes do not hold for one's own files; the others do. Names in ``labels`` keep their spelling.

    Raises BadTask where a path does not exist, or holds no usable image and is given alone.
    """
    return uploads.collect([str(path) for path in paths], work, _own_limits(), labels=labels)


def read_in_order(given: Sequence[PathOrText | ImageFile], work: Path) -> Intake:
    """Check images to be labelled, in the order given; names are the paths as they were given.

    Raises BadTask where none can be read.
    """
    images: list[ImageFile] = []
    problems: list[Problem] = []
    for path in given:
        if isinstance(path, ImageFile):
            images.append(path)
            continue
        try:
            found = _own_images(path, work)
        except LabError as error:
            inner = error.values.get("problems")
            problems += inner if isinstance(inner, tuple) and inner else [Problem.of(error)]
        else:
            images += found.images
            problems += found.problems
    if given and not images:
        raise BadTask("predict_nothing", reasons=joined("in_turn", (problem.note for problem in problems[:3])))
    return Intake(tuple(images), tuple(problems))


def _own_images(path: PathOrText, work: Path) -> Intake:
    """Check the images of one path: a file under the name given, those of a folder or zip under theirs below it."""
    limits, name = _own_limits(), str(path)
    if os.path.isfile(path) and not is_zip(Path(path)) and Path(path).suffix.lower() not in SIDE_SUFFIXES:
        image, note = inspect(Path(path), name, None, limits.megapixels)
        return Intake((image,), (note,) if note else ())
    found = uploads.collect([name], work, replace(limits, labels=1_000_000), repeats=True)
    below = name if Path(path).is_dir() or is_zip(Path(path)) else ""
    images = tuple(replace(image, name=f"{below}/{image.name}" if below else image.name) for image in found.images)
    return replace(found, images=images)


def _own_limits() -> Limits:
    limits = replace(Limits.from_environment(), images=1_000_000, upload_bytes=64 << 30)
    return replace(limits, megapixels=OWN_MEGAPIXELS) if limits.megapixels == Limits().megapixels else limits
