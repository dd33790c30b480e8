"""CODA-Prompt: a prompt is a weighted sum of components, and each step adds components of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import VISION_TOKENS
from engine.continual.prompting import PromptConfig, Prompted
from engine.continual.strategy import StrategySpec, StreamContext, register
from engine.continual.training import Trained
from engine.tuning.tuner import option


@dataclass(frozen=True)
class CodaPromptConfig(PromptConfig):
    """Settings of CODA-Prompt."""

    method = "coda_prompt"
    per_label: int = option(2, 1, 100, help="components that each new label adds")
    orthogonal: float = option(0.1, 0, 100, help="weight of keeping components, keys and attentions orthogonal")


class Components(Prompted):
    """``p = Σ_m cos(f ∘ A_m, K_m) P_m``; components of earlier steps are not changed any more."""

    def __init__(self, config: CodaPromptConfig, context: StreamContext):
        super().__init__(config, context)
        size = context.text.shape[1]
        self.components = nn.Parameter(self.noise(0, config.tokens))  # (M, L, D)
        self.keys = nn.Parameter(context.text.new_zeros(0, size))  # (M, P)
        self.attention = nn.Parameter(context.text.new_zeros(0, size))  # (M, P)
        self.old: dict[str, Tensor] = {}

    def grow(self, classes: Sequence[int]) -> None:
        count = self.config.per_label * len([k for k in classes if k not in self.seen])
        super().grow(classes)
        parts = {"components": self.components, "keys": self.keys, "attention": self.attention}
        self.old = {name: p.detach().clone() for name, p in parts.items()}
        size = self.frozen_text.shape[1]
        noise = torch.randn(2, count, size, generator=self.generator).to(self.frozen_text) / size**0.5
        self.components = nn.Parameter(torch.cat([self.old["components"], self.noise(count, self.config.tokens)]))
        self.keys = nn.Parameter(torch.cat([self.old["keys"], noise[0]]))
        self.attention = nn.Parameter(torch.cat([self.old["attention"], 1 + noise[1]]))

    def prompts_for(self, x: Tensor, query: Tensor) -> Tensor:
        seen = F.normalize(query[:, None] * self.attention, dim=-1)  # (B, M, P)
        weights = (seen * F.normalize(self.keys, dim=-1)).sum(-1)  # (B, M)
        return torch.einsum("bm,mld->bld", weights, self.components)

    def extra_loss(self) -> Tensor | float:
        parts = (self.components.flatten(1), self.keys, self.attention)
        return self.config.orthogonal * torch.stack([unlike(rows) for rows in parts]).sum()

    @torch.no_grad()
    def after_step(self) -> None:
        for name, rows in self.old.items():
            getattr(self, name)[: len(rows)] = rows


def unlike(rows: Tensor) -> Tensor:
    """Return the mean squared difference of ``R Rᵀ`` from the identity, for rows ``(M, n)``."""
    rows = F.normalize(rows, dim=1)
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean()


class CodaPrompt(Trained):
    """Decomposed attention over components."""

    def build(self) -> Components:
        return Components(self.config, self.context)


register(
    StrategySpec(
        id="coda_prompt",
        name="CODA-Prompt",
        family="prompts",
        sentence="Builds each image's prompt from weighted components; every step adds some and freezes the old.",
        equation="p = Σ_m cos(f ∘ A_m, K_m) P_m;  CE + λ ‖R Rᵀ − I‖² of components, keys and attentions",
        paper="Smith et al. 2023, CODA-Prompt, arXiv 2211.13218",
        config=CodaPromptConfig,
        strategy=lambda: CodaPrompt,
        count="M·(L·D + 2P)",
        failures=(
            "New components are added to the prompts of old labels too.",
            "The paper prompts several blocks; here prompts join before one.",
        ),
        needs=frozenset({VISION_TOKENS}),
    )
)
