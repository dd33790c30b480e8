"""What transformers' image-text models have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from engine.backbones.base import Backbone, Shape, TextTower, VisionTower, mean_position, part_sizes, without_marks
from engine.data.images import central

LINEAR_PARTS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
"""Kind of a linear layer -> its name in a block."""


class HFVisionTower(VisionTower):
    """Vision side of a transformers model; a view, it owns no weights."""

    def __init__(self, model: Any):
        self.tower = model.vision_model
        self.blocks = self.tower.encoder.layers

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    def embed_patches(self, patches: Tensor) -> Tensor:
        parts = self.tower.embeddings
        place = mean_position(parts.position_embedding.weight, parts.num_patches)
        return parts.patch_embedding(patches).flatten(1) + place  # (M, D)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None)


class HFTextTower(TextTower):
    """Text side of a transformers model; a view, it owns no weights."""

    def __init__(self, model: Any):
        self.tower = model.text_model
        self.blocks = self.tower.encoder.layers

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.tower.embeddings.token_embedding(ids)

    def add_positions(self, tokens: Tensor) -> Tensor:
        return tokens + self.tower.embeddings.position_embedding.weight[: tokens.shape[1]]

    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        return self.tower.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), at])


class HFBackbone(Backbone):
    """A transformers model with its tokenizer and image processor."""

    vision_tower: ClassVar[type[HFVisionTower]]
    text_tower: ClassVar[type[HFTextTower]]

    def __init__(self, model: Any, tokenizer: Any, processor: Any, id: str, weight_hash: str, embedding: int):
        model.eval().requires_grad_(False)
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.id, self.weight_hash = id, weight_hash
        self.vision, self.text = self.vision_tower(model), self.text_tower(model)
        vision, text = model.config.vision_config, model.config.text_config
        self.shape = Shape(
            embedding=embedding,
            vision_width=vision.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_mlp=vision.intermediate_size,
            text_mlp=text.intermediate_size,
            text_width=text.hidden_size,
            text_layers=text.num_hidden_layers,
            patch=vision.patch_size,
            image_size=vision.image_size,
            vision_tokens=(vision.image_size // vision.patch_size) ** 2 + self.vision.prefix,
            context=text.max_position_embeddings,
            vocabulary=text.vocab_size,
            parameters=sum(p.numel() for p in model.parameters()),
            vision_pooled=self.vision.projected,
            count_tokens=self.count_tokens,
            **part_sizes(model),
        )

    def replace_model(self, model: Any) -> Self:
        other = copy.copy(self)
        other.model = model
        other.vision, other.text = self.vision_tower(model), self.text_tower(model)
        return other

    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        blocks = range(first_block, len({"vision": self.vision, "text": self.text}[tower].blocks))
        return [f"{tower}_model.encoder.layers.{k}.{LINEAR_PARTS[kind]}" for k in blocks for kind in kinds]

    def decode(self, ids: Sequence[int]) -> str:
        return without_marks(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.exp().reshape(())

    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        if getattr(self.processor, "do_center_crop", False):
            images = [central(image) for image in images]
        return self.processor(list(images), do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values

    def normalise(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.processor.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.processor.image_std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std


def first_of(ids: Tensor, ends: Sequence[int | None]) -> Tensor:
    """Return the position ``(K,)`` of the first of some ids in each row of ``(K, T)``; T where there is none."""
    found = torch.isin(ids, torch.tensor([end for end in ends if end is not None], device=ids.device))
    return torch.where(found.any(-1), found.int().argmax(-1), ids.shape[1])
