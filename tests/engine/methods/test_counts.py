"""Exact trainable counts on a randomly initialised ViT-B/32 (151,277,313 parameters), K=10, N=40."""

from __future__ import annotations

import pytest
import torch

from engine.backbones import hf_clip
from engine.methods.peft_table import ROWS
from engine.tuning import registry
from engine.tuning.tuner import TunerContext
from engine.types import Label

CONTEXT_TOKENS = 19
"""Tokens of the default context's 19 words in Pocket CLIP's vocabulary, which has each of them."""

EXACT = [
    ("zero_shot", "budget", 0),
    ("zero_shot_ensemble", "budget", 0),
    ("linear_probe", "budget", 5_130),
    ("gda", "budget", 0),
    ("ape", "budget", 0),
    ("taskres", "budget", 5_120),
    ("clap", "budget", 5_120),
    ("cross_modal", "budget", 5_120),
    ("lp_plus_plus", "budget", 5_130),
    ("tip_adapter", "budget", 0),
    ("tip_adapter_f", "budget", 20_480),
    ("clip_adapter", "budget", 131_072),
    ("prompt_tuning", "budget", 2_048),
    ("prompt_tuning", "paper", 8_192),
    ("conditional_prompt", "budget", 35_360),
    ("conditional_prompt", "paper", 35_360),
    ("p_tuning", "budget", 8 * 512 + 513 * 128 + 129 * 128 + 129 * 512),
    ("prefix_tuning", "budget", 4 * 512 + 513 * 128 + 129 * 12 * 2 * 512),
    ("multitask_prompt", "budget", 4 * 512 + 4 + 512),
    ("multitask_prompt", "paper", 16 * 512 + 16 + 512),
    ("context_prompt", "budget", CONTEXT_TOKENS * 512),
    ("visual_prompt", "budget", 3_840),
    ("visual_prompt_deep", "budget", 46_080),
    ("image_prompt", "budget", 12_288),
    ("image_prompt", "paper", 69_840),
    ("lora", "budget", 491_520),
    ("lora", "paper", 184_320),
    ("full", "budget", 151_277_313),
    ("distill", "budget", 491_520),
    ("prolip", "budget", 393_216),
    ("adapter", "budget", 1_189_632),
    ("norm_tuning", "budget", 65_536),
    ("bias_tuning", "budget", 171_008),
]

SAVED = [("p_tuning", 8 * 512), ("prefix_tuning", 49_152)]
"""Numbers in the adapter file where an encoder is dropped after training."""


@pytest.fixture(scope="module")
def setting(tiny) -> TunerContext:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig())
    backbone = hf_clip.HFClip(model, tiny.tokenizer, tiny.processor, "vit-b-32", "none")
    features = torch.nn.functional.normalize(torch.randn(10, 512), dim=-1)
    labels = tuple(Label(f"thing {k}", f"thing {k}") for k in range(10))
    return TunerContext(
        backbone,
        labels,
        ("a photo of a {}.",),
        features,
        features,
        support=features.repeat(4, 1),
        targets=torch.arange(10).repeat(4),
    )


@pytest.mark.parametrize(("method", "preset", "count"), EXACT)
def test_count_on_vit_b_32(method, preset, count, setting):
    spec = registry.get(method)
    config = spec.presets[preset](4)
    assert spec.count(setting.backbone.shape, config, 10, 40) == count
    tuner = spec.tuner()(config, setting)
    assert sum(p.numel() for p in tuner.trained().values()) == count


@pytest.mark.parametrize(("method", "count"), SAVED)
def test_saved_on_vit_b_32(method, count, setting):
    spec = registry.get(method)
    tuner = spec.tuner()(spec.configure(), setting).finished()
    assert sum(tensor.numel() for tensor in tuner.saved().values()) == count


def test_every_method_is_in_the_table():
    assert {method for method, _, _ in EXACT} | set(ROWS) == {spec.id for spec in registry.methods()}


LINEAR = 12 * 2 * (768 + 512)
"""Outputs of all q and v layers; as many inputs."""
BY_HAND = {
    "dora": 8 * 2 * LINEAR + LINEAR,
    "adalora": 12 * (2 * LINEAR + 48),
    "ia3": LINEAR + 12 * (3072 + 2048),
    "vera": 256 * 48 + LINEAR,
    "loha": 4 * 8 * LINEAR,
    "oft": LINEAR * 31 // 2,
    "boft": LINEAR * 4 + LINEAR,
    "fourierft": 1000 * 48,
    "hra": 8 * LINEAR,
    "miss": 64 * LINEAR,
    "road": LINEAR,
    "c3a": 12 * 2 * (768**2 + 512**2) // 64,
    "vblora": 64 * 64 + 4 * 64 * 2 * LINEAR // 64,
    "delora": 8 * 2 * LINEAR + 48,
    "gralora": 8 * 2 * LINEAR,
    "waveft": 1000 * 48,
    "pvera": 2 * 256 * 48 + LINEAR,
    "unilora": 4096,
    "hira": 8 * 2 * LINEAR,
    "glora": 2 * 4 * 2 * LINEAR,
    "peanut": 2 * 8 * LINEAR,
    "deft": 8 * 2 * LINEAR,
    "psoft": 48 * (32 * 31 // 2 + 2 * 32),
    "tinylora": 64 * 48,
    "osf": 12 * 2 * (77 * (2 * 768 + 1) + 52 * (2 * 512 + 1)),  # a tenth of 768 and of 512, rounded up
    "supertuning": 12 * 2 * (768**2 // 100 + 512**2 // 100),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_count_of_pefts_tuners_on_vit_b_32(method, setting):
    spec = registry.get(method)
    assert spec.count(setting.backbone.shape, spec.configure(), 10, 40) == BY_HAND[method]
