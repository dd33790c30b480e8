"""What the page's plots and the report's have in common: what is drawn, and where it stands on the axes. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ZERO_AT, POSITIVE_FROM = 0.02, 0.12
"""Places along the axis of costs: of a cost of 0, and where all others begin if there is such a one."""


@dataclass(frozen=True)
class Dot:
    """A method in the plot of cost against accuracy."""

    name: str
    cost: float
    """In the plot's unit; 0 stands at the left edge."""
    value: float
    """Accuracy, 0 to 1, with its 95 % interval."""
    low: float
    high: float
    facts: tuple[tuple[str, str], ...] = ()
    """What the pointer shows: names and values in words."""
    baseline: bool = False
    faded: bool = False
    """Whether another method is at least as accurate and costs no more, or the limits leave it out."""
    chosen: bool = False


@dataclass(frozen=True)
class Growth:
    """A method's accuracy by training images a label."""

    name: str
    shots: tuple[int, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    baseline: bool = False
    chosen: bool = False


@dataclass(frozen=True)
class Mixture:
    """A method's accuracy over the share of its tuned weights; all shares 0 to 1."""

    name: str
    shares: tuple[float, ...]
    tuned_labels: tuple[float, ...]
    other_labels: tuple[float, ...]


@dataclass(frozen=True)
class CostAxis:
    """A logarithmic axis, left is cheaper; a cost of 0 stands at its left end."""

    low: float
    high: float
    """Powers of ten of its ends."""
    start: float
    """Where it begins, 0 to 1: later where there is a cost of 0."""

    @classmethod
    def of(cls, costs: Sequence[float]) -> CostAxis:
        """Return the axis of some costs."""
        positive = [cost for cost in costs if cost > 0] or [1.0]
        low, high = math.log10(min(positive)), math.log10(max(positive))
        room = max(0.12, 0.05 * (high - low))
        return cls(low - room, high + room, POSITIVE_FROM if min(costs, default=1.0) <= 0 else 0.0)

    def place(self, cost: float) -> float:
        """Return a place along the axis, 0 to 1."""
        if cost <= 0:
            return ZERO_AT
        return self.start + (1 - self.start) * (math.log10(cost) - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Return the costs that are written below it."""
        found = round_numbers(10**self.low, 10**self.high)
        return ([0.0] if self.start else []) + found[:: max(1, -(-len(found) // most))]


def percent_range(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """Return accuracy axis in steps of ten points around the values, at least 20 points long."""
    low, high = math.floor(10 * min(lows)) / 10, math.ceil(10 * max(highs) - 1e-9) / 10
    if high - low < 0.2:
        low, high = max(0.0, low - 0.1), min(1.0, high + 0.1)
    return low, high


def percent_step(low: float, high: float) -> int:
    """Return the points between two lines across the plot."""
    return 10 if high - low < 0.65 else 20


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive values: powers of ten, with their 2 and 5 fold where those are few."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [step * 10.0**k for k in powers for step in steps if low <= step * 10.0**k <= high]
        if len(found) >= 3:
            break
    return found
