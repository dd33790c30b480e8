"""Fine-tuning with a few old images a label."""

from __future__ import annotations

from dataclasses import dataclass

from engine.continual.strategy import StrategySpec, register
from engine.continual.training import HeadConfig, Remembering
from engine.tuning.tuner import option


@dataclass(frozen=True)
class ReplayConfig(HeadConfig):
    """Settings of replay."""

    method = "replay"
    memory: int = option(2, 1, 1000, help="images of each label that are kept, n")


class Replay(Remembering):
    """Goes on with the step's images and those that are kept."""

    def kept(self, count: int) -> int:
        return min(count, self.config.memory)


register(
    StrategySpec(
        id="replay",
        name="Replay",
        family="bound",
        sentence="Keeps a few photos of each old label and trains on them together with the new ones.",
        equation="W ← W − η ∇ CE(f Wᵀ + b, y) on the images of the step and n kept ones of each old label",
        paper="Chaudhry et al. 2019, arXiv 1902.10486",
        config=ReplayConfig,
        strategy=lambda: Replay,
        count="K(P+1)",
        failures=("Kept images are few against the new ones and can be learned by heart.",),
        keeps="the features of n images a label",
    )
)
