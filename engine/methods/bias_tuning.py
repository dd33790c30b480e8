"""BitFit: train the bias terms of both towers and nothing else.

PEFT has no tuner of biases alone: its ``bias="all"`` comes with a low-rank path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.backbones.base import named_biases
from engine.methods.lora import TowerTuner
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, TunerContext, option


@dataclass(frozen=True)
class BiasTuningConfig(TowerConfig):
    """Settings of bias tuning."""

    method = "bias_tuning"
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(1e-2, 1e-8, 10, help="peak learning rate")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")


class SelectedTuner(TowerTuner):
    """A twin with some parameters of its own; all others are shared with the backbone."""

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__(config, setting)
        self.stage = self.backbone.vision.first_trainable
        self.lr_factor = 1.0  # Adam's best rate for vectors does not depend on the width
        self.tuned = self.backbone.twin()
        self.selected = nn.ParameterDict()
        for name, module, attribute in list(self.select(self.tuned.model)):
            own = nn.Parameter(getattr(module, attribute).detach().clone())
            setattr(module, attribute, own)
            self.selected[f"{name}.{attribute}".replace(".", "/")] = own  # a key may hold no dot

    def select(self, model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
        """(name of the module, module, attribute) of each parameter that is trained."""
        raise NotImplementedError


class BiasTuning(SelectedTuner):
    """Every bias of both towers."""

    def select(self, model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
        return named_biases(model)


register(
    MethodSpec(
        id="bias_tuning",
        name="Bias tuning (BitFit)",
        family="weights",
        sentence="Trains only the bias terms of both towers.",
        use_when="You want to touch both towers with very few numbers; a simple yardstick for the other weight "
        "methods.",
        equation="y = W·x + b,  only b is trained",
        paper="Ben Zaken et al. 2021, BitFit, arXiv 2106.10199",
        config=BiasTuningConfig,
        tuner=lambda: BiasTuning,
        count=lambda shape, config, K, N: shape.bias_parameters,
        formula="all biases",
        runs_on="both@0",
        failures=("Every step runs both towers from their first layer on, however few numbers are trained.",),
        saved="each bias",
        starts_at="zero_shot",
        presets={"budget": lambda shots: BiasTuningConfig()},
    )
)
