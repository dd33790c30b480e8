"""What is measured of learning step by step: the accuracy matrix and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import chi2_contingency, t

from engine.types import Interval

PERMUTATIONS = 999
"""Random assignments of images to labels behind a selection's p-value."""


def summarise(matrix: np.ndarray, zero_shot_later: Sequence[float], open_row: Sequence[float]) -> dict[str, float]:
    """Return the measures of an accuracy matrix.

    Args:
        matrix: ``(T, T)`` shares right, row i after step i, column j the test images of step j. Up to the diagonal
            the labels seen so far compete; right of it the labels that were never tuned.
        zero_shot_later: the frozen model's accuracy on step j among the labels of steps j and later, ``(T,)``: what
            the entry (j - 1, j) is compared with.
        open_row: after each step the accuracy on all test images among all labels of the stream, ``(T,)``.

    Returns:
        ``accuracy`` (mean of the last row) and ``incremental`` (mean over the steps of what was seen by then);
        ``forgetting``, the mean over old steps of best earlier minus final accuracy (Chaudhry et al. 2018, arXiv
        1801.10112); ``backward`` and ``forward`` transfer (Lopez-Paz and Ranzato 2017, arXiv 1706.08840: R_Tj - R_jj
        and R_j-1,j - b_j); ``never_tuned``, the mean of what lies right of the diagonal; ``open``. A measure that
        one step does not have is NaN; what is NaN in the matrix, as test images were lost, takes no part.
    """
    last, steps = matrix[-1], len(matrix)
    old, later = range(steps - 1), range(1, steps)
    return {
        "accuracy": known_mean(last),
        "incremental": known_mean([known_mean(matrix[i, : i + 1]) for i in range(steps)]),
        "forgetting": known_mean([np.fmax.reduce(matrix[j : steps - 1, j]) - last[j] for j in old]),
        "backward": known_mean([last[j] - matrix[j, j] for j in old]),
        "forward": known_mean([matrix[j - 1, j] - zero_shot_later[j] for j in later]),
        "never_tuned": known_mean(matrix[np.triu_indices(steps, 1)]),
        "open": float(open_row[-1]),
    }


def known_mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of what is known; NaN where nothing is."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def interval(values: Sequence[float], level: float = 0.05) -> Interval:
    """Return the mean over orders with Student's interval; one order alone has none (NaN)."""
    rows = np.asarray(values, float)
    mean = float(rows.mean())
    if len(rows) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(t.ppf(1 - level / 2, len(rows) - 1) * rows.std(ddof=1) / np.sqrt(len(rows)))
    return Interval(mean, mean - half, mean + half)


def over_orders(rows: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """Return each measure's mean and interval over several orders."""
    return {name: interval([row[name] for row in rows]) for name in rows[0]}


def dependence(chosen: np.ndarray, targets: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return (chi-square, p-value, Cramér's V) of whether the choice of prompts depends on the label.

    An image chooses several prompts, so the cells of the table are not independent counts and the chi-square
    distribution does not hold; the p-value comes from shuffling the labels of the images instead.

    Args:
        chosen: ``(N, M)`` whether image n chose prompt m.
        targets: ``(N,)`` labels.
    """
    classes = np.unique(targets)
    used = chosen[:, chosen.any(0)].astype(float)
    members = (targets[:, None] == classes).astype(float)  # (N, K)
    if len(classes) < 2 or used.shape[1] < 2:
        return 0.0, 1.0, 0.0

    observed = float(chi2_contingency(members.T @ used, correction=False).statistic)
    rng = np.random.default_rng(seed)
    expected = np.outer(members.sum(0), used.sum(0)) / len(targets)
    tables = [members[rng.permutation(len(targets))].T @ used for _ in range(PERMUTATIONS)]
    null = np.array([((table - expected) ** 2 / expected).sum() for table in tables])
    p = (1 + int((null >= observed - 1e-9).sum())) / (1 + PERMUTATIONS)
    strength = np.sqrt(observed / (used.sum() * (min(len(classes), used.shape[1]) - 1)))
    return observed, float(p), float(strength)
