"""Logistic regression on frozen image features, started from the text features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext, option


@dataclass(frozen=True)
class LinearProbeConfig(TrainConfig):
    """Full batch: an epoch is one step."""

    method = "linear_probe"
    epochs: int = option(300, 1, 10_000, help="steps, each on all training images")
    lr: float = option(1.0, 1e-6, 100, help="peak learning rate; stable up to about 7 on normalised features")
    optimizer: str = option("sgd", choices=("adamw", "sgd"), help="optimizer (SGD with momentum 0.9)")
    init: str = option("text", choices=("text", "noise"), help="start from the zero-shot weights or from noise")


class LinearProbe(Tuner):
    """``logits = f W^T + b`` with ``W`` started at ``scale`` times the ensembled text features."""

    full_batch = True

    def __init__(self, config: LinearProbeConfig, setting: TunerContext):
        super().__init__(config, setting)
        start = self.backbone.scale.detach() * setting.ensemble
        if config.init == "noise":
            start = torch.randn(start.shape, generator=setting.generator()).to(start) * 0.01
        self.weight = nn.Parameter(start.clone())  # (K, P)
        bias = torch.zeros_like(start[:, 0])
        self.bias = nn.Parameter(bias if self.backbone.bias is None else bias + self.backbone.bias.detach())

    def text_features(self) -> Tensor:
        return nn.functional.normalize(self.weight, dim=-1)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return image @ self.weight.T + self.bias


def count(shape: Any, config: Any, K: int, N: int) -> int:
    """K(P+1)."""
    return K * (shape.embedding + 1)


register(
    MethodSpec(
        id="linear_probe",
        name="Linear probe",
        family="head",
        sentence="Learns one weight vector a label on top of the frozen image features, starting at the label's text.",
        use_when="The first thing to try with four or more images a label: it takes seconds on any backbone.",
        equation="logits = f·Wᵀ + b,  W starts at s·(text features)",
        paper="Radford et al. 2021, arXiv 2103.00020; text start: Huang et al. 2024 (LP++), arXiv 2404.02285",
        config=LinearProbeConfig,
        tuner=lambda: LinearProbe,
        count=count,
        formula="K(P+1)",
        runs_on="features",
        failures=(
            "Started from noise it loses to zero-shot below about 8 shots.",
            "Knows only the labels it was trained on.",
        ),
        saved="weight and bias of each label",
        starts_at="zero_shot_ensemble",
        presets={
            "budget": lambda shots: LinearProbeConfig(),
            "paper": lambda shots: LinearProbeConfig(init="noise", epochs=1000),
        },
    )
)
