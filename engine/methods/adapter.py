"""A bottleneck beside each MLP of the image tower (AdaptFormer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from engine.backbones.base import VISION_TOKENS
from engine.methods.lora import TowerTuner, first_block
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, TunerContext, option


@dataclass(frozen=True)
class AdapterConfig(TowerConfig):
    """Settings of bottleneck adapters."""

    method = "adapter"
    d: int = option(64, 1, 1024, help="size of the bottleneck")
    bottleneck_scale: float = option(0.1, 1e-4, 10, help="factor on the bottleneck's output")
    last_blocks: int = option(0, 0, 100, help="only the last n blocks of the image tower; 0 = all")
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(3e-3, 1e-8, 10, help="peak learning rate at width 768; grows with the inverse width")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")


class Bottleneck(nn.Module):
    """``up(relu(down(x)))`` with ``up`` started at zero, so that it changes nothing at first."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, D)`` to ``(B, T, D)``."""
        return self.up(self.down(x).relu())


class Beside(nn.Module):
    """A frozen MLP and ``scale`` times a bottleneck on the same normalised input."""

    def __init__(self, mlp: nn.Module, bottleneck: Bottleneck, scale: float):
        super().__init__()
        self.mlp, self.bottleneck, self.scale = mlp, bottleneck, scale

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, D)`` to ``(B, T, D)``."""
        return self.mlp(x) + self.scale * self.bottleneck(x)


class Adapter(TowerTuner):
    """A twin whose vision blocks have a bottleneck beside their MLP."""

    tunes_text = False

    def __init__(self, config: AdapterConfig, setting: TunerContext):
        super().__init__(config, setting)
        self.tuned, vision = self.backbone.twin(), self.backbone.vision
        self.stage = first_block(len(vision.blocks), config.last_blocks)
        blocks: Any = self.tuned.vision.blocks[self.stage :]
        added = [Bottleneck(vision.width, config.d).to(self.backbone.device) for _ in blocks]
        for block, bottleneck in zip(blocks, added, strict=True):
            block.mlp = Beside(block.mlp, bottleneck, config.bottleneck_scale)
        self.bottlenecks = nn.ModuleList(added)


def count(shape: Any, config: AdapterConfig, K: int, N: int) -> int:
    """L(2·Dv·d + d + Dv) with L tuned blocks."""
    layers = shape.vision_layers - first_block(shape.vision_layers, config.last_blocks)
    return layers * (2 * shape.vision_width * config.d + config.d + shape.vision_width)


register(
    MethodSpec(
        id="adapter",
        name="Adapter",
        family="weights",
        sentence="Puts a small trained two-layer network beside each MLP of the image tower.",
        use_when="Only the image side has to learn, and LoRA at the same cost was not enough.",
        equation="x + MLP(n) + scale·up(relu(down(n))),  n = norm(x)",
        paper="Chen et al. 2022, AdaptFormer, arXiv 2205.13535; Houlsby et al. 2019, arXiv 1902.00751",
        config=AdapterConfig,
        tuner=lambda: Adapter,
        count=count,
        formula="L(2·Dv·d + d + Dv)",
        runs_on="image@k",
        failures=(
            "The text tower stays as it is, so a label that CLIP does not understand is learned from images only.",
        ),
        saved="the bottlenecks",
        starts_at="zero_shot_ensemble",
        needs=frozenset({VISION_TOKENS}),
        presets={"budget": lambda shots: AdapterConfig()},
    )
)
