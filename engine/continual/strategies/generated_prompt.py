"""A small variational autoencoder makes each image's prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import VISION_TOKENS
from engine.continual.prompting import Pool, PoolConfig, PoolStrategy
from engine.continual.strategy import Origins, StrategySpec, StreamContext, register
from engine.tuning.tuner import option


@dataclass(frozen=True)
class GeneratedPromptConfig(PoolConfig):
    """Settings of generated prompts."""

    method = "generated_prompt"
    source: str = option(
        "feature", choices=("image", "feature"), help="made from the mean of the image's tokens, or its frozen feature"
    )
    joined: bool = option(False, help="whether prompts of a pool join the generated one")
    latent: int = option(16, 1, 1000, help="size of the latent code")
    hidden: int = option(64, 1, 10_000, help="width of the encoder's and decoder's hidden layer")
    kl: float = option(0.01, 0, 100, help="weight of the code's KL divergence from a standard normal")
    reconstruct: float = option(0.1, 0, 100, help="weight of reconstructing the source from the code")
    lr: float = option(3e-3, 1e-8, 10, help="peak learning rate")
    lwf: float = option(1.0, 0, 10_000, help="weight of distilling the previous step's logits (LwF); 0 = none")


class Generator(Pool):
    """``z ~ N(μ(s), σ(s))``, prompt = decoder(z); at test time z = μ."""

    def __init__(self, config: GeneratedPromptConfig, context: StreamContext):
        super().__init__(config, context)
        size = self.width if config.source == "image" else context.text.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            layers: dict[str, nn.Module] = {
                "encoder": nn.Linear(size, config.hidden),
                "code": nn.Linear(config.hidden, 2 * config.latent),
                "decoder": nn.Linear(config.latent, config.hidden),
                "prompt": nn.Linear(config.hidden, config.tokens * self.width),
                "source": nn.Linear(config.hidden, size),
            }
        self.layers = nn.ModuleDict(layers).to(context.text.device)
        with torch.no_grad():  # prompts start as small as VPT's
            self.layers["prompt"].weight.mul_(0.1)  # type: ignore[operator]
        self.terms: Tensor | float = 0.0

    @property
    def starting_size(self) -> int:
        return self.config.pool if self.config.joined else 0

    def prompts_for(self, x: Tensor, query: Tensor) -> Tensor:
        source = F.normalize(x.mean(1), dim=-1) if self.config.source == "image" else query
        mean, spread = self.layers["code"](F.gelu(self.layers["encoder"](source))).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean
        hidden = F.gelu(self.layers["decoder"](z))
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        loss = (self.layers["source"](hidden) - source).square().sum(1).mean()
        self.terms = self.config.kl * divergence + self.config.reconstruct * loss
        made = self.layers["prompt"](hidden).unflatten(1, (self.config.tokens, self.width))
        return torch.cat([made, super().prompts_for(x, query)], dim=1) if self.config.joined else made

    def extra_loss(self) -> Tensor | float:
        return super().extra_loss() + self.terms


class GeneratedPrompt(PoolStrategy):
    """A generator that goes on being trained, held by distillation."""

    def build(self) -> Generator:
        return Generator(self.config, self.context)

    def origins(self) -> Origins:
        return super().origins() if self.config.joined else Origins()


register(
    StrategySpec(
        id="generated_prompt",
        name="Generated prompt (VAE)",
        family="prompts",
        sentence="A small variational autoencoder makes a prompt for each image, alone or joined with a pool.",
        equation="z ~ N(μ(s), σ(s)), prompt = dec(z);  CE + β KL + ρ ‖s − ŝ‖² + λ LwF",
        paper="This project's source document; VAE: Kingma and Welling 2013, arXiv 1312.6114",
        config=GeneratedPromptConfig,
        strategy=lambda: GeneratedPrompt,
        count="encoder and decoder (+ M·L·D + M·P)",
        failures=("One generator serves all steps, so that what it makes for old images drifts; LwF slows that.",),
        needs=frozenset({VISION_TOKENS}),
    )
)
