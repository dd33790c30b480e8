"""Full fine-tuning, with WiSE-FT to mix the tuned weights with the original ones afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.backbones.base import PIXELS, Shape, trunks
from engine.methods.lora import TowerTuner
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, TunerContext, option


@dataclass(frozen=True)
class FullConfig(TowerConfig):
    """Settings of full fine-tuning."""

    method = "full"
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(1e-5, 1e-9, 1, help="peak learning rate at width 768; grows with the inverse width")
    weight_decay: float = option(0.1, 0, 10, help="decoupled weight decay")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate rises")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")
    trunk: bool = option(
        False, help="train a convolutional trunk under the transformer too (Pocket CLIP's): ten times as long"
    )
    mix: float = option(1.0, 0, 1, help="WiSE-FT: share of the tuned weights in the mix with the original ones")


class Full(TowerTuner):
    """Every parameter of both towers; those of a convolutional trunk on demand."""

    mixes = True

    def __init__(self, config: FullConfig, setting: TunerContext):
        super().__init__(config, setting)
        self.tuned = self.backbone.twin(share=False)
        self.model: nn.Module = self.tuned.model.requires_grad_(True)
        self.stage = PIXELS if config.trunk else self.backbone.vision.first_trainable
        if self.stage != PIXELS:
            for part in trunks(self.model):
                part.requires_grad_(False)

    def finished(self) -> Full:
        return self if self.config.mix == 1 else self.mixed(self.config.mix)

    @torch.no_grad()
    def mixed(self, share: float) -> Full:
        """WiSE-FT (Wortsman et al. 2021): ``(1 - share)`` original plus ``share`` tuned weights, as a new tuner."""
        other = Full.__new__(Full)
        nn.Module.__init__(other)
        other.config, other.backbone, other.chosen, other.ids = self.config, self.backbone, {"mix": share}, self.ids
        other.register_buffer("frozen_text", self.frozen_text, persistent=False)
        other.stage = self.stage
        other.tuned = self.tuned.twin(share=False)
        other.model = other.tuned.model
        start = dict(self.backbone.model.named_parameters())
        for name, parameter in other.model.named_parameters():
            parameter.lerp_(start[name], 1 - share)
        return other


def full_count(shape: Shape, config: FullConfig) -> int:
    """Return the number of trained parameters: all, those of a convolutional trunk on demand."""
    return shape.parameters - (0 if config.trunk else shape.trunk_parameters)


register(
    MethodSpec(
        id="full",
        name="Full fine-tuning",
        family="weights",
        sentence="Trains every weight of both towers, a convolutional trunk's only with the setting trunk; a slider "
        "then mixes the result with the original weights.",
        use_when="There are hundreds of images, memory is plentiful and nothing smaller was enough; check the WiSE-FT "
        "slider.",
        equation="θ = (1 − m)·θ₀ + m·θ_tuned  (WiSE-FT; m = 1: tuned)",
        paper="WiSE-FT: Wortsman et al. 2021, Robust fine-tuning of zero-shot models, arXiv 2109.01903",
        config=FullConfig,
        tuner=lambda: Full,
        count=lambda shape, config, K, N: full_count(shape, config),
        formula="all, without those of a convolutional trunk unless trunk = true",
        runs_on="both@0",
        failures=(
            "On few images a small model often ends below zero-shot; the slider shows how much to take back.",
            "Needs memory for four copies of the weights.",
        ),
        saved="every weight",
        starts_at="zero_shot",
        presets={
            "budget": lambda shots: FullConfig(),
            "paper": lambda shots: FullConfig(epochs=20, batch_size=128, views=8),
        },
    )
)
