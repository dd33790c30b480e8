"""The whole way from an image's bytes to probabilities as one module, which can be traced for any method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, PIXELS, Backbone
from engine.backbones.hf_base import HFBackbone
from engine.export.files import Source
from engine.tuning.tuner import Tuner

SHORTEST, SQUASH = "shortest", "squash"
"""How an image becomes a square: its shortest side is brought to size and the middle cut out, or both sides are."""


class Scorer(nn.Module):
    """Maps an image ``(1, 3, S, S)`` of uint8 to two rows of probabilities ``(1, K)``: tuned, and zero-shot.

    What comes before the first thing that the method changes runs once for both.
    """

    def __init__(self, source: Source):
        super().__init__()
        self.tuner: Tuner = source.tuner
        self.backbone: Backbone = source.setting.backbone
        self.frozen: nn.Module = self.backbone.model
        self.ensemble: Tensor = source.setting.ensemble
        with torch.no_grad():
            self.text = source.tuner.text_features()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both rows of probabilities."""
        vision, stage = self.backbone.vision, self.tuner.stage
        shared = vision.advance(self.backbone.normalise(pixels), PIXELS, stage)
        tuned = self.tuner.outputs(shared, self.text)[0]
        zero_shot = self.backbone.logits(vision.advance(shared, stage, FEATURES), self.ensemble)
        return self.backbone.probabilities(tuned), self.backbone.probabilities(zero_shot)


def preprocessing(backbone: Any) -> dict[str, Any]:
    """Return how an image becomes the square that the model reads: ``size`` in pixels, ``resize`` (``SHORTEST`` or
    ``SQUASH``), ``interpolation``."""
    size = backbone.shape.image_size
    if isinstance(backbone, HFBackbone):
        cropped = "shortest_edge" in dict(backbone.processor.size)
        kind = {0: "nearest", 2: "bilinear", 3: "bicubic"}.get(int(backbone.processor.resample), "bicubic")
        return {"size": size, "resize": SHORTEST if cropped else SQUASH, "interpolation": kind}
    config = backbone.model.visual.preprocess_cfg if hasattr(backbone.model.visual, "preprocess_cfg") else {}
    squashed = config.get("resize_mode", SHORTEST) == SQUASH
    return {
        "size": size,
        "resize": SQUASH if squashed else SHORTEST,
        "interpolation": config.get("interpolation", "bicubic"),
    }
