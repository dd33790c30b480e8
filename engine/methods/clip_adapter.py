"""CLIP-Adapter: a small residual MLP on the image features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import HeadConfig, Tuner, TunerContext, option


@dataclass(frozen=True)
class ClipAdapterConfig(HeadConfig):
    """CLIP-Adapter's own numbers."""

    method = "clip_adapter"
    reduction: int = option(4, 1, 64, help="the bottleneck is the embedding size divided by this")
    ratio: float = option(0.2, 0, 1, help="share of the adapted feature in the mix")
    epochs: int = option(100, 1, 2000, help="passes over the training images")
    lr: float = option(2e-3, 1e-8, 10, help="peak learning rate")


class ClipAdapter(Tuner):
    """``ratio MLP(f) + (1 - ratio) f``, normalised."""

    def __init__(self, config: ClipAdapterConfig, setting: TunerContext):
        super().__init__(config, setting)
        size = self.backbone.shape.embedding
        generator, hidden = setting.generator(), max(1, size // config.reduction)
        self.down, self.up = nn.Linear(size, hidden, bias=False), nn.Linear(hidden, size, bias=False)
        for layer in (self.down, self.up):
            bound = layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
        self.to(setting.support)

    def image_features(self, x: Tensor) -> Tensor:
        adapted = self.up(self.down(x).relu()).relu()  # (B, P)
        return nn.functional.normalize(self.config.ratio * adapted + (1 - self.config.ratio) * x, dim=-1)


register(
    MethodSpec(
        id="clip_adapter",
        name="CLIP-Adapter",
        family="head",
        sentence="A small two-layer network nudges the frozen image features towards your labels.",
        use_when="The image features almost suffice and you want a small, quick correction that labels share.",
        equation="f′ = normalise(ratio·relu(relu(f·A)·B) + (1 − ratio)·f),  logits = s·f′·Wᵀ",
        paper="Gao et al. 2021, CLIP-Adapter: Better Vision-Language Models with Feature Adapters, arXiv 2110.04544",
        config=ClipAdapterConfig,
        tuner=lambda: ClipAdapter,
        count=lambda shape, config, K, N: 2 * shape.embedding * max(1, shape.embedding // config.reduction),
        formula="2·P²/reduction",
        runs_on="features",
        failures=("The best ratio differs from data set to data set.",),
        saved="the two weight matrices",
        presets={
            "budget": lambda shots: ClipAdapterConfig(blend="auto"),
            "paper": lambda shots: ClipAdapterConfig(epochs=200, optimizer="sgd", lr=1e-2),
        },
    )
)
