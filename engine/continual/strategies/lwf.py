"""Learning without forgetting: the previous step's logits are distilled."""

from __future__ import annotations

from dataclasses import dataclass

from engine.continual.strategy import StrategySpec, register
from engine.continual.training import HeadConfig, HeadStrategy
from engine.tuning.tuner import option


@dataclass(frozen=True)
class LwfConfig(HeadConfig):
    """Settings of learning without forgetting."""

    method = "lwf"
    lwf: float = option(
        100.0,
        0,
        10_000,
        help="weight of distilling the previous step's logits: more forgets less and learns less",
    )


register(
    StrategySpec(
        id="lwf",
        name="Learning without forgetting (LwF)",
        family="bound",
        sentence="Trains a linear head on the new photos and holds what it said of the old labels where it was.",
        equation="CE(f Wᵀ + b, y) + λ T² KL(softmax(old logits/T) ‖ softmax(logits of old labels/T)), T = 2",
        paper="Li and Hoiem 2016, arXiv 1606.09282",
        config=LwfConfig,
        strategy=lambda: HeadStrategy,
        count="K(P+1)",
        failures=(
            "New labels are still favoured over old ones: distillation holds the old labels' order, not their height "
            "against the new ones.",
        ),
    )
)
