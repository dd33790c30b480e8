"""Prediction sets: instead of one label, the few among which the right one is, at a chosen rate.

Split conformal prediction with the smallest sets that keep the rate on the whole (Sadinle, Lei and Wasserman 2019,
arXiv 1609.00451): a label is in the set where its probability is at least a threshold. The sets of APS (arXiv
2006.02544) were tried first; without randomisation they hold nearly four of seven labels of a model that is always
right. The images that test a run calibrate it; whether the rate is reached is measured on each of them with the
others' threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import Note, messages
from engine.types import Interval

messages(
    prediction_sets="Where one label is not sure enough: sets of {size:.1f} labels on average held the right one in "
    "{reached:.0f} % of the test images (95 % interval {low:.0f} to {high:.0f}; asked for: {coverage:.0f} %).",
)

NEARLY_ONE = 1.05
"""Mean labels of a set below which there is nothing to say."""
COVERAGE = 0.9
"""Share of images whose set is to hold the right label."""


@dataclass(frozen=True)
class Calibrated:
    """What turns probabilities into sets."""

    coverage: float
    """That was asked for."""
    threshold: float
    """The least probability of a label in a set, 0 to 1; the likeliest label is always there."""
    reached: Interval
    """Share of the calibrating images whose set, by the others' threshold, holds their label."""
    size: float
    """Mean number of labels in those sets."""
    images: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "coverage": self.coverage,
            "threshold": self.threshold,
            "reached": self.reached.value,
            "interval95": [self.reached.low, self.reached.high],
            "size": self.size,
            "images": self.images,
        }


def least_images(coverage: float = COVERAGE) -> int:
    """Return how many images it takes until a set can be smaller than all labels."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def calibrate(probabilities: np.ndarray, targets: Sequence[int], coverage: float = COVERAGE) -> Calibrated | None:
    """Return the threshold of probabilities ``(N, K)`` whose classes ``(N,)`` are known, with what it reaches.

    None where there are too few images: with :func:`least_images` or fewer every set would hold every label. Raises
    ValueError where ``coverage`` is not between 0 and 1.
    """
    from engine.metrics.statistics import wilson  # late: it brings scipy, which lists and help do without

    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, not {coverage}")
    rows, goal = shares(probabilities), np.asarray(targets, int)
    if len(goal) <= least_images(coverage):
        return None
    own = rows[np.arange(len(rows)), goal]
    held, sizes = [], []
    for i in range(len(goal)):
        chosen = members(rows[i], threshold_of(np.delete(own, i), coverage))
        held.append(goal[i] in chosen)
        sizes.append(len(chosen))
    reached = wilson(sum(held), len(held))
    return Calibrated(coverage, threshold_of(own, coverage), reached, float(np.mean(sizes)), len(goal))


def shares(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities that add up to 1, as those of a sigmoid model do not."""
    rows = np.asarray(probabilities, float)
    return rows / rows.sum(-1, keepdims=True).clip(1e-12)


def threshold_of(own: np.ndarray, coverage: float) -> float:
    """Return the largest threshold that keeps the label of one more image with the wanted chance; 0 where none does.

    ``own``: probability of each calibrating image's own label, ``(N,)``.
    """
    rank = math.ceil((len(own) + 1) * coverage - 1e-9)
    return float(np.sort(own)[::-1][rank - 1]) if rank <= len(own) else 0.0


def sentence(sets: Mapping[str, Any]) -> Note | None:
    """Return what a run's sets reach; None where there are none, or nearly all are one label."""
    if not sets or sets["size"] < NEARLY_ONE:
        return None
    low, high = sets["interval95"]
    shares = {"reached": sets["reached"], "low": low, "high": high, "coverage": sets["coverage"]}
    return Note.of("prediction_sets", size=sets["size"], **{name: 100 * value for name, value in shares.items()})


def likely(row: np.ndarray, sets: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the classes of an image's set by a run's ``sets``; empty where it has none.

    ``row``: probabilities ``(K,)``; those of a sigmoid model need not add up to 1.
    """
    threshold = sets.get("threshold")
    known = isinstance(threshold, (int, float)) and 0 <= threshold <= 1
    return members(shares(row), float(threshold)) if known else ()  # type: ignore[arg-type]


def members(row: np.ndarray, threshold: float) -> tuple[int, ...]:
    """Return the classes of a set, the likeliest first; never none.

    Args:
        row: probabilities ``(K,)`` that add up to 1.
        threshold: of :class:`Calibrated`.
    """
    order = np.argsort(-row, kind="stable")
    return tuple(int(k) for k in order[: max(1, int((row >= threshold - 1e-9).sum()))])
