"""What the plots of a comparison show, for the page and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.report.columns import pointed_at
from engine.report.figures import Figures
from engine.report.geometry import Dot, Growth, Mixture
from engine.tuning import registry
from engine.types import BASELINE

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.compare import Ranking, Standing
    from engine.metrics.calibration import Calibration
    from engine.report.language import Words

COSTS: dict[str, tuple[Callable[[Standing], float | None], Callable[[Figures, float], str]]] = {
    "memory": (lambda s: s.memory_bytes, Figures.size),
    "seconds": (lambda s: s.seconds, Figures.time),
    "parameters": (lambda s: s.parameters, Figures.count),
    "file": (lambda s: s.adapter_bytes, Figures.size),
}
"""What accuracy can be drawn against: from a method to its cost (None: not known), and a cost in words."""


def dots(ranking: Ranking, cost: str, chosen: str | None, words: Words, within: Ranking | None = None) -> list[Dot]:
    """Return the methods in the plot of a cost against accuracy; those whose cost is not known are left out.

    Args:
        cost: a key of ``COSTS``.
        chosen: the recommended method.
        within: those within the limits; all others are faded.
    """
    of, figures = COSTS[cost][0], Figures(words)
    costs = {standing.method: float(value) for standing in ranking.standings if (value := of(standing)) is not None}
    known = [standing for standing in ranking.standings if standing.method in costs]
    dominated = dominated_by_cost(known, costs)
    return [
        Dot(
            words.name(s.method),
            costs[s.method],
            s.accuracy.value,
            s.accuracy.low,
            s.accuracy.high,
            pointed_at(s, figures),
            baseline=s.family == "baseline",
            faded=s.method in dominated or (within is not None and within.standing(s.method) is None),
            chosen=s.method == chosen,
        )
        for s in known
    ]


def dominated_by_cost(standings: Sequence[Standing], costs: Mapping[str, float]) -> set[str]:
    """Methods for which another one is at least as accurate and costs no more, and is better in one of the two."""
    return {
        s.method
        for s in standings
        if any(
            o.accuracy.value >= s.accuracy.value
            and costs[o.method] <= costs[s.method]
            and (o.accuracy.value > s.accuracy.value or costs[o.method] < costs[s.method])
            for o in standings
        )
    }


def growths(ranking: Ranking, chosen: str | None, words: Words) -> list[Growth]:
    """Return the methods in the plot of accuracy by training images."""
    return [
        Growth(
            words.name(curve.method),
            tuple(curve.shots),
            tuple(accuracy.value for accuracy in curve.accuracy),
            tuple(accuracy.low for accuracy in curve.accuracy),
            tuple(accuracy.high for accuracy in curve.accuracy),
            baseline=is_baseline(curve.method),
            chosen=curve.method == chosen,
        )
        for curve in ranking.curves
    ]


def mixtures(found: Sequence[Forgetting], words: Words) -> list[Mixture]:
    """Return the methods whose tuned weights were mixed with the original ones."""
    return [
        Mixture(
            words.name(d.method),
            tuple(point.share for point in d.curve),
            tuple(point.tuned_labels for point in d.curve),
            tuple(point.other_labels for point in d.curve),
        )
        for d in found
        if d.curve
    ]


def before_and_after(found: Mapping[str, Calibration], chosen: str | None) -> tuple[str | None, str | None]:
    """Return which two methods to draw: zero-shot, and the recommended one or the first that is tuned."""
    tuned = [method for method in found if not is_baseline(method)]
    after = chosen if chosen in tuned else next(iter(tuned), None)
    return (BASELINE if BASELINE in found else None), after


def is_baseline(method: str) -> bool:
    """Return whether nothing is tuned."""
    return registry.get(method).family == "baseline"
