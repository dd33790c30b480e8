"""A comparison as one HTML file that opens offline and prints well."""

from __future__ import annotations

import base64
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.checks.forgetting import Forgetting
from engine.checks.label_errors import LabelErrorReport
from engine.data.images import ImageFile, thumbnail
from engine.errors import LabError
from engine.metrics.calibration import Calibration, calibration
from engine.report.page import Sections
from engine.report.words import ENGLISH, Words

if TYPE_CHECKING:
    from engine.compare import Comparison

THUMBNAIL = 72
"""Longer side of a picture, pixels."""

CSS = """
:root { color-scheme: light; }
body { font: 14px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans KR', 'Apple SD Gothic Neo',
  'Malgun Gothic', sans-serif; color: #1f2937; background: #fff; max-width: 960px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 28px 0 6px; }
h3 { font-size: 14px; margin: 10px 0 2px; } p, ul { margin: 4px 0 8px; } small, .facts { color: #5b6473; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 8px; border-bottom: 1px solid #e3e6eb; vertical-align: top; }
thead th { font-size: 12px; color: #5b6473; border-bottom: 2px solid #cbd1da; }
td { overflow-wrap: anywhere; } td.number, td.number * { white-space: nowrap; }
tr.group th { background: #f3f5f8; font-weight: 600; } tr.baseline td { color: #5b6473; }
tr.chosen td { background: #eaf1fe; } .interval { color: #5b6473; white-space: nowrap; }
.advice { background: #eaf1fe; border-left: 4px solid #3b6fe0; padding: 8px 16px; margin: 16px 0; }
.advice h2 { margin: 0; } .row { display: flex; flex-wrap: wrap; gap: 16px; }
svg { width: 100%; height: auto; display: block; } .row svg { width: 270px; }
img { height: 56px; margin: 0 4px 4px 0; border-radius: 4px; vertical-align: middle; }
table.images th { width: 22%; overflow-wrap: anywhere; }
pre { background: #f3f5f8; padding: 8px 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
section { overflow-x: auto; }
@media print {
  @page { margin: 14mm; } body { max-width: none; margin: 0; padding: 0; font-size: 11px; }
  section { overflow: visible; } h2 { break-after: avoid; } tr, svg, .advice, .row { break-inside: avoid; }
  thead { display: table-header-group; }
  .advice, tr.group th, tr.chosen td { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded and nothing runs, whatever a label may hold."""


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
    with tempfile.TemporaryDirectory() as folder:

        def picture(i: int) -> str:
            return thumbnail_uri(images[i], Path(folder)) if i < len(images) else ""

        sections = Sections(comparison, words, picture)
        path.write_text(_document(sections, comparison, images, task, command, damage, check), encoding="utf8")
    return path


def _document(
    sections: Sections,
    comparison: Comparison,
    images: Sequence[ImageFile],
    task: str,
    command: str,
    damage: Sequence[Forgetting],
    check: LabelErrorReport | None,
) -> str:
    say = sections.say
    title = say("title", task=task or ", ".join(label.name for label in comparison.labels[:4]))
    facts = say(
        "facts", labels=len(comparison.labels), images=len(comparison.image_names), backbone=comparison.backbone
    )
    made = say("made", when=time.strftime("%Y-%m-%d %H:%M"))
    stopped = f"<p>{say('stopped')}</p>" if comparison.stopped else ""
    parts = [f'<h1>{title}</h1><p class="facts">{facts} · {made}</p>{stopped}']
    if comparison.ranking is not None:
        parts += [
            sections.advice(), sections.methods(), sections.pareto(), sections.shots(),
            sections.damage(damage), sections.calibration(calibrations(comparison)),
        ]  # fmt: skip
    place = {label.name: k for k, label in enumerate(comparison.labels)}
    of_label: dict[int, list[int]] = {}
    for i, image in enumerate(images):
        if image.label in place:
            of_label.setdefault(place[image.label], []).append(i)
    parts += [sections.mislabelled(check), sections.failed()]
    parts += [sections.images(of_label) if of_label else "", sections.repeat(command)]
    return (
        f'<!DOCTYPE html><html lang="{sections.words.language}"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


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


def command_line(comparison: Comparison, task: str = "YOUR_FOLDER_OR_ZIP", labels: str = "") -> str:
    """Return the same comparison on the command line. ``labels``: as typed, where they are not the folders' names."""
    request = comparison.request
    words = [
        "python -m engine compare", "--task", shlex.quote(task), "--methods", ",".join(request.methods),
        "--seeds", ",".join(map(str, request.seeds)), "--preset", request.preset, "--templates", request.template_set,
        "--backbone", shlex.quote(comparison.backbone),
    ]  # fmt: skip
    words += ["--shots", ",".join(map(str, request.shots))] if request.shots else []
    words += ["--labels", shlex.quote(labels)] if labels else []
    return " ".join(words)
