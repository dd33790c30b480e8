"""Strategies that train prompts among the image's tokens: what all of them share.

The blocks before the prompts are frozen and run once an image: the feature store keeps their tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import FEATURES, Backbone
from engine.continual.strategy import Origins, StreamContext
from engine.continual.training import Learner, StreamConfig, Trained
from engine.errors import BadConfig, Note
from engine.tuning.tuner import option


@dataclass(frozen=True)
class PromptConfig(StreamConfig):
    """Settings of prompts."""

    lr: float = option(0.03, 1e-8, 10, help="peak learning rate")
    batch_size: int = option(16, 1, 4096, help="images per step of the optimizer")
    masked: bool = option(True, help="whether only the labels of the step compete while it is learned")
    block: int = option(0, 0, 100, help="block before which prompts join; what is before it runs once an image")
    tokens: int = option(5, 1, 100, help="L, tokens of a prompt")

    head: str = option(
        "linear",
        choices=("linear", "text"),
        help="a classifier trained from the texts, or the frozen texts",
    )

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        last = backbone.shape.vision_layers - 1
        if self.block <= last:
            return None
        allowed = Note.of("allowed_between", low=0, high=last)
        return BadConfig("bad_setting", method=self.method, name="block", value=self.block, allowed=allowed)


@dataclass(frozen=True)
class PoolConfig(PromptConfig):
    """Settings of a pool of prompts."""

    pool: int = option(10, 1, 1000, help="M, prompts in the pool")
    top: int = option(5, 1, 100, help="N, prompts that an image chooses")
    pull: float = option(0.1, 0, 10, help="weight of pulling chosen keys towards the images that chose them")


class Prompted(Learner):
    """Image tokens, prompts among them, the frozen tower, the labels' texts."""

    def __init__(self, config: PromptConfig, context: StreamContext):
        super().__init__(config, context)
        self.stage = config.block
        self.width = self.backbone.shape.vision_width
        if config.head == "linear":
            self.weight = nn.Parameter(context.text[:0].clone())  # (seen, P)
            self.bias = nn.Parameter(context.text[:0, 0].clone())  # (seen,)
        self.generator = torch.Generator().manual_seed(context.seed)

    def noise(self, *size: int) -> Tensor:
        """Return a start for tokens ``(..., D)``, as VPT takes it."""
        bound = math.sqrt(6 / (3 * self.backbone.shape.patch**2 + self.width))
        return ((torch.rand(*size, self.width, generator=self.generator) * 2 - 1) * bound).to(self.frozen_text)

    def grow(self, classes: Sequence[int]) -> None:
        fresh = [k for k in classes if k not in self.seen]
        super().grow(classes)
        if self.config.head == "linear":
            start = self.backbone.scale.detach() * self.frozen_text[fresh]
            self.weight = nn.Parameter(torch.cat([self.weight.detach(), start]))
            self.bias = nn.Parameter(torch.cat([self.bias.detach(), start[:, 0] * 0]))

    def logits(self, x: Tensor, query: Tensor) -> Tensor:
        if self.config.head == "text":
            return super().logits(x, query)
        return self.encode(x, query) @ self.weight.T + self.bias

    def prompts_for(self, x: Tensor, query: Tensor) -> Tensor:
        """Return prompt tokens ``(B, T, D)`` for image tokens ``(B, S, D)`` and frozen features ``(B, P)``."""
        raise NotImplementedError

    def encode(self, x: Tensor, query: Tensor) -> Tensor:
        prompts, tower = self.prompts_for(x, query), self.backbone.vision

        def insert(k: int, hidden: Tensor) -> Tensor:
            if k > self.stage:
                return hidden
            return torch.cat([hidden[:, : tower.prefix], prompts, hidden[:, tower.prefix :]], dim=1)

        return tower.advance(x, self.stage, FEATURES, insert)


class Pool(Prompted):
    """Prompts with keys: each image takes the ``top`` ones whose keys are nearest to its frozen feature."""

    def __init__(self, config: PoolConfig, context: StreamContext):
        super().__init__(config, context)
        self.keys = nn.Parameter(self.fresh_keys(self.starting_size))  # (M, P)
        self.pulled: Tensor | float = 0.0
        self.add_prompts(self.starting_size)

    @property
    def starting_size(self) -> int:
        """Prompts before the first step."""
        return self.config.pool

    def fresh_keys(self, count: int) -> Tensor:
        """Return keys ``(count, P)`` that start from noise."""
        size = self.frozen_text.shape[1]
        return (torch.rand(count, size, generator=self.generator) * 2 - 1).to(self.frozen_text)

    def add_prompts(self, count: int) -> None:
        """Make the prompts themselves."""
        self.prompts = nn.Parameter(self.noise(count, self.config.tokens))  # (M, L, D)

    def tokens(self) -> Tensor:
        """Return the tokens of all prompts ``(M, T, D)``."""
        return self.prompts

    def similarities(self, query: Tensor) -> Tensor:
        """Return cosines ``(B, M)`` of frozen features ``(B, P)`` and keys."""
        return F.normalize(query, dim=-1) @ F.normalize(self.keys, dim=-1).T

    def choose(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and positions ``(B, N)`` of the prompts that images choose."""
        return tuple(self.similarities(query).topk(min(self.config.top, len(self.keys)), dim=1))  # type: ignore[return-value]

    def prompts_for(self, x: Tensor, query: Tensor) -> Tensor:
        near, chosen = self.choose(query)
        self.pulled = (1 - near).mean()
        return self.tokens()[chosen].flatten(1, 2)  # (B, N T, D)

    def extra_loss(self) -> Tensor | float:
        return self.config.pull * self.pulled


class PoolStrategy(Trained):
    """A strategy whose images choose prompts."""

    learner: Pool

    def build(self) -> Pool:
        return Pool(self.config, self.context)

    @torch.no_grad()
    def choices(self, images: Sequence[int]) -> Tensor | None:
        return self.learner.choose(self.context.store.features(images))[1]

    def origins(self) -> Origins:
        return Origins(len(self.learner.keys), ("",) * len(self.learner.keys))
