"""transformers' ``CLIPModel``: the bundled Pocket CLIP, any local folder, any hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.backbones.base import PATCHES, PIXELS
from engine.backbones.hf_base import HFBackbone, HFTextTower, HFVisionTower
from engine.backbones.loading import hash_weights, load_transformers


class ClipVisionTower(HFVisionTower):
    """Vision side of a ``CLIPModel``."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.projection = model.visual_projection
        self.trunk = self.tower.embeddings.patch_embedding
        if getattr(self.trunk, "is_trunk", False):
            self.memory_format, self.first_trainable = torch.channels_last, PATCHES

    @property
    def projected(self) -> int:
        return self.projection.in_features

    def replace_projection(self, weight: Tensor) -> bool:
        self.projection.weight = torch.nn.Parameter(weight, requires_grad=False)
        return True

    def run_stem(self, pixels: Tensor) -> Tensor:
        if self.first_trainable == PIXELS:
            return pixels
        return self.trunk(pixels).flatten(2).transpose(1, 2)  # (B, T - 1, D)

    def embed(self, patches: Tensor) -> Tensor:
        parts = self.tower.embeddings
        if self.first_trainable == PIXELS:
            return self.tower.pre_layrnorm(parts(patches))  # (B, T, D)
        first = parts.class_embedding.expand(len(patches), 1, -1)
        tokens = torch.cat([first, patches], dim=1) + parts.position_embedding.weight
        return self.tower.pre_layrnorm(tokens)  # (B, T, D)

    def embed_patches(self, patches: Tensor) -> Tensor:
        return self.tower.pre_layrnorm(super().embed_patches(patches))  # (M, D)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.tower.post_layernorm(hidden[:, 0])  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return self.projection(pooled)


class ClipTextTower(HFTextTower):
    """Text side of a ``CLIPModel``: causal, so tokens after the end token change nothing."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.projection = model.text_projection

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None, is_causal=True)

    def project(self, pooled: Tensor) -> Tensor:
        return self.projection(pooled)


class HFClip(HFBackbone):
    """A ``CLIPModel`` with its tokenizer and image processor."""

    family = "clip"
    vision_tower, text_tower = ClipVisionTower, ClipTextTower

    def __init__(self, model: Any, tokenizer: Any, processor: Any, id: str, weight_hash: str):
        super().__init__(model, tokenizer, processor, id, weight_hash, model.config.projection_dim)

    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        ids = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.shape.context - reserve, return_tensors="pt"
        ).input_ids
        return ids.to(self.device)

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False).input_ids)

    def end_of(self, ids: Tensor) -> Tensor:
        end = self.tokenizer.eos_token_id
        return (ids == end).int().argmax(dim=-1)


def load(source: str | Path, id: str | None = None, device: str = "cpu") -> HFClip:
    """Load a folder or hub name. Raises BackboneUnavailable with the reason."""
    from engine.backbones.conv_stem import HybridCLIPModel

    name = id or str(source)
    model, tokenizer, processor = load_transformers(HybridCLIPModel, source, name, device)
    return HFClip(model, tokenizer, processor, name, hash_weights(model))
