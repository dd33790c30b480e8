"""Labelled images whose label is probably wrong, found by what several methods say about images they did not train on.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068), method by method, then a vote. Nothing is changed here:
a person decides about each image.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.backbones.base import Backbone
from engine.data.episode import folds_of_all
from engine.data.images import ImageFile
from engine.runs.run import Run
from engine.tuning import registry
from engine.tuning.features import SHARED, Cache
from engine.types import Episode, Progress, RunSpec

AGREE = 0.5
"""A suspect needs the same other label from more than this share of the methods."""
CAN_JUDGE = 0.6
"""A method judges labels only where it agrees with this share of them: what is wrong every other time shows nothing."""


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong."""

    image: int
    """Position of the image."""
    given: int
    """Class that it has."""
    suggested: int
    """Class that most methods are confident of."""
    agree: float
    """Share of the methods that are confident of the suggested class, 0 to 1."""
    margin: float
    """Mean over these methods of the suggested class's probability minus the given one's, above 0, at most 1."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class LabelErrorReport:
    """Outcome of :func:`check`."""

    agreement: Mapping[str, float]
    """Method -> share of the labels that its predictions on unseen images agree with, 0 to 1; below ``CAN_JUDGE`` it
    had no vote."""
    suspects: tuple[Suspect, ...]

    @property
    def judges(self) -> tuple[str, ...]:
        """The methods that had a vote."""
        return tuple(method for method, share in self.agreement.items() if share >= CAN_JUDGE)

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return {
            "agreement": dict(self.agreement),
            "judges": list(self.judges),
            "suspects": [suspect.to_json() for suspect in self.suspects],
        }


def find_label_errors(
    probabilities: Mapping[str, np.ndarray], targets: Sequence[int], agree: float = AGREE
) -> LabelErrorReport:
    """:func:`suspects` by the methods that can judge; arguments as there."""
    shares = {method: agreement(np.asarray(rows, float), targets) for method, rows in probabilities.items()}
    able = {method: rows for method, rows in probabilities.items() if shares[method] >= CAN_JUDGE}
    return LabelErrorReport(shares, suspects(able, targets, agree))


def agreement(probabilities: np.ndarray, targets: Sequence[int]) -> float:
    """Share of the labelled images ``(N,)`` whose most probable class is their label; 0 where none was judged."""
    goal = np.asarray(targets, int)
    judged = np.isfinite(probabilities).all(1) & (goal >= 0)
    return float((probabilities[judged].argmax(1) == goal[judged]).mean()) if judged.any() else 0.0


def suspects(
    probabilities: Mapping[str, np.ndarray], targets: Sequence[int], agree: float = AGREE
) -> tuple[Suspect, ...]:
    """Return images that most methods are confident belong to another class, most suspicious first.

    Args:
        probabilities: method -> ``(N, K)`` out-of-fold probabilities: of an image by a model that was not trained on
            it. NaN rows where there is none; such an image is not judged by that method.
        targets: ``(N,)`` classes as labelled, -1 where an image has no label.
        agree: share of the methods that judged an image and must be confident of the same other class; more than
            this. With one or two methods all must.
    """
    goal = np.asarray(targets, int)
    tables = [np.asarray(rows, float) for rows in probabilities.values()]
    votes = [confident_class(rows, goal) for rows in tables]
    found = []
    for i in np.flatnonzero(goal >= 0):
        judged = sum(bool(np.isfinite(rows[i]).all()) for rows in tables)
        margins: dict[int, list[float]] = {}
        for said, rows in zip(votes, tables, strict=True):
            margin = rows[i, said[i]] - rows[i, goal[i]]
            if said[i] >= 0 and margin > 0:
                margins.setdefault(int(said[i]), []).append(float(margin))
        if not margins:
            continue
        suggested, doubts = max(sorted(margins.items()), key=lambda item: len(item[1]))
        if len(doubts) / judged > agree:
            found.append(Suspect(int(i), int(goal[i]), suggested, len(doubts) / judged, float(np.mean(doubts))))
    return tuple(sorted(found, key=lambda s: (-s.agree, -s.margin, s.image)))


def confident_class(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the class ``(N,)`` that a method is confident of for each image, -1 for none.

    A class's threshold is its mean probability over the images that carry its label; among the classes
    whose threshold an image reaches, the most probable one counts (the confident joint of Northcutt et al., equation
    1). A class that is often confused thus needs less, so a weak method does not call everything wrong.
    """
    known = np.isfinite(probabilities).all(1)
    thresholds = np.full(probabilities.shape[1], np.inf)
    for k in range(len(thresholds)):
        own = probabilities[known & (targets == k), k]
        if len(own):
            thresholds[k] = own.mean()
    reached = known[:, None] & (probabilities >= thresholds)
    best = np.where(reached, probabilities, -1.0).argmax(1)
    return np.where(reached.any(1), best, -1)


def checking_episode(episode: Episode) -> Episode:
    """Return the episode with folds that test every labelled image whose class has others, trained on all the rest."""
    return replace(episode, folds=folds_of_all(episode.targets, episode.seed))


def quick_methods(backbone: Backbone) -> tuple[str, ...]:
    """Return the methods on frozen features: they share one pass over the images, so that checking takes seconds."""
    heads = (spec for spec in registry.methods() if spec.runs_on == "features")
    return tuple(spec.id for spec in heads if registry.obstacle(spec, backbone) is None)


def check(
    episode: Episode,
    images: Sequence[ImageFile],
    backbone: Backbone,
    methods: Sequence[str] = (),
    stop: threading.Event | None = None,
    cache: Cache = SHARED,
) -> Iterator[Progress | LabelErrorReport]:
    """Cross-validate some methods on all labelled images and name the suspects.

    The last item is the :class:`LabelErrorReport`.

    Args:
        methods: ids; by default :func:`quick_methods`.

    Raises BadLabels, BadConfig or Stopped as a run does.
    """
    checking = checking_episode(episode)
    tested = sorted({i for fold in checking.folds for i in fold.test})
    probabilities = {}
    for method in methods or quick_methods(backbone):
        spec = RunSpec(backbone.id, method, checking, seed=episode.seed)
        for item in Run(spec, images, backbone, stop, cache).run():
            if isinstance(item, Progress):
                yield item
            else:
                rows = np.full((len(images), len(episode.labels)), np.nan)
                rows[tested] = backbone.logit_scale.probabilities(item.arrays["tuned"][tested])
                probabilities[method] = rows
    yield find_label_errors(probabilities, episode.targets)
