"""ProLIP: fine-tune only the vision projection, held near its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.backbones.base import POOLED, PROJECTION, Backbone
from engine.tuning import lbfgs
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import LBFGS, HeadConfig, TrainConfig, Tuner, TunerContext, option

if TYPE_CHECKING:
    from engine.tuning.features import FeatureStore

CHOOSE = -1.0
"""Value of ``penalty`` that stands for a choice by folds, or for 1 / shots where there is none."""
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Penalties times the shots, the strongest first."""


@dataclass(frozen=True)
class ProlipConfig(HeadConfig):
    """ProLIP's settings. Full batch: an epoch is one step."""

    method = "prolip"
    epochs: int = option(300, 1, 5000, help="steps at most, each on all training images")
    optimizer: str = option(
        "lbfgs", choices=("lbfgs", "adamw", "sgd"), help="lbfgs stops when the loss cannot fall any more"
    )
    lr: float = option(1e-3, 1e-8, 10, help="peak learning rate of adamw and sgd")
    penalty: float = option(
        CHOOSE,
        -1,
        1000,
        help="lambda, weight of the squared distance to the start; -1 = chosen by folds with lbfgs, else 1 / shots",
    )


class Prolip(Tuner):
    """``W f + b`` for the tower's projection of the pooled feature f, with ``lambda ‖W - W0‖²`` in the loss.

    The projection's bias b, which most towers do not have, stays as it is.
    """

    stage = POOLED
    full_batch = True
    start: Tensor
    origin: Tensor

    def __init__(self, config: ProlipConfig, setting: TunerContext):
        super().__init__(config, setting)
        vision, device = self.backbone.vision, self.backbone.device
        with torch.no_grad():  # the projection is linear: its columns are where the unit vectors go
            origin = vision.project(torch.zeros(1, vision.projected, device=device))  # (1, P)
            start = (vision.project(torch.eye(vision.projected, device=device)) - origin).T.contiguous()  # (P, D)
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("origin", origin, persistent=False)
        self.weight = nn.Parameter(start.clone())
        self.setting: TunerContext | None = setting
        self.shots = len(setting.targets) / len(setting.labels)
        self.strength = 1 / self.shots if config.penalty < 0 else config.penalty

    def merged(self) -> Backbone | None:
        tuned = self.backbone.twin()
        return tuned if tuned.vision.replace_projection(self.weight.detach().clone()) else None

    def image_features(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x @ self.weight.T + self.origin, dim=-1)

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Choose the penalty by folds inside the support."""
        if (folds := self.folds()) is None:
            return
        strengths, scores = [s / self.shots for s in STRENGTHS], []
        for found in self.score(store.stage(self.stage, support), folds, strengths):
            scores.append(found)
            yield len(scores), len(strengths)
        self.strength = strengths[lbfgs.best(scores)[0]]
        self.chosen = {"penalty": self.strength}

    def folds(self) -> Tensor | None:
        """Return the folds of the support images ``(N, F)``; None where nothing is to be chosen."""
        if self.setting is None or self.config.optimizer != LBFGS or self.config.penalty >= 0:
            return None
        return lbfgs.assign_folds(self.setting.targets)

    def score(self, x: Tensor, folds: Tensor, strengths: Sequence[float]) -> Iterator[Tensor]:
        """Yield out-of-fold scores ``(1, 2)`` of each strength, as :func:`engine.tuning.lbfgs.score_strengths` does.

        Args:
            x: pooled features ``(N, D)``.
        """
        assert self.setting is not None
        weight = self.start.repeat(1, folds.shape[1], 1, 1).requires_grad_()  # (1, F, P, D)
        text = self.text_features()

        def logits() -> Tensor:
            moved = (x @ weight.flatten(0, 2).T).view(len(x), *weight.shape[:3])  # (N, 1, F, P)
            return self.backbone.logits(nn.functional.normalize(moved + self.origin, dim=-1), text)

        def penalty() -> Tensor:
            return (weight - self.start).square().sum()

        return lbfgs.score_strengths((weight,), logits, penalty, self.setting.targets, folds, strengths)

    def adopt(self, chosen: Mapping[str, float]) -> None:
        self.strength = chosen.get("penalty", self.strength)

    def pretraining_stages(self) -> Iterator[tuple[Tuner, TrainConfig, int]]:
        if (folds := self.folds()) is not None and self.setting is not None:
            fits = folds.shape[1] * len(STRENGTHS)
            config = replace(self.config, optimizer="sgd", epochs=fits * lbfgs.ROUGH[0])
            yield Prolip(config, self.setting), config, len(self.setting.targets)

    def finished(self) -> Tuner:
        self.setting = None
        return self

    def penalty(self) -> Tensor:
        """``lambda ‖W - W0‖²``, a scalar."""
        return self.strength * (self.weight - self.start).square().sum()

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().objective(x, targets)
        return loss + self.penalty(), logits


register(
    MethodSpec(
        id="prolip",
        name="ProLIP",
        family="head",
        sentence="Fine-tunes the last matrix of the image tower, which maps images into the shared space, and holds it "
        "near its start.",
        use_when="You want more freedom than a linear probe and still seconds of training, also at one or two images "
        "a label.",
        equation="f = normalise(W·pooled),  loss + λ‖W − W₀‖²",
        paper="Fahes et al. 2024, Fine-tuning CLIP's Last Visual Projector, arXiv 2410.05270",
        config=ProlipConfig,
        tuner=lambda: Prolip,
        count=lambda shape, config, K, N: shape.vision_pooled * shape.embedding,
        formula="Dv·P",
        runs_on="features",
        failures=(
            "Without the penalty (penalty = 0) the matrix drifts far from its start and other labels are forgotten.",
        ),
        saved="the projection",
        starts_at="zero_shot_ensemble",
        needs=frozenset({PROJECTION}),
        presets={
            "budget": lambda shots: ProlipConfig(blend="auto"),
            "paper": lambda shots: ProlipConfig(views=64, optimizer="adamw"),
        },
    )
)
