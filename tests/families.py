"""Tiny random backbones of every family, with the library's own model beside each.

The library's model is a copy made before the backbone splits its attention layers.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.backbones import hf_siglip, openclip
from engine.backbones.base import Backbone
from engine.backbones.loading import hash_weights
from tests.tiny import TRUNK, make_tiny

IMAGE = 32
SIGLIP_WORDS = ("a", "photo", "of", "red", "green", "blue", "square", "cat", "fire", "truck", "thing")
OPEN_CLIP = ("vit", "custom", "siglip_timm", "eva", "mobileclip", "hybrid", "resnet")
"""open_clip's: inline text and ViT; ``CustomTextCLIP`` with an averaging ViT; timm's SigLIP; PE-Core's
EVA; FastViT; MobileCLIP-B's hybrid; a ResNet, which is taken as a whole."""


def widen(model: nn.Module) -> None:
    """Make random weights so large that images and texts differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "norm" not in name:
                parameter.mul_(2)


def sentencepiece_tokenizer(folder: Path, context: int, tokenizer_class: str | None = None) -> Any:
    """A unigram tokenizer in a folder, as SigLIP's checkpoints have one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    pieces = ["▁" + word for word in SIGLIP_WORDS] + ["▁", ".", ","] + list("abcdefghijklmnopqrstuvwxyz")
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)] + [(p, -1.0 if len(p) > 2 else -5.0) for p in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=context
    )
    fast.save_pretrained(folder)
    if tokenizer_class:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": tokenizer_class}))
    return AutoTokenizer.from_pretrained(folder) if not tokenizer_class else fast


def siglip_model(tokenizer: Any, context: int = 20) -> Any:
    """A random ``SiglipModel`` of three layers."""
    from transformers import SiglipConfig, SiglipModel

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    widen(model)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
        model.logit_bias.fill_(-3.0)
    return model


def make_siglip(folder: Path) -> hf_siglip.HFSiglip:
    """A tiny SigLIP whose files also lie in ``folder``."""
    from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

    tokenizer = sentencepiece_tokenizer(folder, 20)
    model = siglip_model(tokenizer)
    processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    for part in (model, processor):
        part.save_pretrained(folder)
    return hf_siglip.HFSiglip(model, tokenizer, processor, "tiny-siglip", hash_weights(model), hf_siglip.canonical)


def timm_trunk(kind: str, embedding: int) -> nn.Module:
    """A small trunk of the class that open_clip would make by a timm name."""
    from timm.models.eva import Eva
    from timm.models.fastvit import FastVit, RepConditionalPosEnc
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed

    if kind == "siglip_timm":
        return VisionTransformer(
            img_size=IMAGE,
            patch_size=8,
            embed_dim=embedding,
            depth=3,
            num_heads=2,
            mlp_ratio=2,
            class_token=False,
            global_pool="map",
            num_classes=0,
        )
    if kind == "eva":
        return Eva(
            img_size=IMAGE,
            patch_size=8,
            embed_dim=24,
            depth=3,
            num_heads=2,
            mlp_ratio=2,
            global_pool="map",
            attn_type="rope",
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(4, 4),
            rope_grid_offset=1.0,
            rope_grid_indexing="xy",
            attn_pool_num_heads=2,
            attn_pool_mlp_ratio=2,
            num_classes=embedding,
        )
    if kind == "hybrid":
        stem = ConvStem(channels=(8, 8, 24), stride=(2, 2, 2), kernel_size=(2, 2, 2), padding=0, act_layer=nn.GELU)
        return VisionTransformer(
            img_size=IMAGE,
            patch_size=1,
            embed_dim=24,
            depth=3,
            num_heads=2,
            mlp_ratio=2,
            no_embed_class=True,
            num_classes=embedding,
            embed_layer=lambda **settings: HybridEmbed(stem, proj=False, **settings),
        )
    return FastVit(
        layers=(1, 1, 1),
        embed_dims=(32, 32, 64),
        mlp_ratios=(2, 2, 2),
        token_mixers=("repmixer", "repmixer", "attention"),
        downsamples=(False, True, True),
        se_downsamples=(False, False, False),
        pos_embs=(None, None, lambda dim, **settings: RepConditionalPosEnc(dim, dim, **settings)),
        num_classes=embedding,
        layer_scale_init_value=1.0,
    )


TEXT = {"context_length": 20, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 3, "mlp_ratio": 2.0}
VISION = {"layers": 3, "width": 24, "head_width": 12, "patch_size": 8, "image_size": IMAGE, "mlp_ratio": 2.0}


def open_clip_config(kind: str) -> dict[str, Any]:
    """The ``model_cfg`` of the kind ``vit``, as open_clip writes it."""
    assert kind == "vit"
    return {"embed_dim": 24, "quick_gelu": True, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}


def save_open_clip(kind: str, folder: Path) -> Path:
    """A folder in open_clip's layout, with means and deviations of its own."""
    from safetensors.torch import save_file

    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": open_clip_config(kind), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip_model(kind).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def open_clip_model(kind: str) -> Any:
    """A random model of one of ``OPEN_CLIP``."""
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.timm_model import TimmModel

    text: dict[str, Any] = dict(TEXT)
    vision: dict[str, Any] = dict(VISION)
    torch.manual_seed(0)
    if kind == "vit":
        model = CLIP(24, vision, text, quick_gelu=True)
    elif kind == "resnet":
        model = CLIP(24, vision | {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16}, text)
    elif kind == "custom":
        averaging = vision | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}
        model = CustomTextCLIP(24, averaging, text | {"pool_type": "eos", "eos_id": 49407})
    else:
        extra = {
            "siglip_timm": {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "vocab_size": 64},
            "mobileclip": {"no_causal_mask": True},
        }.get(kind, {})
        model = CustomTextCLIP(24, vision, text | extra, init_logit_bias=-10 if kind == "siglip_timm" else None)
        visual = TimmModel("test_vit", 24, IMAGE, pool="token", proj=None)
        visual.trunk, visual.head = timm_trunk(kind, 24), nn.Sequential()
        model.visual = visual
    model.eval()
    settle(model.visual)
    widen(model)
    return model


@torch.no_grad()
def settle(visual: nn.Module) -> None:
    """Give batch norms statistics of their own, so that folding them is no identity."""
    for module in visual.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.7, 1.4)
            module.weight.uniform_(0.7, 1.4)
            module.bias.uniform_(-0.2, 0.2)


def open_clip_transform(**settings: Any) -> Any:
    """open_clip's evaluation transform."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**{"size": IMAGE, **settings}), is_train=False)


def open_clip_tokenizer(kind: str, folder: Path) -> Any:
    """The tokenizer of a kind; SigLIP's lies in ``folder``."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if kind != "siglip_timm":
        return SimpleTokenizer(context_length=20)
    sentencepiece_tokenizer(folder, 20)
    return HFTokenizer(str(folder), context_length=20, clean="canonicalize")


def make_open_clip(kind: str, folder: Path) -> tuple[openclip.OpenClip, Any]:
    """(backbone, open_clip's own model) of a kind."""
    model = open_clip_model(kind)
    own = copy.deepcopy(model)
    backbone = openclip.OpenClip(model, open_clip_tokenizer(kind, folder), open_clip_transform(), f"tiny-{kind}")
    return backbone, own


TRANSFORMERS: dict[str, Callable[[Path], Backbone]] = {
    "trunk": lambda folder: make_tiny(id="tiny-trunk", **TRUNK),
    "siglip": make_siglip,
}
"""Kind -> its tiny backbone, made with a folder of its own. A new family has a row here: every method runs on it."""
KINDS = (*TRANSFORMERS, *OPEN_CLIP)
"""All families but plain CLIP's, which most tests run on."""


def make(kind: str, folder: Path) -> Backbone:
    """Return the tiny backbone of a kind."""
    return TRANSFORMERS[kind](folder) if kind in TRANSFORMERS else make_open_clip(kind, folder)[0]
