"""transformers' ``SiglipModel``: SigLIP, and SigLIP 2 of one fixed size.

Trained with a sigmoid loss: every pair has its own logit ``exp(scale) cos + bias`` and its own
probability. The text tower sees all of its padded context and pools the last position; the vision
tower has no class token and pools by attention.
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.backbones.base import Backbone, Shape, TextTower, VisionTower, part_sizes
from engine.backbones.loading import hash_weights, load_transformers
from engine.errors import BackboneUnavailable


class SiglipVisionTower(VisionTower):
    """Vision side of a ``SiglipModel``; a view, it owns no weights."""

    prefix = 0

    def __init__(self, model: Any):
        self.tower = model.vision_model
        self.blocks = self.tower.encoder.layers

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    def embed(self, pixels: Tensor) -> Tensor:
        return self.tower.embeddings(pixels)  # (B, T, D)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.tower.head(self.tower.post_layernorm(hidden))  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled  # the attention pooling ends in the shared space


class SiglipTextTower(TextTower):
    """Text side of a ``SiglipModel``: not causal, so the padding belongs to the text."""

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

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None)

    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        return self.tower.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), at])

    def project(self, pooled: Tensor) -> Tensor:
        return self.tower.head(pooled)


class HFSiglip(Backbone):
    """A ``SiglipModel`` with its tokenizer and image processor."""

    family = "siglip"

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, id: str, weight_hash: str, clean: Callable[[str], str] = str
    ):
        model.eval().requires_grad_(False)
        self.model, self.tokenizer, self.processor, self.clean = model, tokenizer, processor, clean
        self.id, self.weight_hash = id, weight_hash
        self.tokenizer.padding_side = "right"  # as in training, whatever the file says
        vision, text = model.config.vision_config, model.config.text_config
        self.shape = Shape(
            embedding=text.projection_size,
            vision_width=vision.hidden_size, vision_layers=vision.num_hidden_layers,
            vision_mlp=vision.intermediate_size, text_mlp=text.intermediate_size,
            text_width=text.hidden_size, text_layers=text.num_hidden_layers,
            patch=vision.patch_size, image_size=vision.image_size,
            vision_tokens=(vision.image_size // vision.patch_size) ** 2,
            context=text.max_position_embeddings, vocabulary=text.vocab_size,
            parameters=sum(p.numel() for p in model.parameters()),
            **part_sizes(model),
        )  # fmt: skip
        self.vision, self.text = SiglipVisionTower(model), SiglipTextTower(model)
        first = int(self.tokenize(["x"])[0, 0])
        special = {self.tokenizer.bos_token_id, self.tokenizer.cls_token_id} - {None}
        self.start_tokens = int(first in special)

    def replace_model(self, model: Any) -> HFSiglip:
        other = copy.copy(self)
        other.model = model
        other.vision, other.text = SiglipVisionTower(model), SiglipTextTower(model)
        return other

    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        side = {"vision": self.vision, "text": self.text}[tower]
        parts = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.out_proj",
                 "fc1": "mlp.fc1", "fc2": "mlp.fc2"}  # fmt: skip
        blocks = range(first_block, len(side.blocks))
        return [f"{tower}_model.encoder.layers.{k}.{parts[kind]}" for k in blocks for kind in kinds]

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.exp().reshape(())

    @property
    def bias(self) -> Tensor:
        return self.model.logit_bias.reshape(())

    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return self.processor(list(images), do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values

    def normalise(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.processor.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.processor.image_std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        ids = self.tokenizer(
            [self.clean(text) for text in texts], padding="max_length", truncation=True,
            max_length=self.shape.context - reserve, return_tensors="pt",
        ).input_ids  # fmt: skip
        return ids.to(self.device)

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(self.clean(text), verbose=False).input_ids)

    def end_of(self, ids: Tensor) -> Tensor:
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)

    def words_end(self, ids: Tensor) -> Tensor:
        return first_of(ids, [self.tokenizer.eos_token_id, self.tokenizer.pad_token_id])


def first_of(ids: Tensor, ends: Sequence[int | None]) -> Tensor:
    """Position ``(K,)`` of the first of some ids in each row of ``(K, T)``; T where there is none."""
    found = torch.isin(ids, torch.tensor([end for end in ends if end is not None], device=ids.device))
    return torch.where(found.any(-1), found.int().argmax(-1), ids.shape[1])


def canonical(text: str) -> str:
    """A text as SigLIP was trained on it: lower case, no punctuation, single spaces.

    From big_vision's ``prompt_engineering.canonicalize_text``; done twice it changes nothing more.
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text).strip()


def cleaning(tokenizer_class: str) -> Callable[[str], str]:
    """What a text goes through before a checkpoint's tokenizer.

    ``SiglipTokenizer`` canonicalises by itself, but not where its tokenizer.json is read without
    it; SigLIP 2 was trained on Gemma's tokens of lower-cased text.
    """
    if tokenizer_class.startswith("SiglipTokenizer"):
        return canonical
    return str.lower if tokenizer_class.startswith(("Gemma", "Siglip2")) else str


def load(source: str | Path, id: str | None = None, device: str = "cpu") -> HFSiglip:
    """Load a folder or hub name. Raises BackboneUnavailable with the reason."""
    from transformers import SiglipModel
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    name = id or str(source)
    model, tokenizer, processor = load_transformers(SiglipModel, source, name, device)
    if not model.config.vision_config.vision_use_head:
        raise BackboneUnavailable("backbone_not_clip", id=name, kind="SigLIP vision tower without pooling")
    clean = cleaning(str(get_tokenizer_config(source).get("tokenizer_class") or ""))
    return HFSiglip(model, tokenizer, processor, name, hash_weights(model), clean)
