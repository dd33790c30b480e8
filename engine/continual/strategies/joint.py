"""All data at once, the upper bound."""

from __future__ import annotations

from dataclasses import dataclass

from engine.continual.strategy import StepData, StrategySpec, register
from engine.continual.training import HeadConfig, Material, Remembering


@dataclass(frozen=True)
class JointConfig(HeadConfig):
    """Settings of joint training."""

    method = "joint"


class Joint(Remembering):
    """A new head in each step, on all images so far."""

    def kept(self, count: int) -> int:
        return count

    def before(self, step: StepData, material: Material) -> None:
        seen = self.learner.seen
        self.learner = self.build()
        self.learner.grow(seen)


register(
    StrategySpec(
        id="joint",
        name="All data at once",
        family="bound",
        sentence="Keeps every photo and trains a new head on all of them in each step: what could be had at best.",
        equation="argmin CE(f Wᵀ + b, y) over the images of all steps so far, from the text weights",
        paper="van de Ven et al. 2022, arXiv 1904.07734",
        config=JointConfig,
        strategy=lambda: Joint,
        count="K(P+1)",
        failures=("Each step costs more than the last; old photos must be kept.",),
        keeps="the features of all images",
    )
)
