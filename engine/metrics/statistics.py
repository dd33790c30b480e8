"""Honest figures from few images: intervals, paired tests and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm

from engine.types import Interval, Verdict

LEVEL = 0.05
"""Significance level of the verdict."""


def wilson(right: float, tested: int, level: float = LEVEL) -> Interval:
    """Wilson score interval (Wilson 1927) of ``right`` correct among ``tested`` images."""
    if tested == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z = norm.ppf(1 - level / 2)
    p = right / tested
    centre = (p + z * z / (2 * tested)) / (1 + z * z / tested)
    half = z * np.sqrt(p * (1 - p) / tested + z * z / (4 * tested * tested)) / (1 + z * z / tested)
    return Interval(float(p), float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def accuracy(correct: Sequence[float]) -> Interval:
    """Return accuracy of images, each right with a share from 0 to 1 (over repeats), with its interval."""
    return wilson(float(np.sum(correct)), len(correct))


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired right (1) and wrong (0)."""
    gained, lost = int((after > before).sum()), int((before > after).sum())
    return 1.0 if gained + lost == 0 else float(binomtest(min(gained, lost), gained + lost, 0.5).pvalue)


def paired_bootstrap(before: np.ndarray, after: np.ndarray, seed: int = 0, rounds: int = 10_000) -> float:
    """Two-sided p-value of the mean difference, images drawn with replacement (Efron 1979)."""
    difference = np.asarray(after, float) - np.asarray(before, float)
    if not difference.any():
        return 1.0
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (rounds, len(difference)))].mean(1)
    below, above = (np.sum(means <= 0) + 1) / (rounds + 1), (np.sum(means >= 0) + 1) / (rounds + 1)
    return float(min(1.0, 2 * min(below, above)))


def give_verdict(
    before: Sequence[float], after: Sequence[float], repeated: bool, tuned: bool = True, seed: int = 0
) -> Verdict:
    """Compare two models on the same test images.

    Args:
        before, after: per image the share of its tests that was right, 0 to 1.
        repeated: whether the shares come from cross-validation (paired bootstrap) or from one
            held-out split (exact McNemar).
        tuned: False where nothing was tuned; the verdict is then ``baseline``.
    """
    b, a = np.asarray(before, float), np.asarray(after, float)
    p = paired_bootstrap(b, a, seed) if repeated else mcnemar(b, a)
    word = "close" if p > LEVEL else "better" if a.mean() > b.mean() else "worse"
    return Verdict(word if tuned else "baseline", p, int((a > b).sum()), int((b > a).sum()), len(a))


def confusion(targets: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Return ``(K, K)`` counts, rows true, columns predicted."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (np.asarray(targets, int), np.asarray(predicted, int)), 1)
    return table


def project(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Map ``(N, P)`` to ``(N, 2)`` by principal components; fewer than three points stay as they are."""
    from sklearn.decomposition import PCA

    parts = min(2, *points.shape)
    flat = PCA(parts, random_state=seed).fit_transform(points) if len(points) > 1 else np.zeros((len(points), parts))
    return np.pad(flat, ((0, 0), (0, 2 - parts)))
