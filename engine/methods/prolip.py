"""ProLIP: fine-tune only the vision projection, held near its start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.backbones.base import POOLED, PROJECTION
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext, option

BY_SHOTS = -1.0
"""Value of ``penalty`` that stands for 1 / shots."""


@dataclass(frozen=True)
class ProlipConfig(TrainConfig):
    """ProLIP's settings. Full batch: an epoch is one step."""

    method = "prolip"
    epochs: int = option(300, 1, 5000, help="steps, each on all training images")
    lr: float = option(1e-3, 1e-8, 10, help="peak learning rate")
    penalty: float = option(
        BY_SHOTS, -1, 1000, help="lambda, weight of the squared distance to the start; -1 = 1 / shots"
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
        shots = len(setting.targets) / len(setting.labels)
        self.strength = 1 / shots if config.penalty < 0 else config.penalty

    def image_features(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x @ self.weight.T + self.origin, dim=-1)

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
        presets={"budget": lambda shots: ProlipConfig(), "paper": lambda shots: ProlipConfig(views=64)},
    )
)
