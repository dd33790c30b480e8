"""What the regions of a picture are taken for, and files of them. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from demo.screens.regions.service import Marked, marked_of, overlay
from demo.screens.tune import adapters
from demo.screens.tune import service as tuning
from demo.workspace import Workspace
from engine.data.labels import parse_labels

if TYPE_CHECKING:
    from engine.regions.marks import Style
    from engine.regions.scores import Scorer

NAMES = {"overlay": "regions.png", "masks": "masks.zip", "json": "regions.json"}
"""Ends of the files' names."""


def scorer_of(workspace: Workspace) -> Scorer | None:
    """What scores regions: the Tune screen's labels, backbone and tuned model; None without labels. Raises LabError."""
    from engine.regions.scores import Scorer

    marked = marked_of(workspace)
    if not workspace.labels_text.strip():
        return None
    kept = adapters.tuned_model(workspace)
    tuner = kept.active if kept else None
    key = (workspace.backbone, workspace.labels_text, workspace.template_set, id(tuner) if tuner else None)
    if marked.scorer is None or marked.scored_by != key:
        if kept is not None:
            scorer = Scorer(kept.setting, tuner)
        else:
            labels = parse_labels(workspace.labels_text)
            scorer = Scorer.zero_shot(tuning.backbone_of(workspace), labels, workspace.template_set)
        with marked.lock:
            marked.scorer, marked.scored_by, marked.shortcut = scorer, key, None
            marked.scores.clear()
    return marked.scorer


def score(workspace: Workspace) -> None:
    """Score the regions that are shown and have no scores in this view yet. Raises LabError."""
    from engine.regions import scores

    marked, scorer = marked_of(workspace), scorer_of(workspace)
    if scorer is None or marked.scene is None:
        return
    picture, view = marked.scene.picture, marked.view
    missing = [region for region in marked.shown if (region, view) not in marked.scores]
    for region, found in zip(missing, scores.score(picture, missing, scorer, view), strict=True):
        marked.scores[region, view] = found


def probe(workspace: Workspace) -> None:
    """Ask whether the label comes from the chosen region or from its background. Raises LabError."""
    from engine.regions import shortcut

    marked, scorer = marked_of(workspace), scorer_of(workspace)
    if scorer is None or marked.scene is None or marked.chosen is None:
        return
    marked.shortcut = (marked.chosen, shortcut.probe(marked.scene.picture, [marked.chosen], scorer))


def names_of(workspace: Workspace) -> dict[str, str]:
    """From the scorer's label names to those of the page's language."""
    marked, shown = marked_of(workspace), workspace.shown
    labels = marked.scorer.labels if marked.scorer else ()
    if shown is None or len(shown.labels) != len(labels):
        return {label.name: label.name for label in labels}
    return {label.name: name for label, name in zip(labels, shown.names, strict=True)}


def file_for(workspace: Workspace, kind: str, style: Style) -> Path | None:
    """Write what can be downloaded: ``overlay`` (PNG), ``masks`` (a zip of PNGs at the picture's full size) or
    ``json`` (COCO's fields and the scores). None without regions."""
    marked = marked_of(workspace)
    if marked.scene is None or marked.image is None or not marked.shown:
        return None
    folder = workspace.folder / "region-files"
    shutil.rmtree(folder, ignore_errors=True)  # the page has a copy of what was downloaded before
    folder.mkdir()
    target = folder / f"{Path(marked.image.name).stem}-{NAMES[kind]}"
    {"overlay": _write_overlay, "masks": _write_masks, "json": _write_json}[kind](marked, style, target)
    return target


def _write_overlay(marked: Marked, style: Style, target: Path) -> None:
    drawn = overlay(marked, style, highlight=False)
    assert drawn is not None
    drawn.save(target)


def _write_masks(marked: Marked, style: Style, target: Path) -> None:
    from PIL import Image

    from engine.regions.export import mask_name

    with zipfile.ZipFile(target, "w") as archive:
        for region in marked.shown:
            png = io.BytesIO()
            Image.fromarray(region.mask).save(png, "PNG")
            archive.writestr(mask_name(region.number), png.getvalue())


def _write_json(marked: Marked, style: Style, target: Path) -> None:
    from engine.regions.export import guess_json, region_json, shortcut_json
    from engine.regions.marks import text_of

    assert marked.image is not None
    rows = []
    for region in marked.shown:
        row, found = region_json(region, text_of(region.number, style.marks)), marked.scores.get((region, marked.view))
        for side, guess in (("zero_shot", found and found.zero_shot), ("tuned", found and found.tuned)):
            row |= {side: guess_json(guess, marked.scorer)} if guess else {}
        rows.append(row)
    content = {
        "image": {"file": marked.image.name, "width": marked.image.width, "height": marked.image.height},
        "segmenter": marked.segmenter,
        "backbone": marked.scorer.backbone.id if marked.scorer else None,
        "view": marked.view if marked.scorer else None,
        "labels": [label.name for label in marked.scorer.labels] if marked.scorer else [],
        "regions": rows,
        "shortcut": shortcut_json(marked.shortcut[1], marked.scorer) if marked.shortcut else None,
    }
    target.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")
