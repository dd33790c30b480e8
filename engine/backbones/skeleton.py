"""Backbones without their weights: enough to forecast what a run will need, before any download."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from engine.backbones import catalog, entries, hf_clip
from engine.backbones.base import Backbone
from engine.errors import BackboneUnavailable, Note
from engine.paths import local_path

LARGE = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
GELU = {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}
CONFIGS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-base-patch32": {},
    "openai/clip-vit-base-patch16": {"vision_config": {"patch_size": 16}},
    "openai/clip-vit-large-patch14": LARGE,
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": GELU,
}
"""What differs from transformers' ``CLIPConfig``, whose defaults are ViT-B/32."""


class WordCounter:
    """Stands in for a tokenizer that is not here: ids of the right number, one a word or sign.

    CLIP's own tokenizer splits rare words further, so real sentences may be some tokens longer.
    """

    eos_token_id = 1

    def __call__(self, texts: Sequence[str] | str, max_length: int = 77, **_: Any) -> SimpleNamespace:
        import re

        rows = [texts] if isinstance(texts, str) else texts
        words = [min(max_length, 2 + len(re.findall(r"\w+|[^\w\s]", text))) for text in rows]
        ids = torch.full((len(words), max(words)), self.eos_token_id)
        for row, count in zip(ids, words, strict=True):
            row[: count - 1] = 0
        return SimpleNamespace(input_ids=ids[0] if isinstance(texts, str) else ids)


def meta_backbone(id: str) -> Backbone:
    """Return a backbone for :func:`engine.costs.forecast.forecast` by the id that ``catalog.load`` takes.

    Weights are neither read nor downloaded where a CLIP's sizes are known or its config is on this machine; other
    backbones are loaded. Raises BackboneUnavailable.
    """
    if id in CONFIGS:
        from transformers import CLIPConfig

        return on_meta(id, CLIPConfig(**CONFIGS[id]), WordCounter())
    folder = local_path(id)
    if id == entries.POCKET or (folder and not (folder / "config.json").exists()):
        return catalog.load(id, "cpu")  # which says what the folder lacks
    from transformers import AutoConfig, AutoTokenizer

    source = folder or id
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BackboneUnavailable("backbone_missing", id=id, reason=Note("sizes_unknown")) from error
    return on_meta(id, config, tokenizer) if config.model_type == "clip" else catalog.load(id, "cpu")


def on_meta(id: str, config: Any, tokenizer: Any) -> hf_clip.HFClip:
    """Return a CLIP of this config whose weights have sizes and no data."""
    from engine.backbones.conv_stem import HybridCLIPModel

    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = HybridCLIPModel(config)
    return hf_clip.HFClip(model, tokenizer, None, id, "outline")
