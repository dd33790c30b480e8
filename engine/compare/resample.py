"""Intervals and paired tests over test images and seeds.

What is right is a table of methods x seeds x images. A seed is a draw of the training images; it leaves the others to
test with, so that the seeds test mostly the same images. Images and seeds are crossed, and both are
drawn with replacement in every resampling (the pigeonhole bootstrap, Owen 2007), the same images and seeds for all
methods, so that a difference is paired.

What an interval covers: other images like these, and other draws of the training images out of this collection, as far
as the seeds show how much that matters. Three seeds show it roughly and, like every bootstrap of three, a little too
small; one seed does not show it at all, and the interval then holds for that one draw. Training and test
images come from the same collection: photos of another kind are not covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.compare.results import Row
from engine.metrics import statistics
from engine.types import Interval

ROUNDS = 4000
"""Resamplings. The smallest p-value is 1 / 4001, small enough for Holm's correction of 40 comparisons."""
CHUNK = 500
"""Resamplings at a time: bounds the memory."""


@dataclass(frozen=True)
class Difference:
    """A difference of two shares, -1 to 1, with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class CorrectnessTable:
    """Which test images were right, for every run."""

    methods: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    share: np.ndarray
    """``(M, H, S, N)`` float32: share of the image's tests that were right, NaN where the run did not test it."""

    @classmethod
    def of(cls, rows: Sequence[Row], methods: Sequence[str]) -> CorrectnessTable:
        """Return the table of rows that have results; images that no row tested are left out."""
        shots, seeds = sorted({row.shots or 0 for row in rows}), sorted({row.seed or 0 for row in rows})
        tested = np.unique(np.concatenate([row.arrays()["tested"] for row in rows]))
        share = np.full((len(methods), len(shots), len(seeds), len(tested)), np.nan, np.float32)
        for row in rows:
            arrays = row.arrays()
            cell = methods.index(row.method), shots.index(row.shots or 0), seeds.index(row.seed or 0)
            share[cell][np.searchsorted(tested, arrays["tested"])] = arrays["correct"]
        return cls(tuple(methods), tuple(shots), tuple(seeds), share)

    def cell(self, method: str, shots: int) -> np.ndarray:
        """Return a method's ``(S, N)`` at some shots."""
        return self.share[self.methods.index(method), self.shots.index(shots)]

    def seeds_of(self, method: str, shots: int) -> np.ndarray:
        """Return positions of the seeds that a method has."""
        return np.flatnonzero(~np.isnan(self.cell(method, shots)).all(1))

    def mean(self, method: str, shots: int) -> float:
        """Accuracy, mean over the seeds."""
        cell = self.cell(method, shots)[self.seeds_of(method, shots)]
        return float(np.nanmean(cell, axis=1).mean())

    def tested(self, shots: int) -> int:
        """Return different images that tested at some shots."""
        return int((~np.isnan(self.share[:, self.shots.index(shots)])).any((0, 1)).sum())


class BootstrapSamples:
    """Accuracies of every run in ``rounds`` resamplings of images and seeds."""

    def __init__(self, right: CorrectnessTable, seed: int = 0, rounds: int = ROUNDS):
        self.right, self.rounds = right, rounds
        self._rng = np.random.default_rng(seed)
        images = right.share.shape[-1]
        there = ~np.isnan(right.share)
        flat = np.where(there, right.share, 0).reshape(-1, images)
        drawn, tests = [], []
        for size in self._chunks():
            weights = self._rng.multinomial(images, np.full(images, 1 / images), size).astype(np.float32)  # (b, N)
            drawn.append(weights @ flat.T)
            tests.append(weights @ there.reshape(-1, images).astype(np.float32).T)
        with np.errstate(invalid="ignore", divide="ignore"):
            cells = np.concatenate(drawn) / np.concatenate(tests)  # (B, M * H * S)
        self._accuracies = cells.reshape(rounds, *right.share.shape[:-1])  # (B, M, H, S)
        seeds = len(right.seeds)
        self._seeds = self._rng.multinomial(seeds, np.full(seeds, 1 / seeds), rounds).astype(np.float32)  # (B, S)

    def _chunks(self) -> Iterator[int]:
        for start in range(0, self.rounds, CHUNK):
            yield min(CHUNK, self.rounds - start)

    def _over_seeds(self, values: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Mean of ``(B, S)`` values over the drawn seeds among those that are ``there``; ``(B,)``. Where none of them
        was drawn, all count."""
        # The draw of seeds is the same for all methods, so that differences stay paired; a method that lacks a seed
        # keeps the weights of those it has. With few seeds some draws hold none of these: without the fallback they
        # would be 0 / 0, and dropping them would pick draws by method. A run that tested no drawn image counts nothing.
        weights = np.zeros_like(self._seeds)
        weights[:, there] = self._seeds[:, there]
        weights[np.ix_(weights.sum(1) == 0, there)] = 1
        weights = np.where(np.isnan(values), 0, weights)
        with np.errstate(invalid="ignore"):
            return (np.nan_to_num(values) * weights).sum(1) / weights.sum(1)

    def means(self, method: str, shots: int) -> np.ndarray:
        """Return a method's accuracy in every resampling, ``(B,)``."""
        m, h = self.right.methods.index(method), self.right.shots.index(shots)
        return self._over_seeds(self._accuracies[:, m, h], self.right.seeds_of(method, shots))

    def accuracy(self, method: str, shots: int) -> Interval:
        """Mean over the seeds with its interval, never narrower than Wilson's of the tested images: where all images
        are right, resampling finds no doubt."""
        value = self.right.mean(method, shots)
        low, high = np.nanpercentile(self.means(method, shots), (2.5, 97.5))
        count = int((~np.isnan(self.right.cell(method, shots))).any(0).sum())
        plain = statistics.wilson(value * count, count)
        return Interval(value, float(min(low, plain.low)), float(max(high, plain.high)))

    def difference(self, value: float, resampled: np.ndarray) -> Difference:
        """Return a figure with the interval and p-value of its ``(B,)`` resamplings."""
        resampled = resampled[~np.isnan(resampled)]
        low, high = np.percentile(resampled, (2.5, 97.5))
        rounds = len(resampled) + 1
        below, above = (np.sum(resampled <= 0) + 1) / rounds, (np.sum(resampled >= 0) + 1) / rounds
        return Difference(value, float(low), float(high), float(min(1.0, 2 * min(below, above))))

    def differences(self, pairs: Sequence[tuple[str, str]], shots: int) -> Iterator[Difference]:
        """The first method of each pair minus the second, on the seeds that both have.

        The p-value is the larger of two. Signs of the images' differences (means over the seeds) are flipped, which
        is exact for few images and equals McNemar's test with one seed on a held-out split. And images and
        seeds are resampled, so that a lead that hangs on one draw of the training images is no lead; with
        one seed that part is left out.
        """
        means = [self._image_differences(a, b, shots) for a, b in pairs]
        flipped = self._sign_flips(np.array(means, np.float32)) if pairs else []
        h = self.right.shots.index(shots)
        for (a, b), p in zip(pairs, flipped, strict=True):
            both = np.intersect1d(self.right.seeds_of(a, shots), self.right.seeds_of(b, shots))
            if not len(both):
                yield Difference(self.right.mean(a, shots) - self.right.mean(b, shots), -1.0, 1.0, 1.0)
                continue
            first, second = (self.right.methods.index(name) for name in (a, b))
            gaps = self._accuracies[:, first, h] - self._accuracies[:, second, h]  # (B, S)
            cells = self.right.cell(a, shots)[both] - self.right.cell(b, shots)[both]
            value = float(np.nanmean(cells, axis=1).mean())
            found = self.difference(value, self._over_seeds(gaps, both))
            yield Difference(value, found.low, found.high, max(found.p, p) if len(both) > 1 else p)

    def _image_differences(self, a: str, b: str, shots: int) -> np.ndarray:
        """Mean over the seeds of the difference on each image, ``(N,)``; 0 where it was not tested."""
        gaps = self.right.cell(a, shots) - self.right.cell(b, shots)  # (S, N)
        there = ~np.isnan(gaps)
        return np.where(there, gaps, 0).sum(0) / np.maximum(1, there.sum(0))

    def _sign_flips(self, gaps: np.ndarray) -> list[float]:
        """Two-sided p-value of each row's sum ``(P, N)`` among those with random signs."""
        observed = np.abs(gaps.sum(1))  # (P,)
        extreme = np.zeros(len(gaps))
        for size in self._chunks():
            signs = self._rng.integers(0, 2, (size, gaps.shape[1])).astype(np.float32) * 2 - 1
            extreme += (np.abs(signs @ gaps.T) >= observed - 1e-4).sum(0)
        sampled = (extreme + 1) / (self.rounds + 1)
        return [exact_sign_test(row) or float(p) for row, p in zip(gaps, sampled, strict=True)]


def exact_sign_test(gaps: np.ndarray) -> float | None:
    """McNemar's exact p-value, where all images that differ differ by the same amount; otherwise None."""
    sizes = np.abs(gaps[gaps != 0])
    if len(sizes) and not np.allclose(sizes, sizes[0], atol=1e-6):
        return None
    return statistics.mcnemar(gaps < 0, gaps > 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, p_values[k] * (len(p_values) - place)))
        corrected[k] = largest
    return corrected
