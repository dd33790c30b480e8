"""Learning to prompt: a pool of prompts from which each image takes some."""

from __future__ import annotations

from dataclasses import dataclass

from engine.backbones.base import VISION_TOKENS
from engine.continual.prompting import PoolConfig, PoolStrategy
from engine.continual.strategy import StrategySpec, register


@dataclass(frozen=True)
class L2pConfig(PoolConfig):
    """Settings of L2P."""

    method = "l2p"


register(
    StrategySpec(
        id="l2p",
        name="L2P",
        family="prompts",
        sentence="Keeps a pool of prompts; each image takes those whose keys are nearest to its frozen feature.",
        equation="tokens = [CLS, top-N prompts by cos(key, f), patches];  CE + γ (1 − mean cos(chosen keys, f))",
        paper="Wang et al. 2022, Learning to Prompt for Continual Learning, arXiv 2112.08654",
        config=L2pConfig,
        strategy=lambda: PoolStrategy,
        count="M·L·D + M·P",
        failures=(
            "Frozen features of CLIP lie close together, so that all images may choose the same prompts.",
            "The chosen prompts are trained by whatever step comes, so that old labels lose them.",
        ),
        needs=frozenset({VISION_TOKENS}),
    )
)
