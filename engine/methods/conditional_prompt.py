"""CoCoOp: a shared prompt that a small network shifts for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.backbones.base import TEXT_TOKENS, Backbone
from engine.errors import BadConfig
from engine.methods.prompt_tuning import Around, TextPrompt, start_vectors, too_many
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TrainConfig, TunerContext, option

TEXTS_AT_ONCE = 128
"""Texts that go through the tower together: those of as many images as fit, one at least. Bounds the memory."""


@dataclass(frozen=True)
class ConditionalPromptConfig(TrainConfig):
    """CoCoOp's settings."""

    method = "conditional_prompt"
    tokens: int = option(4, 1, 64, help="M, number of trained vectors")
    init: str = option("words", choices=("words", "noise"), help="start from words or from noise (std 0.02)")
    words: str = option("a photo of a", help="the words to start from; cut or filled with noise to M tokens")
    reduction: int = option(16, 1, 512, help="the bottleneck is the embedding size divided by this")
    meta_start: str = option(
        "zero",
        choices=("zero", "noise"),
        help="the meta-net's last layer at the start: no shift, or random as published",
    )
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(2e-3, 1e-8, 10, help="peak learning rate")
    batch_size: int = option(8, 1, 4096, help="images per step; each has its own texts for all labels")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start with a small learning rate")

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        return too_many(self.method, "tokens", self.tokens, backbone)


class ConditionalPrompt(TextPrompt):
    """``[start] v_1 + s(f) ... v_M + s(f) [label] . [end]`` for each image feature f.

    The meta-net s is ``P -> P / 16 -> Dt`` with ReLU. An image needs its own K texts, so the tower runs
    on a few images' texts at a time and, where a batch has more, keeps none of its activations: they are
    computed again for the gradient. PEFT has no prompt that depends on the input, hence the module here.
    """

    mean_shift: Tensor

    def __init__(self, config: ConditionalPromptConfig, setting: TunerContext):
        super().__init__(config, setting, reserve=config.tokens)
        size, width = self.backbone.shape.embedding, self.backbone.text.width
        hidden = max(1, size // config.reduction)
        self.context = nn.Parameter(start_vectors(config, setting))  # (M, D)
        last = nn.Linear(hidden, width)
        if config.meta_start == "zero":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.meta_net = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), last).to(setting.support)
        self.support = setting.support
        self.register_buffer("mean_shift", torch.zeros_like(self.context[0]), persistent=False)
        self.finished()

    @torch.no_grad()
    def finished(self) -> ConditionalPrompt:
        self.mean_shift.copy_(self.meta_net(self.support).mean(0))
        return self

    def saved(self) -> dict[str, Tensor]:
        return {**self.trained(), "mean_shift": self.mean_shift}

    def around(self) -> Around:
        """For display: with the mean shift of the training images. Logits use each image's own."""
        return Around(self.context + self.mean_shift)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        chunks = image.split(max(1, TEXTS_AT_ONCE // len(self.class_tokens)))
        if len(chunks) == 1 or not torch.is_grad_enabled():
            return torch.cat([self.own_logits(chunk) for chunk in chunks])
        rows: list[Any] = [checkpoint(self.own_logits, chunk, use_reentrant=False) for chunk in chunks]
        return torch.cat(rows)

    def own_logits(self, image: Tensor) -> Tensor:
        """Normalised features ``(b, P)`` to logits ``(b, K)`` with each image's own texts."""
        context = self.context + self.meta_net(image)[:, None]  # (b, M, D)
        labels = len(self.class_tokens)
        text = self.encode(context.repeat_interleave(labels, dim=0)).unflatten(0, (-1, labels))  # (b, K, P)
        return torch.cat([self.backbone.logits(f[None], own) for f, own in zip(image, text, strict=True)])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.image_features(x), self.frozen_text)


def count(shape: Any, config: ConditionalPromptConfig, K: int, N: int) -> int:
    """Return the vectors and the two layers of the meta-net."""
    hidden = max(1, shape.embedding // config.reduction)
    return config.tokens * shape.text_width + hidden * (shape.embedding + 1) + shape.text_width * (hidden + 1)


def paper(shots: int) -> ConditionalPromptConfig:
    """CoCoOp's published schedule: one image a step."""
    return ConditionalPromptConfig(
        meta_start="noise", batch_size=1, epochs=10, optimizer="sgd", lr=2e-3, warmup="constant", weight_decay=5e-4
    )


register(
    MethodSpec(
        id="conditional_prompt",
        name="Conditional prompt (CoCoOp)",
        family="text prompt",
        sentence="Prompt tuning in which a small network moves the trained vectors for every single image.",
        use_when="The tuned prompt must also serve labels or kinds of images that it was not tuned on, and time does "
        "not matter.",
        equation="wₖ(f) = text([v₁ + π(f) … v_M + π(f)] [label k])",
        paper="Zhou et al. 2022, Conditional Prompt Learning for Vision-Language Models, arXiv 2203.05557",
        config=ConditionalPromptConfig,
        tuner=lambda: ConditionalPrompt,
        count=count,
        formula="M·Dt + P/16·(P+1) + Dt·(P/16+1)",
        runs_on="text",
        failures=(
            "Slow: every image needs its own texts for all labels, in training and in use.",
            "Made for labels it was not tuned on; on its own labels it is often behind plain prompt tuning.",
        ),
        saved="the M vectors, the meta-net and the mean shift of the training images",
        starts_at="zero_shot",
        needs=frozenset({TEXT_TOKENS}),
        presets={"budget": lambda shots: ConditionalPromptConfig(), "paper": paper},
    )
)
