"""Where the names beside points go, so that they cover neither each other nor a point. Pixels, y downwards."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

HEIGHT = 14.0
"""Height of a name."""
COLUMN = 6.3
"""Mean width of a letter at 12 pixels; a Korean, Chinese or Japanese one takes two."""
GAP = 7.0
"""Between a point's middle and its name."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)

    def outside(self, other: Box) -> float:
        """Area of this one that ``other`` does not cover."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(other)


@dataclass(frozen=True)
class LabelPosition:
    """Where a name stands: ``x`` is its start, middle or end, ``y`` the middle of its height."""

    x: float
    y: float
    anchor: str
    """``start``, ``middle`` or ``end``, as SVG has it."""
    far: bool = False
    """Whether it stands away from its point, so that a line should lead there."""
    covers: bool = False
    """Whether it covers another name or a point, because no place was free."""


def columns(text: str) -> int:
    """Columns that a text takes: two for a wide character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def place(
    points: Sequence[tuple[float, float]], names: Sequence[str], frame: Box, size: float = 5.0
) -> list[LabelPosition]:
    """Return a place for every name, in turn: the first that is free, otherwise the one that covers least.

    Args:
        points: middles of the points; names of earlier ones are placed first.
        names: an empty one gets a place that is never drawn.
        frame: names stay inside where they can.
        size: half the width of a point.
    """
    taken = [Box(x - size, y - size, x + size, y + size) for x, y in points]
    places = []
    for (x, y), name in zip(points, names, strict=True):
        choices = _choices(x, y)
        boxes = [_box(choice, columns(name) * COLUMN) for choice in choices]
        costs = [
            sum(box.overlap(other) for other in taken) + 2 * box.outside(frame) + 1e-3 * rank + (8 if choice.far else 0)
            for rank, (choice, box) in enumerate(zip(choices, boxes, strict=True))
        ]
        best = costs.index(min(costs))
        covers = any(boxes[best].overlap(other) > 0 for other in taken)
        places.append(replace(choices[best], covers=covers))
        if name:
            taken.append(boxes[best])
    return places


def _choices(x: float, y: float) -> list[LabelPosition]:
    """Places around a point, the best first."""
    rows = [(GAP, 0, "start"), (0, -13, "middle"), (-GAP, 0, "end"), (0, 13, "middle")]
    rows += [(GAP, -11, "start"), (GAP, 11, "start"), (-GAP, -11, "end"), (-GAP, 11, "end")]
    near = [LabelPosition(x + right, y + down, anchor) for right, down, anchor in rows]
    far = [
        LabelPosition(x + side * GAP * 3, y + shift, "start" if side > 0 else "end", far=True)
        for shift in (-24, 24, -38, 38, -52, 52, -66, 66, -80, 80)
        for side in (1, -1)
    ]
    return near + far


def _box(place: LabelPosition, width: float) -> Box:
    left = place.x - {"start": 0.0, "middle": width / 2, "end": width}[place.anchor]
    return Box(left, place.y - HEIGHT / 2, left + width, place.y + HEIGHT / 2)


def spread(heights: Sequence[float], low: float, high: float, apart: float = HEIGHT) -> list[float]:
    """Heights moved as little as needed so that names in one column are ``apart``, within ``low`` to ``high``."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    result = list(heights)
    floor = low
    for i in order:
        result[i] = floor = max(heights[i], floor)
        floor += apart
    ceiling = high
    for i in reversed(order):
        result[i] = min(result[i], ceiling)
        ceiling = result[i] - apart
    return result
