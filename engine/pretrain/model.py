"""Pocket CLIP's recipe and shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from engine.pretrain.precision import FULL_PRECISION_ATTENTION
from engine.pretrain.training import BaseRecipe


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Everything that decides the weights."""

    batch_size: int = 512
    muon_lr: float = 2e-3
    vision_width: int = 192
    vision_layers: int = 6
    text_width: int = 160
    text_layers: int = 3
    vision_heads: int = 3
    text_heads: int = 5
    embedding: int = 256
    patch: int = 8
    image_size: int = 56
    """Side in pixels of the finished model."""
    small_size: int = 32
    """Side in pixels during the first part of training."""
    small_share: float = 0.6
    """Share of training spent at ``small_size``."""
    min_area: float = 0.4
    """Smallest crop, as a share of the image's area."""
    jitter: float = 0.2
    """Largest change of brightness, contrast and saturation, as a share."""
    context: int = 40
    """Longest text in tokens."""

    @classmethod
    def preset(cls, device: str, **changes: Any) -> Recipe:
        """Defaults for a machine: a GPU sees each image hundreds of times, so it gets larger batches
        and stronger augmentation."""
        if device.startswith("cuda"):
            gpu = {"minutes": 25.0, "batch_size": 2048, "min_area": 0.2, "jitter": 0.4, "small_share": 0.4}
            changes = {**gpu, "weight_decay": 0.1, "ema": 0.998, **changes}
        return cls(**changes)


def build_model(recipe: Recipe, vocabulary: int, size: int) -> Any:
    """Randomly initialised CLIP of the recipe's shape for images of ``size`` pixels."""
    text = {
        "vocab_size": vocabulary, "hidden_size": recipe.text_width, "intermediate_size": 4 * recipe.text_width,
        "num_hidden_layers": recipe.text_layers, "num_attention_heads": recipe.text_heads, "hidden_act": "gelu",
        "max_position_embeddings": recipe.context, "projection_dim": recipe.embedding,
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": recipe.vision_width, "intermediate_size": 4 * recipe.vision_width,
        "num_hidden_layers": recipe.vision_layers, "num_attention_heads": recipe.vision_heads, "hidden_act": "gelu",
        "image_size": size, "patch_size": recipe.patch, "projection_dim": recipe.embedding,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.embedding)
    config._attn_implementation = FULL_PRECISION_ATTENTION
    return CLIPModel(config)


def grow(model: Any, recipe: Recipe, size: int) -> Any:
    """The same model for images of another size: position embeddings are interpolated."""
    bigger = build_model(recipe, model.config.text_config.vocab_size, size)
    state = model.state_dict()
    key = "vision_model.embeddings.position_embedding.weight"
    positions = state[key]
    side, new = math.isqrt(len(positions) - 1), size // recipe.patch
    grid = positions[1:].T.reshape(1, -1, side, side)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    state[key] = torch.cat([positions[:1], grid.reshape(grid.shape[1], -1).T])
    state.pop("vision_model.embeddings.position_ids", None)
    try:
        bigger.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"The weights to go on from do not have this recipe's shape: {error}") from error
    return bigger
