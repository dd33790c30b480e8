"""Fine-tuning a head step by step, the lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from engine.continual.strategy import StrategySpec, register
from engine.continual.training import HeadConfig, HeadStrategy


@dataclass(frozen=True)
class SequentialConfig(HeadConfig):
    """Settings of sequential fine-tuning."""

    method = "sequential"


register(
    StrategySpec(
        id="sequential",
        name="Fine-tuning, step by step",
        family="bound",
        sentence="Goes on training a linear head with the new photos alone, and forgets: what people do first.",
        equation="W ← W − η ∇ CE(f Wᵀ + b, y) on the images of the step; all labels seen so far compete",
        paper="McCloskey and Cohen 1989; the name of the bound: van de Ven et al. 2022, arXiv 1904.07734",
        config=SequentialConfig,
        strategy=lambda: HeadStrategy,
        count="K(P+1)",
        failures=("Old labels are never right again once the new ones have pushed them down.",),
    )
)
