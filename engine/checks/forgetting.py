"""What tuning costs elsewhere: labels it was not tuned on, and embeddings that moved.

The test of labels that were not tuned on is that of CoCoOp (Zhou et al. 2022, arXiv 2203.05557): tune on half of the
labels, then tell the images of the other half apart with the tuned model and with zero-shot. Only methods that
know their labels by words alone can take it; see :func:`scores_new_labels`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.backbones.base import Backbone, Shape
from engine.data.episode import templates
from engine.data.images import ImageFile
from engine.errors import BadConfig, BadLabels, messages
from engine.metrics import statistics
from engine.runs import store
from engine.runs.run import Run
from engine.tuning.features import SHARED, Cache, FeatureStore, label_features
from engine.tuning.outcome import Outcome
from engine.tuning.predict import predict
from engine.tuning.registry import MethodSpec
from engine.tuning.tuner import Config, Tuner, TunerContext
from engine.types import Episode, Fold, Interval, Label, Progress, RunSpec, Verdict

FEWEST_LABELS = 6
"""Labels with images below which there are not enough to hold some back."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the tuned weights along the WiSE-FT curve."""

messages(
    too_few_to_hold_back="To test on labels that were not tuned on, at least {limit} labels with two images or more "
    "are needed; there are {count}. Add labels with images.",
    knows_own_labels="{method} has weights or examples of its own for each label, so it cannot score labels that it "
    "was not tuned on.",
)


@dataclass(frozen=True)
class HeldOutLabels:
    """Labels that are not tuned on, and the images that show them."""

    labels: tuple[Label, ...]
    images: tuple[int, ...]
    """Positions among all images."""
    targets: tuple[int, ...]
    """Position among :attr:`labels` of each of these images."""


@dataclass(frozen=True)
class Mixed:
    """One point of the WiSE-FT curve."""

    share: float
    """Share of the tuned weights, 0 (original) to 1."""
    tuned_labels: float
    """Accuracy on test images of the labels that were tuned on, 0 to 1."""
    other_labels: float
    """Accuracy on images of the other labels."""


@dataclass(frozen=True)
class Drift:
    """How far the embeddings moved: mean of 1 - cosine between before and after, 0 (not at all) to 2."""

    image: float
    """Of the task's images."""
    text: float
    """Of the labels that were tuned on."""


@dataclass(frozen=True)
class Forgetting:
    """A method tuned on some labels, tested on them and on others. Zero-shot is the prompt ensemble."""

    method: str
    tuned_on: tuple[str, ...]
    others: tuple[str, ...]
    tuned_labels: tuple[Interval, Interval]
    """Zero-shot and tuned accuracy on the labels that were tuned on."""
    other_labels: tuple[Interval, Interval]
    """Zero-shot and tuned accuracy on the others."""
    verdict: Verdict
    """Tuned against zero-shot on the others: ``worse`` is damage."""
    drift: Drift
    curve: tuple[Mixed, ...] = ()
    """By rising share; empty where the method cannot be mixed."""

    @property
    def loss(self) -> float:
        """Accuracy that was lost on the others, a share; below 0 where some was gained."""
        return self.other_labels[0].value - self.other_labels[1].value

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""

        def sides(pair: tuple[Interval, Interval]) -> dict[str, Any]:
            return {
                name: {"accuracy": share.value, "interval95": [share.low, share.high]}
                for name, share in zip(("zero_shot_ensemble", "tuned"), pair, strict=True)
            }

        return {
            "method": self.method,
            "tuned_on": list(self.tuned_on),
            "others": list(self.others),
            "tuned_labels": sides(self.tuned_labels),
            "other_labels": sides(self.other_labels),
            "verdict": self.verdict.word,
            "p_value": self.verdict.p_value,
            "test": self.verdict.tested,
            "drift": {"image": self.drift.image, "text": self.drift.text},
            "wise_ft": [[point.share, point.tuned_labels, point.other_labels] for point in self.curve],
        }


def drift(arrays: dict[str, np.ndarray]) -> Drift:
    """Return the drift of an :class:`Outcome`'s normalised ``image_*`` ``(N, P)`` and ``text_*`` ``(K, P)``."""
    moved = {
        name: float(1 - (arrays[f"{name}_before"] * arrays[f"{name}_after"]).sum(-1).mean())
        for name in ("image", "text")
    }
    return Drift(**{name: max(0.0, value) for name, value in moved.items()})


def scores_new_labels(spec: MethodSpec, config: Config, shape: Shape) -> bool:
    """Return whether a method with these settings can score labels that it was not tuned on.

    It cannot where the number of its trained parameters depends on the number of labels (a weight a
    label) or of training images (a cache of them), or where it needs the training images to predict.
    """
    few, many = spec.count(shape, config, 4, 8), spec.count(shape, config, 5, 9)
    return few == many and not spec.tuner().keeps_support


def obstacle(spec: MethodSpec, config: Config, shape: Shape) -> BadConfig | None:
    """Return why a method cannot be tested on labels that it was not tuned on; None where it can."""
    return None if scores_new_labels(spec, config, shape) else BadConfig("knows_own_labels", method=spec.title)


def hold_back(episode: Episode, seed: int = 0) -> tuple[Episode, HeldOutLabels]:
    """Return an episode that tunes on half of the labels (the larger half), and the other labels.

    Only labels with two images or more take part. Raises BadLabels where they are fewer than ``FEWEST_LABELS``.
    """
    counts = np.bincount([t for t in episode.targets if t >= 0], minlength=len(episode.labels))
    usable = np.flatnonzero(counts > 1)
    if len(usable) < FEWEST_LABELS:
        raise BadLabels("too_few_to_hold_back", limit=FEWEST_LABELS, count=len(usable))
    drawn = np.random.default_rng(seed).permutation(usable)
    return divide(episode, sorted(drawn[len(drawn) // 2 :].tolist()), sorted(drawn[: len(drawn) // 2].tolist()))


def divide(episode: Episode, tuned: Sequence[int], others: Sequence[int]) -> tuple[Episode, HeldOutLabels]:
    """Return an episode of the labels at positions ``tuned`` alone, and the labels at positions ``others``.

    One fold is left: that with the most test images of these labels. Every image of the others tests, as none of
    them is trained on.
    """
    position = {k: i for i, k in enumerate(tuned)}
    targets = tuple(position.get(t, -1) for t in episode.targets)
    folds = [
        Fold(tuple(i for i in fold.support if targets[i] >= 0), tuple(i for i in fold.test if targets[i] >= 0))
        for fold in episode.folds
    ]
    fold = max(folds, key=lambda fold: len(fold.test))
    base = replace(episode, labels=tuple(episode.labels[k] for k in tuned), targets=targets, folds=(fold,))
    place = {k: i for i, k in enumerate(others)}
    images = tuple(i for i, t in enumerate(episode.targets) if t in place)
    return base, HeldOutLabels(
        tuple(episode.labels[k] for k in others), images, tuple(place[episode.targets[i]] for i in images)
    )


def measure(
    spec: RunSpec,
    others: HeldOutLabels,
    images: Sequence[ImageFile],
    backbone: Backbone,
    stop: threading.Event | None = None,
    cache: Cache = SHARED,
    shares: Collection[float] = SHARES,
) -> Iterator[Progress | Forgetting]:
    """Tune, then test on the others; the last item is the :class:`Forgetting`.

    Args:
        spec: a run on the labels that are tuned on (``spec.episode``).
        others: the labels that it does not see.
        images: all of them; the episode and ``others`` name positions among these.
        shares: of the tuned weights, where the method can be mixed with the original ones.

    Raises BadConfig for a method that knows only its own labels, and whatever a run raises.
    """
    run = Run(spec, images, backbone, stop, cache)
    if why := obstacle(run.method, run.config, backbone.shape):
        raise why
    outcome = None
    for item in run.run():
        if isinstance(item, Progress):
            yield item
        else:
            outcome = item
    assert outcome is not None
    evaluation = HeldOutEvaluation(run.method, outcome.setting, run.store, spec.episode, others, cache)
    curve = []
    for number, share in enumerate(sorted(shares) if outcome.tuner.mixes else ()):
        run.check()
        yield Progress("evaluate", number, len(shares))
        mixed = outcome.tuner if share == 1 else outcome.tuner.mixed(share)
        curve.append(Mixed(share, evaluation.on_tuned_labels(mixed), float(evaluation.on_others(mixed).mean())))
    yield _judged(outcome, evaluation, tuple(curve))


def _judged(outcome: Outcome, evaluation: HeldOutEvaluation, curve: tuple[Mixed, ...]) -> Forgetting:
    result, before, after = outcome.result, evaluation.zero_shot(), evaluation.on_others(outcome.tuner)
    sides = tuple(Interval(result.accuracy[name], *result.interval95[name]) for name in ("zero_shot_ensemble", "tuned"))
    return Forgetting(
        result.method,
        tuple(label.name for label in outcome.setting.labels),
        tuple(label.name for label in evaluation.others.labels),
        (sides[0], sides[1]),
        (statistics.accuracy(before.tolist()), statistics.accuracy(after.tolist())),
        statistics.give_verdict(before.tolist(), after.tolist(), seed=result.seed),
        drift(outcome.arrays),
        curve,
    )


class HeldOutEvaluation:
    """Tests of one tuned model, and of mixes of it, on its own labels and on others."""

    def __init__(
        self,
        method: MethodSpec,
        setting: TunerContext,
        features: FeatureStore,
        episode: Episode,
        others: HeldOutLabels,
        cache: Cache = SHARED,
    ):
        self.method, self.features, self.episode, self.others = method, features, episode, others
        self.setting = for_labels(setting, others.labels, episode.template_set, cache)

    def zero_shot(self) -> np.ndarray:
        """Return whether prompt-ensembled zero-shot is right, 0 or 1, for each image of the others."""
        logits = self.setting.backbone.logits(self.features.features(self.others.images), self.setting.ensemble)
        return self._right(logits, self.others.targets)

    def on_others(self, tuner: Tuner) -> np.ndarray:
        """Return whether the tuned model is right, 0 or 1, for each image of the others."""
        config = tuner.config.without_labels()
        rebuilt = store.rebuild(self.method, config, self.setting, tuner.saved(), tuner.chosen)
        return self._right(predict(rebuilt, self.features, self.others.images), self.others.targets)

    def on_tuned_labels(self, tuner: Tuner) -> float:
        """Return accuracy on the test images of its own labels."""
        test = self.episode.folds[0].test
        right = self._right(predict(tuner, self.features, test), [self.episode.targets[i] for i in test])
        return float(right.mean()) if len(right) else float("nan")

    @staticmethod
    def _right(logits: torch.Tensor, targets: Sequence[int]) -> np.ndarray:
        return (logits.argmax(1).cpu().numpy() == np.asarray(targets)).astype(float)


def for_labels(
    setting: TunerContext, labels: tuple[Label, ...], template_set: str, cache: Cache = SHARED
) -> TunerContext:
    """Return the same setting for other labels."""
    single, ensemble = label_features(setting.backbone, labels, templates(template_set), cache)
    return replace(
        setting,
        labels=labels,
        single=single,
        ensemble=ensemble,
        targets=torch.zeros_like(setting.targets),  # of the other labels there are no support images
    )
