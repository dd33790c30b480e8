"""A comparison as one HTML file that opens offline and prints well."""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import temporary
from engine.checks.forgetting import Forgetting
from engine.checks.label_errors import LabelErrorReport
from engine.data.images import ImageFile, thumbnail
from engine.errors import LabError
from engine.metrics.calibration import Calibration, calibration
from engine.outputs import Replacing
from engine.report.drawings import Drawings
from engine.report.language import Words
from engine.report.pieces import Pieces
from engine.report.render import Templates
from engine.report.words import ENGLISH

if TYPE_CHECKING:
    from engine.compare import Comparison

THUMBNAIL = 72
"""Longer side of a picture, pixels."""
MOST_THUMBNAILS = 6
"""Pictures of a label."""


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    images: Sequence[ImageFile] = (),
    task: str = "",
    command: str = "",
    damage: Sequence[Forgetting] = (),
    check: LabelErrorReport | None = None,
    words: Words = ENGLISH,
) -> Path:
    """Write a comparison as one HTML file; returns its path.

    Args:
        images: the comparison's images, for thumbnails; those whose file is gone are left out.
        task: the task's name.
        command: the same comparison on the command line.
        damage: tests on labels that were not tuned on, where there were any.
        check: images whose label may be wrong, where that was looked for.
        words: in whose language it speaks; English by default.
    """
    path = Path(path)
    with temporary.folder() as folder:

        def picture(i: int) -> str:
            return thumbnail_uri(images[i], Path(folder)) if i < len(images) else ""

        render = Templates(words, exact=True)
        html = render(
            "report.html",
            language=words.language,
            title=words("report.title", task=task or ", ".join(label.name for label in comparison.labels[:4])),
            when=time.strftime("%Y-%m-%d %H:%M"),
            comparison=comparison,
            pieces=Pieces(words, exact=True),
            drawings=Drawings(words),
            damage=damage,
            calibrations=calibrations(comparison),
            check=check,
            judges=[words.name(method) for method in check.judges] if check else [],
            of_label=by_label(comparison, images),
            most=MOST_THUMBNAILS,
            picture=picture,
            command=command,
            settings=settings(comparison, words),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with Replacing(path) as fresh:
            fresh.write_text(f"{html}\n", encoding="utf8")
    return path


def by_label(comparison: Comparison, images: Sequence[ImageFile]) -> dict[int, list[int]]:
    """Return class -> positions of its images; empty where there are no images."""
    place = {label.name: k for k, label in enumerate(comparison.labels)}
    found: dict[int, list[int]] = {}
    for i, image in enumerate(images):
        if image.label in place:
            found.setdefault(place[image.label], []).append(i)
    return found


def settings(comparison: Comparison, words: Words) -> list[tuple[str, str]]:
    """Return settings and versions, names and values as plain text."""
    request = comparison.request
    done = [row.result for row in comparison.rows if row.result]
    shots = sorted({row.shots or 0 for row in comparison.rows if row.result})
    return [
        (words("report.seeds"), ", ".join(map(str, request.seeds))),
        (words("report.shots_used"), ", ".join(map(str, shots))),
        (words("report.preset"), request.preset),
        (words("report.templates"), request.template_set),
        (words("report.precision"), ", ".join(sorted({result.precision for result in done}))),
        (words("report.duration"), words("number.seconds", value=f"{comparison.seconds:.0f}")),
        *((name, str(version)) for name, version in (done[0].versions if done else {}).items()),
    ]


def thumbnail_uri(image: ImageFile, folder: Path) -> str:
    """Return a small JPEG of an image as a data URI; empty where the file is gone."""
    try:
        data = thumbnail(image, folder, THUMBNAIL).read_bytes()
    except LabError:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def calibrations(comparison: Comparison) -> dict[str, Calibration]:
    """Method -> calibration on the test images at the ranking's shots, over all its seeds."""
    if comparison.ranking is None:
        return {}
    tables: dict[str, list[Mapping[str, np.ndarray]]] = {}
    for row in comparison.rows:
        if row.status == "done" and row.shots == comparison.ranking.shots:
            tables.setdefault(row.method, []).append(row.arrays())
    found = {}
    for method, arrays in tables.items():
        probabilities = np.concatenate([part["probabilities"] for part in arrays])
        targets = np.concatenate([part["target"] for part in arrays])
        measured = calibration(probabilities, targets.tolist())
        if measured is not None:
            found[method] = measured
    return found


def command_line(comparison: Comparison, task: str | Sequence[str] = "YOUR_FOLDER_OR_ZIP", labels: str = "") -> str:
    """Return the same comparison on the command line. ``labels``: as typed, where they are not the folders' names."""
    request = comparison.request
    task = [task] if isinstance(task, str) else task
    words = [
        "python -m engine compare",
        "--task",
        shlex.join(task),
        "--methods",
        ",".join(request.methods),
        "--seeds",
        ",".join(map(str, request.seeds)),
        "--preset",
        request.preset,
        "--templates",
        request.template_set,
        "--backbone",
        shlex.quote(comparison.backbone),
    ]
    words += ["--shots", ",".join(map(str, request.shots))] if request.shots else []
    words += ["--labels", shlex.quote(labels)] if labels else []
    return " ".join(words)
