"""Whether a training has learned, from its curve: a verdict on accuracy means little where it has not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import Note, messages

Curve = Sequence[Sequence[float]]
"""(step, loss, share of the step's training images that were right), a step each."""

SETTLED, LEARNING, UNLEARNED, DIVERGED = WORDS = "settled", "learning", "unlearned", "diverged"
"""The loss has levelled off; it was still falling at the end; it has hardly moved; it has risen or is no number: from
the best to the worst."""
STILL_FALLING = 0.2
"""Share of the whole fall that comes after the middle from which on a training counts as unfinished."""
FITTED = 0.95
"""Share of training images right, from which on more training has little to gain."""
HARDLY = 0.03
"""Fall of the loss, as a share of its start, below which nothing was learned."""
RISEN = 1.1
"""Factor of the start that the loss at the end may not exceed."""

messages(
    training_learning="The loss was still falling at the end, from {start:.3g} to {end:.3g} with {right:.0%} of the "
    "training images right: more epochs may help.",
    training_unlearned="Nothing was learned: the loss stayed at {end:.3g} (start {start:.3g}) with {right:.0%} of the "
    "training images right. Raise the learning rate (lr) or the epochs.",
    training_diverged="The loss rose from {start:.3g} to {end:.3g}, so the training went wrong: lower the learning "
    "rate (lr), for instance to {lr:.1g}.",
    training_not_finite="The loss is no number any more, so the training went wrong: lower the learning rate (lr), "
    "for instance to {lr:.1g}.",
)


def ends(curve: Curve) -> tuple[float, float, float]:
    """Return the loss at the start and at the end, and the share of training images right at the end, 0 to 1.

    The start is the larger of the first step's loss and the mean of the first steps', so that neither a lucky batch nor
    a fast beginning hides it; the end is the mean of the last tenth.
    """
    losses, right = np.array([row[1] for row in curve], float), np.array([row[2] for row in curve], float)
    first, last = max(1, len(losses) // 20), max(1, len(losses) // 10)
    return float(max(losses[0], losses[:first].mean())), float(losses[-last:].mean()), float(right[-last:].mean())


def judge(curve: Curve, converged: bool | None = None) -> str:
    """Return how a training ended: one of the four words, or nothing where there were no steps.

    Args:
        converged: what the optimizer says about itself; None where the number of steps is fixed.
    """
    if not curve:
        return ""
    start, end, right = ends(curve)
    if not math.isfinite(end) or end > max(RISEN * start, start + 0.05):
        return DIVERGED
    if converged is not None:
        return SETTLED if converged else LEARNING
    if start - end < HARDLY * start and right < FITTED:
        return UNLEARNED
    losses = np.array([row[1] for row in curve], float)
    quarter = max(1, len(losses) // 4)
    last = losses[-quarter:].mean()
    late = losses[quarter : 2 * quarter].mean() - last if len(losses) >= 4 else 0.0
    return LEARNING if right < FITTED and late > STILL_FALLING * (start - last) else SETTLED


def sentence(word: str, curve: Curve, config: Mapping[str, Any]) -> Note | None:
    """Return what is to be said about a training that ended with a word of :func:`judge`; None where all is well."""
    if word not in (LEARNING, UNLEARNED, DIVERGED) or not curve:
        return None
    start, end, right = ends(curve)
    if word == DIVERGED:
        lower = float(config.get("lr", 1e-3)) / 10
        finite = math.isfinite(end)
        key = "training_diverged" if finite else "training_not_finite"
        return Note.of(key, lr=lower, **({"start": start, "end": end} if finite else {}))
    return Note.of(f"training_{word}", start=start, end=end, right=right)


def worst(words: Iterable[str]) -> str:
    """Return the worst of some words; nothing where nothing was trained."""
    return max(words, key=lambda word: WORDS.index(word) if word else -1, default="")
