"""Which of the masks that were found are worth showing: specks, holes, doubles, and objects against their parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from engine.regions.types import Level

SPECK = 0.1
"""Loose pieces and holes below this share of the mask go, whatever their size."""
SAME = 0.85
"""Intersection over union from which two masks are one region."""
INSIDE = 0.85
"""Share of a region from which on it lies inside another one."""

WHOLE = 0.98
"""Share of the image from which on a mask is the image and no region of it."""

Found = tuple[np.ndarray, float, float]
"""Mask ``(h, w)`` bool, predicted intersection over union, stability."""


def clean(mask: np.ndarray, least_area: float) -> np.ndarray:
    """Return a mask ``(h, w)`` bool without small loose pieces and holes.

    Args:
        least_area: pieces and holes below this share of the image go, and those below ``SPECK`` of the mask. The
            largest piece stays, unless it is below ``least_area`` itself: then nothing is left.
    """
    least = max(least_area * mask.size, SPECK * mask.sum())
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes >= least
    if count and not keep.any() and sizes.max() >= least_area * mask.size:
        keep[sizes.argmax()] = True
    mask = keep[pieces]
    holes, count = ndimage.label(~mask)
    fill = np.bincount(holes.ravel(), minlength=count + 1) < least
    fill[0] = False
    return mask | fill[holes]


def sort_by_granularity(found: Sequence[Found], levels: Sequence[Level]) -> list[tuple[int, int]]:
    """Return (position, level) of the masks to show, in the order of their numbers.

    A mask that is the same as a better one, or nearly the whole image, is left out. Each other gets the first level
    whose thresholds it meets; coarse regions come first, then large ones, then by place, so that the order depends on
    the masks alone.
    """
    areas = [int(mask.sum()) for mask, *_ in found]
    flat = np.stack([mask.ravel() for mask, *_ in found]).astype(np.float32) if found else np.zeros((0, 1), np.float32)
    common = flat @ flat.T  # (n, n) pixels that two masks share
    regions = [k for k, (mask, *_) in enumerate(found) if areas[k] < WHOLE * mask.size]
    kept: list[int] = []
    for k in sorted(regions, key=lambda k: (-found[k][1], k)):
        if all(common[k, other] < SAME * (areas[k] + areas[other] - common[k, other]) for other in kept):
            kept.append(k)
    by_size = sorted(kept, key=lambda k: (-areas[k], _place(found[k][0])))
    chosen: list[tuple[int, int]] = []
    for number, level in enumerate(levels):
        shown = [k for k, _ in chosen]
        for k in by_size:
            mask, iou, stability = found[k]
            good = iou >= level.predicted_iou and stability >= level.stability
            inside = any(common[k, other] > INSIDE * areas[k] for other in shown)
            if k not in shown and good and areas[k] >= level.least_area * mask.size and (level.nested or not inside):
                shown.append(k)
                chosen.append((k, number))
    return chosen


def _place(mask: np.ndarray) -> int:
    """Position of the first pixel, row by row."""
    return int(mask.argmax())
