"""transformers' ``CLIPModel``: the bundled Pocket CLIP, any local folder, any hub name."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from engine.backbones.base import Backbone, Shape, TextTower, VisionTower
from engine.errors import BackboneUnavailable, messages

messages(
    backbone_missing="The backbone {id} cannot be loaded: {reason}. Choose another backbone, or give the path of a "
    "folder with config.json, model.safetensors and the tokenizer's files.",
    backbone_not_clip="{id} is a {kind} model, not a CLIP model. Choose a CLIP checkpoint.",
)


class ClipVisionTower(VisionTower):
    """Vision side of a ``CLIPModel``; a view, it owns no weights."""

    def __init__(self, model: Any):
        self.tower, self.projection = model.vision_model, model.visual_projection
        self.blocks = self.tower.encoder.layers

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    def embed(self, pixels: Tensor) -> Tensor:
        return self.tower.pre_layrnorm(self.tower.embeddings(pixels))  # (B, T, D)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.tower.post_layernorm(hidden[:, 0])  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return self.projection(pooled)


class ClipTextTower(TextTower):
    """Text side of a ``CLIPModel``: causal, so tokens after the end token change nothing."""

    def __init__(self, model: Any):
        self.tower, self.projection = model.text_model, model.text_projection
        self.blocks = self.tower.encoder.layers

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.tower.embeddings.token_embedding(ids)

    def add_positions(self, tokens: Tensor) -> Tensor:
        return tokens + self.tower.embeddings.position_embedding.weight[: tokens.shape[1]]

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None, is_causal=True)

    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        return self.tower.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), at])

    def project(self, pooled: Tensor) -> Tensor:
        return self.projection(pooled)


class HFClip(Backbone):
    """A ``CLIPModel`` with its tokenizer and image processor."""

    family = "clip"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, id: str, weight_hash: str):
        model.eval().requires_grad_(False)
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.id, self.weight_hash = id, weight_hash
        self.vision, self.text = ClipVisionTower(self.model), ClipTextTower(self.model)
        vision, text = self.model.config.vision_config, self.model.config.text_config
        self.shape = Shape(
            embedding=self.model.config.projection_dim,
            vision_width=vision.hidden_size, vision_layers=vision.num_hidden_layers,
            vision_mlp=vision.intermediate_size, text_mlp=text.intermediate_size,
            text_width=text.hidden_size, text_layers=text.num_hidden_layers,
            patch=vision.patch_size, image_size=vision.image_size,
            vision_tokens=(vision.image_size // vision.patch_size) ** 2 + 1,
            context=text.max_position_embeddings, vocabulary=text.vocab_size,
            parameters=sum(p.numel() for p in self.model.parameters()),
            count_tokens=lambda text: len(tokenizer([text], verbose=False).input_ids[0]),
        )  # fmt: skip

    def replace_model(self, model: Any) -> HFClip:
        other = copy.copy(self)
        other.model = model
        other.vision, other.text = ClipVisionTower(model), ClipTextTower(model)
        return other

    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        side = {"vision": self.vision, "text": self.text}[tower]
        parts = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.out_proj",
                 "fc1": "mlp.fc1", "fc2": "mlp.fc2"}  # fmt: skip
        blocks = range(first_block, len(side.blocks))
        return [f"{tower}_model.encoder.layers.{k}.{parts[kind]}" for k in blocks for kind in kinds]

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.exp()

    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return self.processor(list(images), do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values

    def normalise(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.processor.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.processor.image_std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std

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


def hash_weights(model: nn.Module) -> str:
    """First 16 hex digits of SHA-256 over every parameter's name, shape and fp16 bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load(source: str | Path, id: str | None = None, device: str = "cpu") -> HFClip:
    """Load a folder or hub name. Raises BackboneUnavailable with the reason."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    name = id or str(source)
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "clip":
            raise BackboneUnavailable("backbone_not_clip", id=name, kind=config.model_type)
        model: Any = CLIPModel.from_pretrained(
            source, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True
        )
        tokenizer, processor = AutoTokenizer.from_pretrained(source), AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise BackboneUnavailable("backbone_missing", id=name, reason=reason) from error
    model.name_or_path = model.config._name_or_path = name  # what PEFT writes down: a name, not this machine's folder
    return HFClip(model.to(device), tokenizer, processor, name, hash_weights(model))
