"""Honest figures from few images: intervals, paired tests and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm, t

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


def sign_flips(difference: np.ndarray, seed: int = 0, rounds: int = 10_000) -> float:
    """Two-sided p-value of the sum of differences among those with random signs; exact where all are of one size."""
    moved = difference[np.abs(difference) > 1e-9]
    if np.allclose(np.abs(moved), np.abs(moved[:1]), atol=1e-9, rtol=0):
        return mcnemar(moved < 0, moved > 0)
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (rounds, len(moved))) - 1
    extreme = np.sum(np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9)
    return float((extreme + 1) / (rounds + 1))


def corrected_resampled(folds: Sequence[tuple[float, float]]) -> float:
    """Two-sided p-value of a mean difference over folds (Nadeau & Bengio 2003, Machine Learning 52:239-281).

    Folds share training images, so that their differences vary less than those of new draws would; the variance is
    larger by the share of test to training images.

    Args:
        folds: (mean difference of its test images, test images / training images) of each.
    """
    differences, shares = np.array(folds, float).T
    mean, variance = differences.mean(), differences.var(ddof=1) if len(folds) > 1 else 0.0
    if variance < 1e-12:
        return 0.0 if abs(mean) > 1e-9 else 1.0
    error = np.sqrt(variance * (1 / len(folds) + shares.mean()))
    return float(2 * t.sf(abs(mean) / error, len(folds) - 1))


def give_verdict(
    before: Sequence[float],
    after: Sequence[float],
    folds: Sequence[tuple[float, float]] = (),
    tuned: bool = True,
    seed: int = 0,
) -> Verdict:
    """Compare two models on the same test images.

    On one held-out split the test is McNemar's exact one. In cross-validation the p-value is the larger of two: signs
    of the images' differences flipped, and the folds' differences by :func:`corrected_resampled`.

    Args:
        before, after: per image the share of its tests that was right, 0 to 1.
        folds: as :func:`corrected_resampled` takes them; empty for one held-out split.
        tuned: False where nothing was tuned; the verdict is then ``baseline``.
    """
    b, a = np.asarray(before, float), np.asarray(after, float)
    p = max(sign_flips(a - b, seed), corrected_resampled(folds)) if len(folds) else mcnemar(b, a)
    word = "close" if p > LEVEL else "better" if a.mean() > b.mean() else "worse"
    gained, lost = float(np.maximum(a - b, 0).sum()), float(np.maximum(b - a, 0).sum())
    return Verdict(word if tuned else "baseline", p, gained, lost, len(a))


def confusion(targets: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
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
