"""One prompt that goes on being trained step by step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from engine.backbones.base import VISION_TOKENS
from engine.continual.prompting import PromptConfig, Prompted
from engine.continual.strategy import StrategySpec, StreamContext, register
from engine.continual.training import Trained
from engine.tuning.tuner import option


@dataclass(frozen=True)
class SequentialPromptConfig(PromptConfig):
    """Settings of the sequential prompt."""

    method = "sequential_prompt"
    masked: bool = option(False, help="whether only the labels of the step compete while it is learned")


class OnePrompt(Prompted):
    """The same tokens for every image."""

    def __init__(self, config: SequentialPromptConfig, context: StreamContext):
        super().__init__(config, context)
        self.prompt = nn.Parameter(self.noise(config.tokens))  # (L, D)

    def prompts_for(self, x: Tensor, query: Tensor) -> Tensor:
        return self.prompt.expand(len(x), -1, -1)


class SequentialPrompt(Trained):
    """Fine-tuning of one visual prompt."""

    def build(self) -> OnePrompt:
        return OnePrompt(self.config, self.context)


register(
    StrategySpec(
        id="sequential_prompt",
        name="One prompt, step by step",
        family="bound",
        sentence="Goes on training one visual prompt with the new photos alone; it may unlearn what it did for old "
        "ones.",
        equation="p ← p − η ∇ CE(cos(image([CLS, p, patches]), texts), y) on the images of the step",
        paper="Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119",
        config=SequentialPromptConfig,
        strategy=lambda: SequentialPrompt,
        count="L·D",
        failures=("Nothing protects the prompt that old labels need.",),
        needs=frozenset({VISION_TOKENS}),
    )
)
