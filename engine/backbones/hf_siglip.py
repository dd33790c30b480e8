"""transformers' ``SiglipModel``: SigLIP, and SigLIP 2 of one fixed size.

Trained with a sigmoid loss: every pair has its own logit ``exp(scale) cos + bias`` and its own
probability. The text tower sees all of its padded context and pools the last position; the vision
tower has no class token and pools by attention.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.backbones.hf_base import HFBackbone, HFTextTower, HFVisionTower, first_of
from engine.backbones.loading import hash_weights, load_transformers
from engine.errors import BackboneUnavailable, Note


class SiglipVisionTower(HFVisionTower):
    """Vision side of a ``SiglipModel``."""

    prefix = 0

    def embed(self, pixels: Tensor) -> Tensor:
        return self.tower.embeddings(pixels)  # (B, T, D)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.tower.head(self.tower.post_layernorm(hidden))  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled  # the attention pooling ends in the shared space


class SiglipTextTower(HFTextTower):
    """Text side of a ``SiglipModel``: not causal, so the padding belongs to the text."""

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden, None)

    def project(self, pooled: Tensor) -> Tensor:
        return self.tower.head(pooled)


class HFSiglip(HFBackbone):
    """A ``SiglipModel`` with its tokenizer and image processor."""

    family = "siglip"
    vision_tower, text_tower = SiglipVisionTower, SiglipTextTower

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, id: str, weight_hash: str, clean: Callable[[str], str] = str
    ):
        super().__init__(model, tokenizer, processor, id, weight_hash, model.config.text_config.projection_size)
        self.clean = clean
        self.tokenizer.padding_side = "right"  # as in training, whatever the file says
        first = int(self.tokenize(["x"])[0, 0])
        special = {self.tokenizer.bos_token_id, self.tokenizer.cls_token_id} - {None}
        self.start_tokens = int(first in special)

    @property
    def bias(self) -> Tensor:
        return self.model.logit_bias.reshape(())

    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        ids = self.tokenizer(
            [self.clean(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.shape.context - reserve,
            return_tensors="pt",
        ).input_ids
        return ids.to(self.device)

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(self.clean(text), verbose=False).input_ids)

    def end_of(self, ids: Tensor) -> Tensor:
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)

    def words_end(self, ids: Tensor) -> Tensor:
        return first_of(ids, [self.tokenizer.eos_token_id, self.tokenizer.pad_token_id])


def canonical(text: str) -> str:
    """Return a text as SigLIP was trained on it: lower case, no punctuation, single spaces.

    From big_vision's ``prompt_engineering.canonicalize_text``; done twice it changes nothing more.
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text).strip()


def cleaning(tokenizer_class: str) -> Callable[[str], str]:
    """Return what a text goes through before a checkpoint's tokenizer.

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
        raise BackboneUnavailable("backbone_not_clip", id=name, kind=Note("siglip_without_pooling"))
    clean = cleaning(str(get_tokenizer_config(source).get("tokenizer_class") or ""))
    return HFSiglip(model, tokenizer, processor, name, hash_weights(model), clean)
