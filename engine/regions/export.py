"""Regions, guesses and the shortcut test as plain JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.regions.scores import Guess, Scorer
    from engine.regions.types import Region


def region_json(region: Region, mark: str) -> dict[str, Any]:
    """Return a region in COCO's fields, and how it was found."""
    return {
        "id": region.number,
        "mark": mark,
        "bbox": list(region.bbox),
        "area": region.area,
        "segmentation": region.rle(),
        "predicted_iou": region.predicted_iou,
        "stability_score": region.stability,
        "points": [[x, y, label] for (x, y), label in zip(region.prompt.points, region.prompt.labels, strict=True)],
        "box": list(region.prompt.box) if region.prompt.box else None,
        "granularity": region.granularity or None,
        "mask": mask_name(region.number),
    }


def guess_json(guess: Guess, scorer: Scorer | None) -> dict[str, Any]:
    """Return what a model says, with the labels' names."""
    names = [label.name for label in scorer.labels] if scorer else []
    return {**asdict(guess), "probabilities": dict(zip(names, guess.probabilities, strict=True))}


def shortcut_json(tested: Any, scorer: Scorer | None) -> dict[str, Any] | None:
    """Return the shortcut test, with its sentences in English."""
    if tested is None:
        return None
    sides: dict[str, Any] = {
        side: {
            "reads": reading.word,
            **{
                name: guess_json(getattr(reading, name), scorer)
                for name in ("whole", "without_background", "without_object")
            },
        }
        for side, reading in sides_of(tested)
    }
    return {**sides, "sentences": [str(note) for note in tested.notes]}


def sides_of(row: Any) -> list[tuple[str, Any]]:
    """Return (side, its part) for the models that there are."""
    return [(side, getattr(row, side)) for side in ("zero_shot", "tuned") if getattr(row, side, None)]


def mask_name(number: int) -> str:
    """Return the file of a region's mask."""
    return f"mask-{number:03d}.png"
