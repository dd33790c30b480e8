"""Whether a model is as sure as it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 15
"""Bins of Guo et al. 2017, arXiv 1706.04599."""
IMAGES_A_BIN = 10
"""Fewest images in a bin where there are too few for ``BINS`` of equal width."""


@dataclass(frozen=True)
class Bin:
    """Images of about the same confidence."""

    confidence: float
    """Mean probability of the label that was said, 0 to 1."""
    accuracy: float
    """Share of these images that is right."""
    count: int


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy are apart on some images."""

    ece: float
    """Expected calibration error: mean over images of |confidence - accuracy| of their bin, 0 to 1."""
    brier: float
    """Mean squared distance from the probabilities to the truth (Brier 1950): 0 to 2 where they add up to 1."""
    confidence: float
    """Mean probability of the label that was said."""
    accuracy: float
    bins: tuple[Bin, ...]
    """The reliability curve, by rising confidence; no bin is empty."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return asdict(self)


def calibration(probabilities: np.ndarray, targets: Sequence[int]) -> Calibration | None:
    """Calibration of probabilities ``(N, K)`` against classes ``(N,)``; None without images.

    With ``BINS * IMAGES_A_BIN * 2`` images or more the bins are 15 of equal width, as published.
    Below that most of them would hold one image or none, so bins hold equally many images instead, at least
    ``IMAGES_A_BIN`` (equal mass: Nguyen & O'Connor 2015, arXiv 1508.05154). Even for a perfect model the ECE
    of few images is above zero.
    """
    rows, goal = np.asarray(probabilities, float), np.asarray(targets, int)
    if not len(goal):
        return None
    confidence, right = rows.max(1), rows.argmax(1) == goal
    bins = tuple(
        Bin(float(confidence[members].mean()), float(right[members].mean()), len(members))
        for members in _members(confidence)
    )
    ece = sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / len(goal)
    truth = np.eye(rows.shape[1])[goal]
    brier = float(((rows - truth) ** 2).sum(1).mean())
    return Calibration(float(ece), brier, float(confidence.mean()), float(right.mean()), bins)


def _members(confidence: np.ndarray) -> list[np.ndarray]:
    """Positions of the images of each bin, by rising confidence."""
    order = np.argsort(confidence, kind="stable")
    if len(order) < 2 * BINS * IMAGES_A_BIN:
        return np.array_split(order, max(1, min(BINS, len(order) // IMAGES_A_BIN)))
    edges = np.searchsorted(confidence[order], np.arange(1, BINS) / BINS, side="right")  # (low, high] as published
    return [part for part in np.split(order, edges) if len(part)]
