"""TaskRes: a trained residual on each label's frozen text feature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import HeadConfig, Tuner, TunerContext, option


@dataclass(frozen=True)
class TaskResConfig(HeadConfig):
    """TaskRes' own numbers."""

    method = "taskres"
    alpha: float = option(0.5, 0, 10, help="factor of the residual")
    epochs: int = option(100, 1, 2000, help="passes over the training images")
    lr: float = option(2e-3, 1e-8, 10, help="peak learning rate")


class TaskRes(Tuner):
    """``w_k = normalise(t_k + alpha x_k)``, x trained from zero."""

    def __init__(self, config: TaskResConfig, setting: TunerContext):
        super().__init__(config, setting)
        self.residual = nn.Parameter(torch.zeros_like(setting.ensemble))  # (K, P)

    def text_features(self) -> Tensor:
        return nn.functional.normalize(self.frozen_text + self.config.alpha * self.residual, dim=-1)


def published(shots: int) -> TaskResConfig:
    """Return the published schedule: 100 epochs up to 4 shots, 200 beyond, batches of 256."""
    return TaskResConfig(epochs=100 if shots <= 4 else 200, batch_size=256)


register(
    MethodSpec(
        id="taskres",
        name="TaskRes",
        family="head",
        sentence="Adds a trained shift to each label's text feature, and leaves the text features themselves alone.",
        use_when="The texts nearly suffice: what zero-shot knows stays apart from what your images add.",
        equation="wₖ = normalise(tₖ + α·xₖ),  logits = s·f·Wᵀ",
        paper="Yu et al. 2023, Task Residual for Tuning Vision-Language Models, arXiv 2211.10277",
        config=TaskResConfig,
        tuner=lambda: TaskRes,
        count=lambda shape, config, K, N: K * shape.embedding,
        formula="K·P",
        runs_on="features",
        failures=(
            "Knows only the labels it was trained on.",
            "Nothing but the number of steps holds it near the texts.",
        ),
        saved="the residual of each label",
        starts_at="zero_shot_ensemble",
        presets={"budget": lambda shots: TaskResConfig(blend="auto"), "paper": published},
    )
)
