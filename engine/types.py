"""The few types that every part of the engine shares. Plain data: no torch, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from engine.errors import Note

BASELINE = "zero_shot_ensemble"
"""Id of the method that every other one is judged against: prompt-ensembled zero-shot."""
DIGITS = 12
"""Hex digits of an image's hash that an adapter keeps."""
MAX_SEED = 2**32 - 1
"""Of a run; what torch, numpy and scikit-learn all take."""


@dataclass(frozen=True)
class Label:
    """One class: what people read and what the text tower reads."""

    name: str
    """Shown on screen; any script."""
    prompt: str
    """Phrase put into the templates; English for an English-only text tower. After a ``|`` each, descriptions may
    follow, which are read as they stand."""

    @property
    def phrase(self) -> str:
        """What is put into the templates."""
        return phrase_of(self.prompt)


def phrase_of(prompt: str) -> str:
    """Return a prompt without its descriptions."""
    return prompt.partition("|")[0].strip()


def descriptions_of(prompt: str) -> list[str]:
    """Return a prompt's descriptions."""
    return [part.strip() for part in prompt.split("|")[1:] if part.strip()]


@dataclass(frozen=True)
class Fold:
    """Positions of images; an image is never in both."""

    support: tuple[int, ...]
    """Images that train."""
    test: tuple[int, ...]
    """Images that measure."""


SCORES = ("probability", "similarity", "margin")
"""Forms of a score: on the backbone's own scale, and two that have one scale for every backbone."""


@dataclass(frozen=True)
class LogitScale:
    """How a backbone's logits, similarities and probabilities belong together."""

    factor: float
    """Factor from cosine similarity to logits."""
    bias: float | None = None
    """Added to every logit; with one, each label has a probability of its own (sigmoid, SigLIP)."""

    def similarity(self, logits: np.ndarray) -> np.ndarray:
        """Map logits ``(..., K)`` to cosine similarities, -1 to 1."""
        return (logits - (self.bias or 0.0)) / self.factor

    def margin(self, logits: np.ndarray) -> np.ndarray:
        """Logits ``(..., K)`` to each label's cosine similarity less that of the best other label, -2 to 2: above zero
        for the winner alone. With one label there is no other, and the margin is zero."""
        similar = self.similarity(logits)
        if similar.shape[-1] < 2:
            return np.zeros_like(similar)
        second, best = np.split(np.sort(similar, axis=-1)[..., -2:], 2, axis=-1)  # (..., 1) each
        return similar - np.where(similar == best, second, best)

    def values(self, logits: np.ndarray, kind: str) -> np.ndarray:
        """Return logits ``(..., K)`` as one of ``SCORES``."""
        turn = {"probability": self.probabilities, "similarity": self.similarity, "margin": self.margin}
        return turn[kind](logits)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits ``(..., K)`` to probabilities: sigmoid where there is a bias, otherwise softmax over the labels."""
        if self.bias is not None:
            return 1 / (1 + np.exp(-logits))
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Episode:
    """Labels, targets and which images train and test. One fold is a held-out split; more are
    repeated stratified cross-validation."""

    labels: tuple[Label, ...]
    targets: tuple[int, ...]
    """Class index of each image; -1 where an image has no label: it neither trains nor tests."""
    folds: tuple[Fold, ...]
    shots: int
    """Most images a class that train in a fold."""
    seed: int
    template_set: str = "general"
    notes: tuple[Note, ...] = ()

    @property
    def cross_validated(self) -> bool:
        """Whether accuracy comes from repeated folds and not from one held-out set."""
        return len(self.folds) > 1

    @property
    def labelled(self) -> tuple[int, ...]:
        """Positions of all images that have a label."""
        return tuple(i for i, target in enumerate(self.targets) if target >= 0)

    @property
    def final_support(self) -> tuple[int, ...]:
        """Images that train the adapter that is kept: the split's support, or every labelled image."""
        return self.labelled if self.cross_validated else self.folds[0].support


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run, apart from the images themselves."""

    backbone: str
    method: str
    episode: Episode
    preset: str = "budget"
    settings: tuple[tuple[str, Any], ...] = ()
    """Fields of the method's config that differ from the preset."""
    seed: int = 0
    precision: str = "auto"
    """Of the training steps: ``fp32``, ``bf16``, or ``auto`` for what ``engine.tuning.precision`` chooses."""


@dataclass(frozen=True)
class Progress:
    """One moment of a run, yielded at least once a training step."""

    stage: str
    """``features``, ``prepare``, ``train`` or ``evaluate``."""
    done: int
    total: int
    """Steps (prepare, train) or images (features, evaluate) of the whole run."""
    loss: float | None = None
    accuracy: float | None = None
    """Share of the step's training images that are right, 0 to 1."""
    seconds_left: float | None = None


@dataclass(frozen=True)
class Interval:
    """A share from 0 to 1 with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Tuned against prompt-ensembled zero-shot on the same test images."""

    word: str
    """``better``, ``worse``, ``close`` (too close to call) or ``baseline`` (nothing was tuned)."""
    p_value: float
    """Two-sided: exact McNemar on a split; on folds the larger of sign flips and the corrected resampled t-test."""
    gained: float
    """Test images that only the tuned model gets right. An image that is tested several times counts by the share of
    its tests, so that ``(gained - lost) / tested`` is the difference of the accuracies."""
    lost: float
    """Test images that only zero-shot gets right; counted alike."""
    tested: int
    """Number of different test images."""


@dataclass(frozen=True)
class Cost:
    """What a run cost. Bytes and seconds."""

    trainable_parameters: int
    total_parameters: int
    """Parameters of the backbone, without what the method adds."""
    peak_memory_bytes: int
    memory_kind: str
    """``cuda``: allocator peak of the run; ``process``: the process's own sampled peak."""
    forecast_memory_bytes: int | None
    """What ``peak_memory_bytes`` was expected to be; None, as ``forecast_seconds`` is too, where that is unknown."""
    seconds: Mapping[str, float]
    """``features``, ``train``, ``evaluate``."""
    adapter_bytes: int = 0
    forecast_seconds: float | None = None
    """What all of ``seconds`` were expected to be."""
    forecast_parts: Mapping[str, int] = field(default_factory=dict)
    """Expected bytes by part: weights, gradients, optimizer, activations, features, workspace. Empty where unknown."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Outcome of a run, plain data that :meth:`to_json` writes and :meth:`from_json` reads back. Arrays and trained
    tensors travel beside it, not in it."""

    backbone: str
    method: str
    preset: str
    config: Mapping[str, Any]
    seed: int
    precision: str
    """Of the training steps, ``fp32`` or ``bf16``."""
    labels: tuple[Label, ...]
    template_set: str
    shots: int
    """Most images a class that trained in a fold."""
    folds: int
    """1 for a held-out set; more are repeated cross-validation."""
    support: int
    """Images that trained in the first fold."""
    accuracy: Mapping[str, float]
    """``zero_shot``, ``zero_shot_ensemble`` and ``tuned``, shares 0 to 1 on the test images."""
    interval95: Mapping[str, tuple[float, float]]
    verdict: Verdict
    cost: Cost
    curve: tuple[tuple[int, float, float], ...] = ()
    """(step, loss, training accuracy) of the kept adapter's training."""
    training: str = ""
    """How the kept adapter's training ended: ``settled``, ``learning`` (the loss was still falling), ``unlearned`` (it
    has hardly moved) or ``diverged``; empty where nothing was trained."""
    versions: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, float] = field(default_factory=dict)
    """Hyperparameters that were chosen on the support images, never on test images."""
    trained_on: tuple[str, ...] = ()
    """First ``DIGITS`` hex digits of the SHA-256 of each image that trained the kept adapter: an adapter that teaches
    another run must not have seen its test images."""
    notes: tuple[str, ...] = ()
    """Keys of the sentences about the split."""
    sets: Mapping[str, Any] = field(default_factory=dict)
    """How sets of labels are made of probabilities, and what they reach, as ``engine.metrics.sets.Calibrated`` writes
    it; empty where too few images tested."""
    novelty: Mapping[str, float] = field(default_factory=dict)
    """How pictures that are unlike every label are told, as :func:`engine.metrics.novelty.calibrate` writes it; empty
    where too few images trained, or nobody asked."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``tune --json`` prints."""
        return {
            "backbone": self.backbone,
            "method": self.method,
            "preset": self.preset,
            "config": dict(self.config),
            "chosen": dict(self.chosen),
            "seed": self.seed,
            "precision": self.precision,
            "labels": [asdict(label) for label in self.labels],
            "template_set": self.template_set,
            "shots": self.shots,
            "folds": self.folds,
            "support": self.support,
            "test": self.verdict.tested,
            "accuracy": dict(self.accuracy),
            "interval95": {name: list(bounds) for name, bounds in self.interval95.items()},
            "verdict": self.verdict.word,
            "p_value": self.verdict.p_value,
            "gained": self.verdict.gained,
            "lost": self.verdict.lost,
            **asdict(self.cost),
            "curve": [list(point) for point in self.curve],
            "training": self.training,
            "trained_on": list(self.trained_on),
            "versions": dict(self.versions),
            "notes": list(self.notes),
            "sets": dict(self.sets),
            "novelty": dict(self.novelty),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> RunResult:
        """Return the result that :meth:`to_json` wrote. What older versions did not write yet has its default.
        Raises KeyError, TypeError, ValueError or AttributeError where something else was written."""
        bounds = {name: (low, high) for name, (low, high) in found.get("interval95", {}).items()}
        return cls(
            backbone=found["backbone"],
            method=found["method"],
            preset=found.get("preset", "budget"),
            config=found["config"],
            sets=found.get("sets") or {},
            novelty=dict(found.get("novelty") or {}),
            chosen=found.get("chosen", {}),
            seed=found["seed"],
            precision=found.get("precision", "fp32"),
            labels=tuple(Label(label["name"], label["prompt"]) for label in found["labels"]),
            template_set=found.get("template_set", "general"),
            shots=found.get("shots", 0),
            folds=found.get("folds", 1),
            support=found.get("support", 0),
            accuracy=dict(found.get("accuracy", {})),
            interval95=bounds,
            verdict=Verdict(
                found.get("verdict", "close"),
                found.get("p_value", 1.0),
                found.get("gained", 0),
                found.get("lost", 0),
                found.get("test", 0),
            ),
            cost=Cost(
                found.get("trainable_parameters", 0),
                found.get("total_parameters", 0),
                found.get("peak_memory_bytes", 0),
                found.get("memory_kind", "process"),
                found.get("forecast_memory_bytes"),
                dict(found.get("seconds", {})),
                found.get("adapter_bytes", 0),
                found.get("forecast_seconds"),
                dict(found.get("forecast_parts", {})),
            ),
            curve=tuple((step, loss, right) for step, loss, right in found.get("curve", ())),
            training=found.get("training", ""),
            versions=found.get("versions", {}),
            trained_on=tuple(found.get("trained_on", ())),
            notes=tuple(found.get("notes", ())),
        )
