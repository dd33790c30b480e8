"""What a region of an image is. Plain data: masks are kept as run lengths, so hundreds of them take little memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

GRANULARITIES = ("objects", "parts", "all")
"""How finely *everything* is divided, coarsest first; each holds the regions of those before it."""


@dataclass(frozen=True)
class Prompt:
    """Where a region was asked for. Pixels of the image, x to the right, y down."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    """For each point: 1 lies on the object, 0 on the background."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom."""


@dataclass(frozen=True)
class Region:
    """One mask of an image with what the segmenter says of it."""

    number: int
    """From 1; the same at every granularity. 0: not numbered yet."""
    size: tuple[int, int]
    """Width and height of the image in pixels."""
    bbox: tuple[int, int, int, int]
    """Left, top, width, height of the mask in the image's pixels."""
    area: int
    """Pixels of the mask at the image's size."""
    predicted_iou: float
    """The segmenter's own estimate of the mask's intersection over union with the true one, about 0 to 1."""
    stability: float
    """Intersection over union of the masks cut at a higher and a lower threshold, 0 to 1."""
    prompt: Prompt
    granularity: str = ""
    """Coarsest of ``GRANULARITIES`` that shows it; empty for a click or box."""
    runs: tuple[int, ...] = field(default=(), repr=False)
    """Run lengths of the mask, column by column, starting with those outside, at ``runs_size``."""
    runs_size: tuple[int, int] = (0, 0)
    """Width and height that the mask was made at: the image's, or that of its smaller working copy."""
    logits: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Low-resolution logits ``(1, h, w)`` float32 that a further click starts from; None where everything was found."""

    @classmethod
    def of(
        cls,
        mask: np.ndarray,
        size: tuple[int, int],
        predicted_iou: float,
        stability: float,
        prompt: Prompt,
        **more: Any,
    ) -> Region:
        """A region from a mask ``(h, w)`` bool with at least one pixel, of an image of ``size`` (width, height)."""
        height, width = mask.shape
        made = cls(
            0,
            size,
            (0, 0, 0, 0),
            0,
            float(predicted_iou),
            float(stability),
            prompt,
            runs=tuple(encode(mask)["counts"]),
            runs_size=(width, height),
            **more,
        )
        (left, top), part = made.part(size)
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        (x0, x1), (y0, y1) = ((int(line[0]), int(line[-1]) + 1) for line in (columns, rows))
        return replace(made, bbox=(left + x0, top + y0, x1 - x0, y1 - y0), area=int(part.sum()))

    @property
    def mask(self) -> np.ndarray:
        """``(H, W)`` bool at the image's size, made anew at each call."""
        return self.mask_at(self.size)

    def mask_at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the mask of the image drawn at another ``size`` (width, height): ``(height, width)`` bool."""
        whole = np.zeros(size[::-1], bool)
        (left, top), part = self.part(size)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        return whole

    def part(self, size: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
        """Return the part of :meth:`mask_at` that holds the region: its left and top, and ``(h, w)`` bool."""
        mask = decode({"size": list(self.runs_size[::-1]), "counts": list(self.runs)})
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if size == self.runs_size:
            return (int(left), int(top)), mask[top:bottom, left:right]
        across, down = size[0] / self.runs_size[0], size[1] / self.runs_size[1]
        # One working pixel more on each side, so that the outline is interpolated and not cut.
        x0, x1 = int(max(0, (left - 1) * across)), int(min(size[0], np.ceil((right + 1) * across)))
        y0, y1 = int(max(0, (top - 1) * down)), int(min(size[1], np.ceil((bottom + 1) * down)))
        source = (x0 / across, y0 / down, min(x1 / across, mask.shape[1]), min(y1 / down, mask.shape[0]))
        grey = Image.fromarray(mask.astype(np.uint8) * 255)
        scaled = np.asarray(grey.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=source))
        return (x0, y0), scaled >= min(128, scaled.max())  # a speck that shrinks below half a pixel keeps its peak

    def rle(self) -> dict[str, Any]:
        """COCO's uncompressed run lengths of the mask at the image's size: ``size`` [H, W] and ``counts``."""
        return encode(self.mask)


@dataclass(frozen=True)
class Level:
    """What a mask must have to be shown at a granularity."""

    predicted_iou: float
    stability: float
    least_area: float
    """Share of the image."""
    nested: bool = True
    """Whether a region may lie inside another one that is shown."""


@dataclass(frozen=True)
class Thresholds:
    """How sure a segmenter must be; models differ in how their own estimates are spread."""

    prompted_iou: float
    """Least predicted intersection over union of the best mask of a click or box."""
    levels: tuple[Level, Level, Level]
    """In the order of ``GRANULARITIES``; the last one's figures are the least of all."""
    points_per_side: int = 32
    """The search for everything clicks on a square grid of so many points a side."""
    points_per_batch: int = 32
    stability_offset: float = 1.0
    """Logits that the two thresholds of the stability score lie above and below the mask's."""
    box_nms_iou: float = 0.7
    """Of masks whose boxes overlap more than this, the one with the best estimate is kept."""


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask ``(H, W)`` bool as COCO's uncompressed run lengths."""
    import torch
    from segment_anything.utils.amg import mask_to_rle_pytorch

    return mask_to_rle_pytorch(torch.tensor(mask, dtype=torch.bool)[None])[0]


def decode(rle: dict[str, Any]) -> np.ndarray:
    """COCO's uncompressed run lengths as a mask ``(H, W)`` bool."""
    from segment_anything.utils.amg import rle_to_mask

    return np.ascontiguousarray(rle_to_mask(rle))


def numbered(regions: Iterable[Region], start: int = 1) -> tuple[Region, ...]:
    """Return the regions with numbers from ``start`` on, in their order."""
    return tuple(replace(region, number=number) for number, region in enumerate(regions, start))


def visible(regions: Iterable[Region], granularity: str) -> tuple[Region, ...]:
    """Those of *everything* that a granularity shows; they keep their numbers."""
    shown = GRANULARITIES[: GRANULARITIES.index(granularity) + 1]
    return tuple(region for region in regions if region.granularity in shown)
