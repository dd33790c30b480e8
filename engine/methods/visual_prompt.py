"""Visual prompt tuning: trained tokens among the image tokens, at the first or at every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, VISION_TOKENS
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, Tuner, TunerContext, option

PAPER = "Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119"


@dataclass(frozen=True)
class VisualPromptConfig(TowerConfig):
    """VPT-shallow's settings."""

    method = "visual_prompt"
    tokens: int = option(5, 1, 100, help="M, number of trained tokens")
    epochs: int = option(30, 1, 2000, help="passes over the training images")
    lr: float = option(3e-2, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(3, 0, 100, help="epochs at the start in which the learning rate rises")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")


@dataclass(frozen=True)
class VisualPromptDeepConfig(VisualPromptConfig):
    """VPT-deep's settings."""

    method = "visual_prompt_deep"
    lr: float = option(1e-2, 1e-8, 10, help="peak learning rate")


class VisualPrompt(Tuner):
    """M tokens before the first block: after the class token, or first where there is none."""

    stage = 0
    deep = False

    def __init__(self, config: VisualPromptConfig, setting: TunerContext):
        super().__init__(config, setting)
        shape = self.backbone.shape
        layers = shape.vision_layers if self.deep else 1
        bound = math.sqrt(6 / (3 * shape.patch**2 + shape.vision_width))
        start = torch.rand(layers, config.tokens, shape.vision_width, generator=setting.generator()) * 2 - 1
        self.prompts = nn.Parameter((start * bound).to(setting.support))  # (L or 1, M, D)

    def insert(self, k: int, hidden: Tensor) -> Tensor:
        """Return tokens that enter block ``k``: prompts are put in at the first, replaced at later ones."""
        if k >= len(self.prompts):
            return hidden
        prompts = self.prompts[k].expand(len(hidden), -1, -1)  # (B, M, D)
        prefix = self.backbone.vision.prefix
        rest = hidden[:, prefix:] if k == 0 else hidden[:, prefix + prompts.shape[1] :]
        return torch.cat([hidden[:, :prefix], prompts, rest], dim=1)

    def image_features(self, x: Tensor) -> Tensor:
        return self.backbone.vision.advance(x, 0, FEATURES, self.insert)


class VisualPromptDeep(VisualPrompt):
    """M fresh tokens before every block."""

    deep = True


def paper(config: type[VisualPromptConfig]):
    """100 epochs, 10 of them warm-up."""
    return lambda shots: config(epochs=100, warmup_epochs=10, views=8, lr=1e-3)


register(
    MethodSpec(
        id="visual_prompt",
        name="Visual prompt (VPT-shallow)",
        family="visual prompt",
        leading=True,
        sentence="Adds a few trained tokens to each image's patches; the image tower stays frozen.",
        use_when="The images look unlike web photos and you want a tiny file without any change of weights.",
        equation="tokens = [class, p₁ … p_M, patches] → block 1 → … → block L",
        paper=PAPER,
        config=VisualPromptConfig,
        tuner=lambda: VisualPrompt,
        count=lambda shape, config, K, N: config.tokens * shape.vision_width,
        formula="M·Dv",
        runs_on="image@0",
        failures=(
            "Learns slowly: a few tokens at the first layer change little, and gradients pass through the whole tower.",
            "Often behind heads at few shots.",
        ),
        saved="the M tokens",
        needs=frozenset({VISION_TOKENS}),
        presets={"budget": lambda shots: VisualPromptConfig(), "paper": paper(VisualPromptConfig)},
    )
)
register(
    MethodSpec(
        id="visual_prompt_deep",
        name="Deep visual prompt (VPT-deep)",
        family="visual prompt",
        recommended=True,
        sentence="Adds fresh trained tokens at every layer of the image tower.",
        use_when="The shallow visual prompt helps but is not enough, and there are four or more images a label.",
        equation="before each block l: tokens = [class, pˡ₁ … pˡ_M, patches]",
        paper=PAPER,
        config=VisualPromptDeepConfig,
        tuner=lambda: VisualPromptDeep,
        count=lambda shape, config, K, N: shape.vision_layers * config.tokens * shape.vision_width,
        formula="L·M·Dv",
        runs_on="image@0",
        failures=("Can overfit at one or two shots.",),
        saved="the M tokens of each layer",
        needs=frozenset({VISION_TOKENS}),
        presets={"budget": lambda shots: VisualPromptDeepConfig(), "paper": paper(VisualPromptDeepConfig)},
    )
)
