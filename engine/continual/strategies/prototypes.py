"""Nearest class mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from engine.continual.strategy import StrategySpec, register
from engine.continual.sums import Sums
from engine.tuning.tuner import Config


@dataclass(frozen=True)
class PrototypesConfig(Config):
    """Prototypes have no settings."""

    method = "prototypes"


class Prototypes(Sums):
    """Nearest class mean by cosine."""

    def scores(self, images: Sequence[int]) -> Tensor:
        means = F.normalize(self.means, dim=1).to(self.context.text.dtype)
        return self.context.backbone.logits(self.context.store.features(images), means)


register(
    StrategySpec(
        id="prototypes",
        name="Class means",
        family="closed form",
        sentence="Keeps the mean of each label's image features and takes the nearest one.",
        equation="score_k = s · cos(f, mean of f over label k)",
        paper="Janson et al. 2022, arXiv 2210.04428",
        config=PrototypesConfig,
        strategy=lambda: Prototypes,
        count="K·P",
        failures=("Ignores what the names say and how far a label's images scatter.",),
    )
)
