"""The damage test of a comparison's methods, and what it means for their ranking."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.backbones.base import Backbone
from engine.checks import forgetting
from engine.checks.forgetting import Forgetting, HeldOutLabels
from engine.compare.advice import NO_LIMITS, Constraints, advise
from engine.compare.ranking import Ranking, rank
from engine.compare.runs import Comparison
from engine.data.episode import of_images
from engine.data.images import ImageFile
from engine.tuning import registry
from engine.tuning.features import SHARED, Cache
from engine.types import Episode, Label, Progress, RunSpec

SEED = 0
"""Decides which labels are held back; the same ones for every method."""


def able(ranking: Ranking, backbone: Backbone) -> list[str]:
    """Ranked methods that can score labels that they were not tuned on, the quickest first."""
    specs = [registry.get(s.method) for s in sorted(ranking.standings, key=lambda s: s.seconds)]
    return [
        s.id for s in specs if s.family != "baseline" and forgetting.scores_new_labels(s, s.configure(), backbone.shape)
    ]


def divide(
    labels: Sequence[Label], images: Sequence[ImageFile], shots: int, template_set: str
) -> tuple[Episode, HeldOutLabels]:
    """Return what is tuned on and what is held back. Raises BadLabels where there are too few labels."""
    return forgetting.hold_back(of_images(tuple(labels), images, shots, SEED, template_set), SEED)


def hold_back(
    comparison: Comparison,
    methods: Sequence[str],
    images: Sequence[ImageFile],
    backbone: Backbone,
    stop: threading.Event | None = None,
    cache: Cache = SHARED,
) -> Iterator[Progress | Forgetting]:
    """Tune methods on half of the labels and test them on the others; yields a :class:`Forgetting` a method.

    Args:
        comparison: one that has a ranking; its shots and preset count here too.
        images: those of the comparison.

    Raises BadLabels where there are too few labels, and whatever a run raises.
    """
    assert comparison.ranking is not None
    request = comparison.request
    base, others = divide(comparison.labels, images, comparison.ranking.shots, request.template_set)
    for method in methods:
        preset = request.preset if request.preset in registry.get(method).presets else "budget"
        spec = RunSpec(backbone.id, method, base, preset, seed=SEED)
        yield from forgetting.measure(spec, others, images, backbone, stop, cache)


def with_damage(
    comparison: Comparison, found: Sequence[Forgetting], constraints: Constraints = NO_LIMITS
) -> Comparison:
    """Return the comparison with what its methods lose on other labels, and advice that counts it."""
    assert comparison.ranking is not None
    loss = {damage.method: damage.loss for damage in found}
    rows = tuple(
        replace(row, loss=loss[row.method]) if row.result and row.method in loss else row for row in comparison.rows
    )
    ranking = rank(rows, comparison.ranking.shots)
    return replace(comparison, rows=rows, ranking=ranking, advice=advise(ranking, constraints))
