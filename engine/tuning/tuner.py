"""What every method is made of: a config that checks itself and a tuner that owns what it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, Backbone
from engine.errors import BadConfig, Note, messages
from engine.tuning.losses import LOSSES, starting_bias
from engine.tuning.sources import NamedSources
from engine.types import Label

if TYPE_CHECKING:
    from engine.tuning.features import FeatureStore
    from engine.tuning.learned import Learned


LBFGS = "lbfgs"
"""The optimizer that some heads offer besides those of ``TrainConfig``: all images in a step, until it converges."""

messages(
    the_image_tower="the image tower",
    the_text_tower="the text tower",
    one_image_no_pair="one image has no other to be told apart from",
)


def option(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: tuple = (),
    help: str = "",
    lines: int = 1,
    offers: str = "",
) -> Any:
    """Return a config field with its limits and its meaning (unit included).

    Args:
        lines: of text that a form has room for.
        offers: what a text may name that a page can suggest: ``tasks`` (several, by comma) or ``teachers`` (one).
    """
    limits = {"low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata={**limits, "help": help, "lines": lines, "offers": offers})


@dataclass(frozen=True)
class Config:
    """Settings of a method; every field is checked against its limits."""

    method: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_limits(self.method, field, getattr(self, field.name))

    def to_dict(self) -> dict[str, Any]:
        """Field names and values."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """Raise BadConfig where a visitor's settings make no sense together. Not part of the construction: forecasts
        try batches of one image with every loss."""

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        """Return why these settings cannot run on a backbone; None where they can."""
        return None

    def extra_backbones(self, sources: NamedSources) -> tuple[str, ...]:
        """Ids of the backbones that a run loads beside its own and that see its training images, for the forecast."""
        return ()

    def without_labels(self) -> Config:
        """Return the same settings without those that name labels, for other labels."""
        return self


def tower_title(tower: str) -> Note:
    """Return ``vision`` or ``text`` inside a sentence."""
    return Note("the_image_tower" if tower == "vision" else "the_text_tower")


def check_limits(method: str, field: dataclasses.Field, value: Any) -> None:
    """Raise BadConfig when a value is outside the field's limits or choices."""
    low, high, choices = (field.metadata.get(k) for k in ("low", "high", "choices"))
    if choices and value not in choices:
        allowed = Note.of("allowed_one_of", choices=choices)
    elif (low is not None and not value >= low) or (high is not None and not value <= high):
        both = low is not None and high is not None
        allowed = Note.of("allowed_between", low=low, high=high) if both else Note.of("allowed_at_least", low=low)
    else:
        return
    raise BadConfig("bad_setting", method=method, name=field.name, value=value, allowed=allowed)


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of a method that is trained with gradient steps."""

    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(1e-3, 1e-8, 10, help="peak learning rate")
    batch_size: int = option(32, 1, 4096, help="images per step")
    optimizer: str = option("adamw", choices=("adamw", "sgd"), help="optimizer")
    eps: float = option(1e-8, 0, 1, help="AdamW's term against division by zero")
    weight_decay: float = option(0.0, 0, 10, help="decoupled weight decay (AdamW) or L2 (SGD)")
    warmup_epochs: int = option(0, 0, 100, help="epochs at the start in which the learning rate rises")
    warmup: str = option("linear", choices=("linear", "constant"), help="a line up from zero, or constant at 1e-5")
    views: int = option(1, 1, 64, help="versions of each training image: itself and random crops and flips")
    min_crop: float = option(0.5, 0.05, 1, help="smallest crop of an augmented view, as a share of the area")

    def steps_for(self, images: int, batch: int) -> int:
        """Return the training steps on so many images: those of ``epochs``, or ``steps`` where a method has that
        setting and it is above 0."""
        return getattr(self, "steps", 0) or self.epochs * -(-images // batch)


BLEND = option(
    "off",
    choices=("off", "auto"),
    help="auto mixes the logits with zero-shot's by a share that folds of the training images choose",
)
"""The setting of heads that may be mixed with zero-shot, see :mod:`engine.tuning.blend`."""


@dataclass(frozen=True)
class HeadConfig(TrainConfig):
    """Settings of a head that is trained with gradient steps."""

    blend: str = BLEND


@dataclass(frozen=True)
class TowerConfig(TrainConfig):
    """Settings of a method that trains through a tower, where images meet the labels' texts as pairs.

    Heads have no texts of their own to pair; CoCoOp's differ from image to image; ProLIP, CPT, MPT and distillation
    state their own objectives. These offer no choice.
    """

    loss: str = option(
        "classification",
        choices=tuple(LOSSES),
        help="cross-entropy over the labels, InfoNCE over the batch's pairs, or SigLIP's yes-or-no for each pair",
    )

    def check(self) -> None:
        if self.loss == "contrastive" and self.batch_size == 1:
            raise BadConfig(
                "setting_conflict",
                method=self.method,
                first="loss = contrastive",
                second="batch_size = 1",
                reason=Note("one_image_no_pair"),
            )


@dataclass(frozen=True)
class TunerContext:
    """What a tuner is built for: a frozen backbone, the classes and the support images' features."""

    backbone: Backbone
    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    """Template set; the first is the single template."""
    single: Tensor
    """Text features ``(K, P)`` of the first template."""
    ensemble: Tensor
    """Prompt-ensembled text features ``(K, P)``."""
    support: Tensor
    """Features of the support images ``(N, P)``."""
    targets: Tensor
    """Classes of the support images ``(N,)``."""
    seed: int = 0
    sources: NamedSources = dataclasses.field(default_factory=NamedSources)
    """Other tasks and adapters that the config may name."""

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator of the run's seed, for initial values."""
        return torch.Generator().manual_seed(self.seed)

    def support_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return :attr:`support` ``(N, P)`` and :attr:`targets` ``(N,)`` as arrays."""
        return self.support.detach().float().cpu().numpy(), self.targets.cpu().numpy()


class Tuner(nn.Module):
    """A method on one backbone and one set of classes.

    ``forward`` maps inputs at :attr:`stage` to logits ``(B, K)``. Subclasses override what they
    change; the default is prompt-ensembled zero-shot.
    """

    stage: int = FEATURES
    """Where the image path starts to differ from the frozen tower."""
    trains: bool = True
    """Whether there are gradient steps."""
    full_batch: bool = False
    """Whether every step sees all support images."""
    frozen_text: Tensor
    """Text features ``(K, P)`` that are used where the text path is not tuned."""
    lr_factor: float = 1.0
    """Factor on the config's learning rate, where it depends on the tower."""
    added_bias: float = 0.0
    """What the loss adds to the logits: a fixed bias where the sigmoid loss wants one and the backbone has none."""
    keeps_support: bool = False
    """Whether predicting needs the support images' features, so that they are saved."""
    converged: bool | None = None
    """Whether training ended because the loss could not fall any more; None where the number of steps is fixed."""
    mixes: bool = False
    """Whether :meth:`mixed` can go back towards the original weights."""

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__()
        self.config, self.backbone = config, setting.backbone
        self.chosen: dict[str, float] = {}
        self.register_buffer("frozen_text", setting.ensemble.clone(), persistent=False)
        loss = config.loss if isinstance(config, TowerConfig) else "classification"
        self.loss, self.added_bias = LOSSES[loss], 0.0
        if loss == "sigmoid" and self.backbone.bias is None:
            self.added_bias = starting_bias(self.backbone.logits(setting.support, setting.ensemble))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by the name under which they are saved."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def saved(self) -> Mapping[str, Tensor]:
        """Return the tensors that the adapter file holds, by name."""
        return self.trained()

    def restorable(self) -> Tuner:
        """Return the untrained tuner in the form in which it was saved, for :meth:`saved` to be filled in."""
        return self

    def save_library_format(self, folder: Path) -> None:
        """Write the adapter in its library's own format too, where there is one."""

    def merged(self) -> Backbone | None:
        """Return a backbone with what is trained inside its weights, whose image tower computes
        :meth:`image_features`; None where the method adds what no plain model has."""
        return self.backbone if self.stage == FEATURES else None

    def image_features(self, x: Tensor) -> Tensor:
        """Map inputs at :attr:`stage` to normalised features ``(B, P)``."""
        return self.backbone.vision.advance(x, self.stage, FEATURES)

    def text_features(self) -> Tensor:
        """Normalised text features ``(K, P)``."""
        return self.frozen_text

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        """Normalised features ``(B, P)``, ``(K, P)`` to logits ``(B, K)``."""
        return self.backbone.logits(image, text)

    def outputs(self, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)``, mixed with zero-shot's where a share was chosen, and features ``(B, P)``.

        Args:
            x: inputs at :attr:`stage`.
            text: from :meth:`text_features`.
        """
        image = self.image_features(x)
        logits, share = self.head(image, text), self.chosen.get("blend")
        if share is None:
            return logits, image
        frozen = self.backbone.vision.advance(x, self.stage, FEATURES)
        return (1 - share) * self.backbone.logits(frozen, self.frozen_text) + share * logits, image

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs at :attr:`stage` to logits ``(B, K)``."""
        return self.outputs(x, self.text_features())[0]

    def adopt(self, chosen: Mapping[str, float]) -> None:
        """Take over what a tuner of the same settings has chosen by folds, in place of choosing it again."""

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        """What comes before the training, such as source tasks; yields (steps done, steps in all).

        Args:
            store: all images of the run.
            support: positions of those that train.
        """
        yield from ()

    def pretraining_stages(self) -> Iterator[tuple[Tuner, TrainConfig, int]]:
        """The trainings inside :meth:`prepare`, for the forecast: tuner, its settings and its number of images. What
        is not read before the run starts counts as if it were as large as the run's own task."""
        yield from ()

    def set_batch(self, views: Tensor, chosen: Tensor) -> None:
        """Called before each step with its images' views and positions among the training images, ``(B,)`` each."""

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a training batch, a scalar, and its logits ``(B, K)``."""
        logits = self(x)
        return self.loss(logits + self.added_bias, targets), logits

    def after_step(self) -> None:
        """Called after each step of the optimizer, for constraints on the parameters."""

    def finished(self) -> Tuner:
        """Return the tuner to keep once training is over; usually itself."""
        return self

    def learned(self) -> tuple[Learned, ...]:
        """Return what was trained, in forms that people can look at; empty where there is none."""
        return ()

    def mixed(self, share: float) -> Tuner:
        """A new tuner with ``share`` of the tuned and the rest of the original weights, where :attr:`mixes` says so."""
        raise NotImplementedError
