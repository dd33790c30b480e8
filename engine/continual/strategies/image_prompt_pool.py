"""A pool whose prompts start from training images, through the patch embedding or without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import PIXELS, VISION_TOKENS
from engine.continual.prompting import Pool, PoolConfig, PoolStrategy
from engine.continual.strategy import Origins, StepData, StrategySpec, StreamContext, register
from engine.continual.training import Material
from engine.tuning.tuner import option


@dataclass(frozen=True)
class ImagePromptPoolConfig(PoolConfig):
    """Settings of a pool of images. The pool grows: its prompts come from the images of each step."""

    method = "image_prompt_pool"
    form: str = option(
        "reshaped",
        choices=("patches", "reshaped"),
        help="through the patch embedding, or reshaped to tokens",
    )
    pool: int = option(1, 1, 100, help="prompts that each new label adds, from as many of its images")
    patches: int = option(9, 1, 400, help="patches of a prompt that goes through the patch embedding")
    keys: str = option("image", choices=("image", "noise"), help="what keys start from: the image's feature, or noise")


class ImagePool(Pool):
    """Pixels ``(M, T, 3, p, p)`` that the patch embedding reads, or images reshaped to tokens ``(M, L, D)``."""

    start: Tensor
    began: Tensor

    def __init__(self, config: ImagePromptPoolConfig, context: StreamContext):
        self.raw = config.form == "reshaped"
        super().__init__(config, context)
        self.register_buffer("start", self.prompts.detach().clone(), persistent=False)
        self.register_buffer("began", torch.zeros(0, dtype=torch.long, device=context.text.device), persistent=False)

    @property
    def starting_size(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one prompt."""
        patch = self.backbone.shape.patch
        return (self.config.tokens, self.width) if self.raw else (self.config.patches, 3, patch, patch)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of pixels of a prompt's picture; reshaped, the last row may be cut."""
        if self.raw:
            pixels = -(-self.config.tokens * self.width // 3)
            rows = max(1, math.isqrt(pixels))
            return rows, -(-pixels // rows)
        rows = math.isqrt(self.config.patches)
        patch = self.backbone.shape.patch
        return rows * patch, -(-self.config.patches // rows) * patch

    def add_prompts(self, count: int) -> None:
        self.prompts = nn.Parameter(self.frozen_text.new_zeros(count, *self.shape))

    def grow(self, classes: Sequence[int]) -> None:
        fresh = [k for k in classes if k not in self.seen for _ in range(self.config.pool)]
        super().grow(classes)
        empty = self.prompts.new_zeros(len(fresh), *self.shape)
        self.prompts = nn.Parameter(torch.cat([self.prompts.detach(), empty]))
        self.keys = nn.Parameter(torch.cat([self.keys.detach(), self.fresh_keys(len(fresh))]))
        self.start = torch.cat([self.start, empty])
        self.began = torch.cat([self.began, torch.tensor(fresh, dtype=torch.long, device=empty.device)])

    def saved(self) -> dict[str, Tensor]:
        return {**self.trained(), "start": self.start, "began": self.began}

    @torch.no_grad()
    def begin_as(self, place: int, pixels: Tensor, feature: Tensor, spread: Tensor) -> None:
        """Start a prompt from an image.

        Args:
            pixels: normalised ``(3, S, S)``.
            feature: frozen ``(P,)``.
            spread: standard deviation of the image tokens that the prompt will stand among, a scalar.
        """
        small = F.interpolate(pixels[None], self.sides, mode="bilinear", antialias=True)[0]  # (3, rows, columns)
        if self.raw:
            values = small.permute(1, 2, 0).flatten()[: math.prod(self.shape)].view(self.shape)
            values = values * spread / values.std().clamp(min=1e-6)
        else:
            p = self.backbone.shape.patch
            values = small.unfold(1, p, p).unfold(2, p, p).permute(1, 2, 0, 3, 4).flatten(0, 1)[: self.config.patches]
        self.prompts[place] = values
        self.start[place] = values
        if self.config.keys == "image":
            self.keys[place] = feature

    def tokens(self) -> Tensor:
        if self.raw:
            return self.prompts
        flat = self.backbone.vision.embed_patches(self.prompts.flatten(0, 1))  # (M T, D)
        return flat.unflatten(0, self.prompts.shape[:2])

    @torch.no_grad()
    def pictures(self, prompts: Tensor) -> tuple[np.ndarray, ...]:
        """Return prompts as RGB uint8 ``(H, W, 3)``. Reshaped ones are shown in their own range."""
        rows, columns = self.sides
        found = []
        for prompt in prompts.float():
            if self.raw:
                flat = F.pad(prompt.flatten(), (0, 3 * rows * columns - prompt.numel()))
                low, high = prompt.min(), prompt.max()
                shares = (flat.view(rows, columns, 3) - low) / (high - low).clamp(min=1e-6)
            else:
                p = self.backbone.shape.patch
                whole = F.pad(prompt.flatten(1), (0, 0, 0, rows * columns // p**2 - len(prompt)))
                laid = whole.view(rows // p, columns // p, 3, p, p).permute(0, 3, 1, 4, 2).reshape(rows, columns, 3)
                black, white = (self.backbone.normalise(torch.full((3, 1, 1), v, dtype=torch.uint8)) for v in (0, 255))
                ends = [end.view(3).to(laid) for end in (black, white)]
                shares = (laid - ends[0]) / (ends[1] - ends[0])
            found.append((255 * shares.clamp(0, 1)).round().byte().cpu().numpy())
        return tuple(found)


class ImagePromptPool(PoolStrategy):
    """Prompts of each new label start from its first training images."""

    learner: ImagePool

    def build(self) -> ImagePool:
        return ImagePool(self.config, self.context)

    def before(self, step: StepData, material: Material) -> None:
        added = self.config.pool * len(step.classes)
        first = len(self.learner.keys) - added
        spread = material.inputs[0].std()
        for place, k in enumerate((k for k in step.classes for _ in range(self.config.pool)), first):
            own = [i for i, target in zip(step.images, step.targets.tolist(), strict=True) if target == k]
            image = own[(place - first) % self.config.pool % len(own)]
            pixels = self.context.store.fresh(PIXELS, [image])[0]
            self.learner.begin_as(place, pixels, self.context.store.features([image])[0], spread)

    def origins(self) -> Origins:
        learner = self.learner
        names = tuple(self.context.labels[int(k)].name for k in learner.began)
        return Origins(len(names), names, learner.pictures(learner.prompts), learner.pictures(learner.start))


register(
    StrategySpec(
        id="image_prompt_pool",
        name="Pool of image prompts",
        family="prompts",
        sentence="A pool whose prompts start from training photos; each new label adds one, and you can see which are "
        "chosen.",
        equation="prompts = E·(patches of an image), or an image reshaped to L × D; chosen and trained as in L2P",
        paper="This project's source document; the pool: Wang et al. 2022, arXiv 2112.08654",
        config=ImagePromptPoolConfig,
        strategy=lambda: ImagePromptPool,
        count="M·L·D + M·P (through patches: M·T·3·p² + M·P)",
        failures=(
            "What a prompt looks like after training says little about what it does.",
            "The prompt that began as a label's photo need not be the one that the label's photos choose.",
        ),
        keeps="one image a label as the start of a prompt",
        needs=frozenset({VISION_TOKENS}),
    )
)
