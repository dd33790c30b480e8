"""Which methods are better, as far as the images can tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from engine.compare.resample import BootstrapSamples, CorrectnessTable, Difference, holm
from engine.compare.results import DONE, SKIPPED, Row
from engine.errors import Note
from engine.metrics import training
from engine.metrics.statistics import LEVEL
from engine.tuning import registry
from engine.types import BASELINE, Interval

NORMAL = NormalDist()
LEAST_P = 1e-300
"""Below it a p-value has no normal quantile in double precision."""
FITTED = 3
"""Numbers of shots, the largest ones, through which the shot curve's line is laid."""


@dataclass(frozen=True)
class Standing:
    """A method's place and what it costs."""

    method: str
    rank: int
    """From 1, by group and then by accuracy."""
    group: int
    """From 1; the methods of a group cannot be told apart from its best."""
    accuracy: Interval
    """Mean over the seeds, with its 95 % interval."""
    p_group: float
    """Against the best of the group, corrected for the number of comparisons; 1 for the best itself."""
    over_zero_shot: Difference
    """Against prompt-ensembled zero-shot; ``p`` and the interval are corrected for the number of methods."""
    word: str
    """That difference as in ``Verdict.word``: ``better``, ``worse``, ``close`` or ``baseline``."""
    parameters: int
    memory_bytes: int | None
    """None where it is a forecast and that is unknown."""
    memory_kind: str
    """``cuda``: the largest peak that was measured. ``forecast``: what a run needs where nothing is loaded yet, because
    the peak of a process on the CPU holds whatever else the process has done."""
    seconds: float
    """Mean of a run on features that are there already."""
    usual_seconds: float
    """What the forecast says of ``seconds``, which no other work on the machine changes; ``seconds`` where there is no
    forecast."""
    adapter_bytes: int
    loss: float | None
    """Accuracy lost on labels that were not tuned on, a share, where it was measured."""
    seeds: int
    training: str = ""
    """The worst word of :func:`engine.metrics.training.judge` over the runs; empty where nothing was trained."""

    @property
    def name(self) -> str:
        """The method's name on screen."""
        return registry.get(self.method).name

    @property
    def title(self) -> Note:
        """The method's name inside a sentence."""
        return registry.get(self.method).title

    @property
    def family(self) -> str:
        """One of ``registry.FAMILIES``."""
        return registry.get(self.method).family

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = asdict(self)
        found["accuracy"] = self.accuracy.value
        found["interval95"] = [self.accuracy.low, self.accuracy.high]
        del found["usual_seconds"]
        found["verdict"], found["trainable_parameters"] = found.pop("word"), found.pop("parameters")
        return found


@dataclass(frozen=True)
class Curve:
    """A method's accuracy at each number of shots."""

    method: str
    shots: tuple[int, ...]
    accuracy: tuple[Interval, ...]
    doubling: Difference | None
    """What twice the photos are expected to add: slope of a line through the last ``FITTED`` points over the binary
    logarithm of the shots. None with one number of shots."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "method": self.method,
            "shots": list(self.shots),
            "accuracy": [x.value for x in self.accuracy],
            "interval95": [[x.low, x.high] for x in self.accuracy],
            "doubling": asdict(self.doubling) if self.doubling else None,
        }


@dataclass(frozen=True)
class Ranking:
    """Methods in groups, at one number of shots."""

    shots: int
    seeds: tuple[int, ...]
    tested: int
    """Different images that tested."""
    standings: tuple[Standing, ...]
    curves: tuple[Curve, ...]
    """Of every method with a result, in the registry's order."""
    pairs: Mapping[tuple[str, str], Difference]
    """(a, b): accuracy of a minus that of b on the same images; ``p`` is not corrected."""
    missing: tuple[str, ...] = ()
    """Methods with no result at these shots."""

    def within(self, methods: Iterable[str]) -> Ranking:
        """Some of the methods, grouped anew; nothing is run or resampled."""
        kept = set(methods)
        return replace(self, standings=grouped([s for s in self.standings if s.method in kept], self.pairs))

    def standing(self, method: str) -> Standing | None:
        """Return a method's place; None where it has none."""
        return next((standing for standing in self.standings if standing.method == method), None)

    def curve(self, method: str) -> Curve | None:
        """Return a method's shot curve; None where it has no result."""
        return next((curve for curve in self.curves if curve.method == method), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the curves and pairs."""
        return {
            "shots": self.shots,
            "seeds": list(self.seeds),
            "tested": self.tested,
            "standings": [standing.to_json() for standing in self.standings],
            "missing": list(self.missing),
        }


def rank(rows: Sequence[Row], shots: int | None = None) -> Ranking:
    """Rank the methods of some rows.

    A method's accuracy is its mean over the seeds; see :mod:`engine.compare.resample` for its interval and for how two
    methods are compared. The most accurate method leads the first group. It is compared with every other one, the
    p-values are corrected by Holm's method (Holm 1979), and those that differ by no less than chance would make them
    (p > 0.05) share its group; the best of the rest leads the next group. Being in one group is no proof of
    being equal. A leader is chosen because it came out best, so its own figure is a little too good.

    Args:
        rows: those without a result only count as missing.
        shots: at which to rank; :func:`main_shots` by default.

    Raises:
        ValueError: where no row has a result, or none at these shots.
    """
    done = [row for row in rows if row.status == DONE]
    if not done:
        raise ValueError("there is nothing to rank: no run has a result")
    at = main_shots(done) if shots is None else shots
    methods = [spec.id for spec in registry.methods() if any(row.method == spec.id for row in done)]
    right = CorrectnessTable.of(done, methods)
    if at not in right.shots:
        raise ValueError(f"no run with {at} shots has a result")
    resampled = BootstrapSamples(right)
    here = [method for method in methods if len(right.seeds_of(method, at))]
    pairs = dict(all_pairs(resampled, here, at))
    standings = [
        standing_of(resampled, [row for row in done if row.method == method and row.shots == at]) for method in here
    ]
    tried = dict.fromkeys(row.method for row in rows if row.status != SKIPPED)
    return Ranking(
        at,
        tuple(sorted({row.seed or 0 for row in done if row.shots == at})),
        right.tested(at),
        grouped(against_zero_shot(standings, pairs), pairs),
        tuple(curve_of(resampled, method) for method in methods),
        pairs,
        tuple(method for method in tried if method not in here),
    )


def main_shots(done: Sequence[Row]) -> int:
    """Return the largest number of shots that more than half of the methods have a result with: a method without one
    there is left out, and does not move the others."""
    having: dict[int, set[str]] = {}
    for row in done:
        having.setdefault(row.shots or 0, set()).add(row.method)
    most = max(map(len, having.values()))
    return max(shots for shots, methods in having.items() if 2 * len(methods) > most)


def all_pairs(
    resampled: BootstrapSamples, methods: Sequence[str], shots: int
) -> Iterator[tuple[tuple[str, str], Difference]]:
    """Every pair of methods in both orders."""
    chosen = [(a, b) for k, a in enumerate(methods) for b in methods[k + 1 :]]
    for (a, b), found in zip(chosen, resampled.differences(chosen, shots), strict=True):
        yield (a, b), found
        yield (b, a), Difference(-found.value, -found.high, -found.low, found.p)


def standing_of(resampled: BootstrapSamples, rows: Sequence[Row]) -> Standing:
    """Return a method's accuracy and costs over its seeds; not yet compared with others."""
    costs = [row.result.cost for row in rows if row.result]
    on_card = all(cost.memory_kind == "cuda" for cost in costs)
    memory = [c.peak_memory_bytes if on_card else sum(c.forecast_parts.values()) for c in costs]
    known = on_card or all(cost.forecast_parts for cost in costs)
    losses = [row.loss for row in rows if row.loss is not None]
    seconds = float(np.mean([sum(cost.seconds.values()) for cost in costs]))
    forecast = [cost.forecast_seconds for cost in costs if cost.forecast_seconds is not None]
    return Standing(
        method=rows[0].method,
        rank=0,
        group=0,
        accuracy=resampled.accuracy(rows[0].method, rows[0].shots or 0),
        p_group=1.0,
        over_zero_shot=Difference(0.0, 0.0, 0.0, 1.0),
        word="baseline",
        parameters=max(cost.trainable_parameters for cost in costs),
        memory_bytes=max(memory) if known else None,
        memory_kind="cuda" if on_card else "forecast",
        seconds=seconds,
        usual_seconds=float(np.mean(forecast)) if len(forecast) == len(costs) else seconds,
        adapter_bytes=max(cost.adapter_bytes for cost in costs),
        loss=float(np.mean(losses)) if losses else None,
        seeds=len(rows),
        training=training.worst(row.result.training for row in rows if row.result),
    )


def against_zero_shot(standings: Sequence[Standing], pairs: Mapping[tuple[str, str], Difference]) -> list[Standing]:
    """Return the standings with their difference to the baseline; without a baseline they stay as they are."""
    tuned = [s for s in standings if s.family != "baseline" and (s.method, BASELINE) in pairs]
    found = [pairs[s.method, BASELINE] for s in tuned]
    judged = {}
    for standing, difference, p in zip(tuned, found, holm([d.p for d in found]), strict=True):
        word = "close" if p > LEVEL else "better" if difference.value > 0 else "worse"
        judged[standing.method] = replace(standing, over_zero_shot=corrected(difference, p, len(found)), word=word)
    return [judged.get(standing.method, standing) for standing in standings]


def corrected(difference: Difference, p: float, tests: int) -> Difference:
    """Return a difference with a corrected p-value and the interval that belongs to it: 0 is inside exactly where
    p > 0.05.

    The standard error is that of a normal distribution with the uncorrected p-value (Altman & Bland 2011, BMJ
    343:d2090), the level 0.05 divided by what p was multiplied by. Never narrower than the interval that was given.
    """
    error = standard_error(difference)
    if error == 0:
        return replace(difference, p=p, low=min(difference.low, 0.0), high=max(difference.high, 0.0))
    times = p / difference.p if p < 1 else max(tests, 1 / difference.p)
    half = -NORMAL.inv_cdf(max(LEVEL / (2 * times), LEAST_P)) * error
    low, high = difference.value - half, difference.value + half
    return Difference(difference.value, max(-1.0, min(low, difference.low)), min(1.0, max(high, difference.high)), p)


def standard_error(difference: Difference) -> float:
    """Return the standard error that a difference and its p-value imply; 0 where the difference is 0 or p is 1."""
    if not difference.value or difference.p >= 1:
        return 0.0
    return abs(difference.value) / -NORMAL.inv_cdf(max(difference.p / 2, LEAST_P))


def grouped(standings: Sequence[Standing], pairs: Mapping[tuple[str, str], Difference]) -> tuple[Standing, ...]:
    """Return the standings in order, in groups whose methods cannot be told apart from the group's best."""
    left = sorted(standings, key=lambda standing: -standing.accuracy.value)
    placed: list[Standing] = []
    group = 0
    while left:
        group += 1
        leader, others = left[0], left[1:]
        corrected = holm([pairs[leader.method, other.method].p for other in others])
        together = [(leader, 1.0)] + [(s, p) for s, p in zip(others, corrected, strict=True) if p > LEVEL]
        for standing, p in together:
            placed.append(replace(standing, rank=len(placed) + 1, group=group, p_group=p))
        left = [standing for standing, p in zip(others, corrected, strict=True) if p <= LEVEL]
    return tuple(placed)


def curve_of(resampled: BootstrapSamples, method: str) -> Curve:
    """Return a method's accuracy at all its shots, and what doubling them is expected to add."""
    shots = [count for count in resampled.right.shots if len(resampled.right.seeds_of(method, count))]
    accuracy = tuple(resampled.accuracy(method, count) for count in shots)
    return Curve(method, tuple(shots), accuracy, doubling(resampled, method, shots[-FITTED:]))


def doubling(resampled: BootstrapSamples, method: str, shots: Sequence[int]) -> Difference | None:
    """Least-squares slope of accuracy over log2(shots), fitted anew in every resampling."""
    if len(shots) < 2:
        return None
    x = np.log2(shots)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # (H,)
    slopes = sum(w * resampled.means(method, count) for w, count in zip(weights, shots, strict=True))
    value = sum(w * resampled.right.mean(method, count) for w, count in zip(weights, shots, strict=True))
    return resampled.difference(float(value), np.asarray(slopes))
