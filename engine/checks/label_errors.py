"""Labelled images whose label is probably wrong, found by what several methods say about images they did not train on.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068) asks whether out-of-fold probabilities contradict a label.
Its thresholds need many images a class; with five to sixteen a third of what they name is right. So a label's noise is
a model with a prior here (the same model of noise as in Natarajan et al. 2013): a share of the labels is wrong, each of
the other classes as likely, and the methods' probabilities are as sure as their labels show. Share and sureness are
summed over, not fixed, so that a few images claim little. Nothing is changed here: a person decides about each image.
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
from engine.errors import Note, messages
from engine.runs.run import Run
from engine.tuning import registry
from engine.tuning.features import SHARED, Cache
from engine.types import Episode, Progress, RunSpec

NAMED = 0.25
"""Least probability of a wrong label with which an image is named: looking at four of them is worth one error."""
CAN_JUDGE = 0.4
"""Share of planted errors that must be noticed: below it finding nothing says nothing."""
BEHIND = 0.2
"""A method is not asked where it agrees with this much less of the labels than the best one; a share."""
JUDGES = ("linear_probe", "tip_adapter", "clip_adapter")
"""Heads on frozen features that differ in kind."""
WRONG = np.array([0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25])
"""Shares of wrong labels that are summed over."""
PRIOR = 1.5, 20.0
"""Beta prior of that share: 7 % on average, as far as label errors of published data sets reach."""
TEMPERATURES = np.exp(np.linspace(np.log(0.3), np.log(6.0), 19))
"""What logits are divided by; its logarithm has a standard normal prior."""

messages(
    labels_unjudged="Whether labels are wrong cannot be judged: of wrong labels these methods would notice about "
    "{power:.0f} % (images: {judged}, agreement with the labels: {agreement:.0f} %). More photos a label would help.",
    labels_judged="Of wrong labels about {power:.0f} % would be noticed, mix-ups of labels that look alike less often "
    "(images: {judged}).",
    labels_alone="{count} images were not judged: no other image has their label.",
)


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong."""

    image: int
    """Position of the image."""
    given: int
    """Class that it has."""
    suggested: int
    """The most probable one of the others."""
    probability: float
    """That the given label is wrong, ``NAMED`` to 1."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class LabelErrorReport:
    """Outcome of :func:`check`."""

    agreement: Mapping[str, float]
    """Method -> share of the labels that its predictions on unseen images agree with, 0 to 1; ``BEHIND`` the best one
    it was not asked."""
    suspects: tuple[Suspect, ...]
    """The most probable first; none where that cannot be judged."""
    power: float = 1.0
    """Share of wrong labels that would be named, 0 to 1, were they to stand anywhere."""
    judged: int = 0
    """Labelled images with probabilities of a model that did not see them."""
    alone: int = 0
    """Labelled images without."""

    @property
    def able(self) -> bool:
        """Whether finding nothing would say something."""
        return self.power >= CAN_JUDGE

    @property
    def judges(self) -> tuple[str, ...]:
        """The methods that were asked."""
        return judges_of(self.agreement)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the search could see, in sentences."""
        values = (
            ("power", 100 * self.power),
            ("judged", self.judged),
            ("agreement", 100 * max(self.agreement.values(), default=0.0)),
        )
        found = Note("labels_judged" if self.able else "labels_unjudged", values)
        return (found, Note("labels_alone", (("count", self.alone),))) if self.alone else (found,)

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return {
            "agreement": dict(self.agreement),
            "judges": list(self.judges),
            "power": self.power,
            "notes": [note.to_json() for note in self.notes],
            "suspects": [suspect.to_json() for suspect in self.suspects],
        }


def find_label_errors(probabilities: Mapping[str, np.ndarray], targets: Sequence[int]) -> LabelErrorReport:
    """Return images whose label is probably wrong.

    Args:
        probabilities: method -> ``(N, K)`` out-of-fold probabilities: of an image by a model that was not trained on
            it. NaN rows where there is none; such an image is not judged.
        targets: ``(N,)`` classes as labelled, -1 where an image has no label.
    """
    goal = np.asarray(targets, int)
    shares = {method: agreement(np.asarray(rows, float), targets) for method, rows in probabilities.items()}
    tables = {method: np.asarray(probabilities[method], float) for method in judges_of(shares)}
    known = (goal >= 0) & np.logical_and.reduce([np.isfinite(rows).all(1) for rows in tables.values()])
    places, given, alone = np.flatnonzero(known), goal[known], int(((goal >= 0) & ~known).sum())
    if not len(places):
        return LabelErrorReport(shares, (), 0.0, 0, alone)
    logs = np.mean([np.log(np.maximum(rows[known], 1e-30)) for rows in tables.values()], axis=0)  # (n, K)
    wrong = wrong_probabilities(logs, given)
    others = np.ones_like(wrong, bool)
    others[np.arange(len(given)), given] = False
    power = float((wrong[others] >= NAMED).mean())
    suggested = np.where(others, logs, -np.inf).argmax(1)
    chances = wrong[np.arange(len(given)), given]
    found = [
        Suspect(int(places[i]), int(given[i]), int(suggested[i]), float(chances[i]))
        for i in np.argsort(-chances, kind="stable")
        if chances[i] >= NAMED and power >= CAN_JUDGE
    ]
    return LabelErrorReport(shares, tuple(found), power, len(places), alone)


def judges_of(agreement: Mapping[str, float]) -> tuple[str, ...]:
    """Return the methods that are not ``BEHIND``."""
    least = max(agreement.values(), default=0.0) - BEHIND
    return tuple(method for method, share in agreement.items() if share >= least)


def wrong_probabilities(logs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return how probably each label ``(n, K)`` would be wrong at each image, were it given.

    With a share e of wrong labels and probabilities q of the classes, a label k is seen with probability
    (1 - e) q_k + e (1 - q_k) / (K - 1), and is wrong by the second part's share. The mean is over e and the
    temperature of q, weighted by how well they explain the labels that are given.

    Args:
        logs: logarithms of probabilities ``(n, K)``, up to a constant of each row.
        given: classes as labelled ``(n,)``.
    """
    n, classes = logs.shape
    parts, weights = [], []
    for temperature in TEMPERATURES:
        powers = np.exp((logs - logs.max(1, keepdims=True)) / temperature)
        q = powers / powers.sum(1, keepdims=True)
        for share in WRONG:
            stray = share * (1 - q) / (classes - 1)
            seen = stray + (1 - share) * q  # (n, K)
            belief = (PRIOR[0] - 1) * np.log(share) + (PRIOR[1] - 1) * np.log(1 - share) - np.log(temperature) ** 2 / 2
            weights.append(np.log(seen[np.arange(n), given]).sum() + belief)
            parts.append((share, q))
    chosen = np.exp(np.array(weights) - max(weights))
    chosen /= chosen.sum()
    wrong = np.zeros_like(logs)
    for weight, (share, q) in zip(chosen, parts, strict=True):
        if weight > 1e-4:
            stray = share * (1 - q) / (classes - 1)
            wrong += weight * stray / (stray + (1 - share) * q)
    return wrong


def agreement(probabilities: np.ndarray, targets: Sequence[int]) -> float:
    """Share of the labelled images ``(N,)`` whose most probable class is their label; 0 where none was judged."""
    goal = np.asarray(targets, int)
    judged = np.isfinite(probabilities).all(1) & (goal >= 0)
    return float((probabilities[judged].argmax(1) == goal[judged]).mean()) if judged.any() else 0.0


def checking_episode(episode: Episode) -> Episode:
    """Return the episode with folds that test every labelled image whose class has others, trained on all the rest."""
    return replace(episode, folds=folds_of_all(episode.targets, episode.seed))


def quick_methods(backbone: Backbone) -> tuple[str, ...]:
    """Return those of ``JUDGES`` that the backbone can have: they share one pass over the images and take seconds."""
    return tuple(method for method in JUDGES if registry.obstacle(registry.get(method), backbone) is None)


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
