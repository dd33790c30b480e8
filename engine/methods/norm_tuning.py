"""Norm tuning: train scale and shift of every LayerNorm and nothing else.

PEFT's LNTuning trains the same numbers, but it moves its copies of the layers between devices when it attaches them,
which fails on the tensors without data that forecasts run on, and it warns that it does not know LayerNorm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from engine.backbones.base import named_norms
from engine.methods.bias_tuning import SelectedTuner
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, option


@dataclass(frozen=True)
class NormTuningConfig(TowerConfig):
    """Settings of norm tuning."""

    method = "norm_tuning"
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(1e-2, 1e-8, 10, help="peak learning rate")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")


class NormTuning(SelectedTuner):
    """Scale and shift of every LayerNorm of both towers."""

    def select(self, model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
        for name, norm in named_norms(model):
            for attribute, _ in norm.named_parameters(recurse=False):
                yield name, norm, attribute


register(
    MethodSpec(
        id="norm_tuning",
        name="Norm tuning",
        family="weights",
        sentence="Trains only the scales and shifts of the normalisation layers in both towers.",
        use_when="Brightness, contrast or texture differ from web photos, and very few numbers may change.",
        equation="y = γ·(x − mean)/deviation + β,  only γ and β are trained",
        paper="Kim et al. 2021, How to Adapt Your Large-Scale Vision-and-Language Model; Zhao et al. 2023, Tuning "
        "LayerNorm in Attention, arXiv 2312.11420",
        config=NormTuningConfig,
        tuner=lambda: NormTuning,
        count=lambda shape, config, K, N: shape.norm_parameters,
        formula="scales and shifts of all LayerNorms",
        runs_on="both@0",
        failures=(
            "Every step runs both towers from their first layer on, however few numbers are trained.",
            "Batch norms of convolutions stay as they are.",
        ),
        saved="scale and shift of each LayerNorm",
        starts_at="zero_shot",
        presets={"budget": lambda shots: NormTuningConfig()},
    )
)
