"""How a run ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.metrics.novelty import Novelty
from engine.tuning.tuner import Tuner, TunerContext
from engine.types import RunResult, RunSpec


class Stopped(Exception):
    """The user stopped the run."""


@dataclass
class Outcome:
    """What a finished run leaves: the result, arrays for plots, and the tuner that can be saved.

    ``arrays``: ``zero_shot``, ``ensemble`` and ``tuned`` logits ``(N, K)`` (out-of-fold where
    cross-validated), ``image_before``/``image_after`` ``(N, P)`` and ``text_before``/``text_after``
    ``(K, P)`` normalised features, ``tested`` ``(N,)`` bool, ``correct`` ``(N,)`` share of an image's tests
    that the tuned model got right.
    """

    result: RunResult
    arrays: dict[str, np.ndarray]
    tuner: Tuner
    setting: TunerContext
    spec: RunSpec
    """What was run, with the split."""
    novelty: Novelty | None = None
    """Tells pictures that are unlike every label, where that was asked for and enough images trained; ``arrays`` then
    has ``unlike``, ``(N,)`` bool."""
