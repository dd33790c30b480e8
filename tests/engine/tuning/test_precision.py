"""Which precision training steps have, and that scores stay exact under autocast."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.tuning import precision
from engine.tuning.registry import RECOMPUTED


@pytest.fixture
def bf16(monkeypatch):
    """A machine whose devices all multiply bf16 numbers."""
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)


def wide(backbone, monkeypatch, vision: int, text: int):
    monkeypatch.setattr(backbone, "shape", replace(backbone.shape, vision_width=vision, text_width=text))
    return backbone


@pytest.mark.parametrize(
    ("runs_on", "device", "chosen"),
    [
        ("both@0", "cpu", "bf16"),
        ("image@k", "cpu", "bf16"),
        ("text", "cpu", "fp32"),
        ("text", "cuda", "bf16"),
        ("features", "cuda", "fp32"),
        ("features", "cpu", "fp32"),
        ("-", "cuda", "fp32"),
    ],
)
def test_auto_takes_bf16_where_it_pays(runs_on, device, chosen, tiny, bf16, monkeypatch):
    backbone = wide(tiny, monkeypatch, vision=768, text=256)
    assert precision.choose_precision("auto", RECOMPUTED[runs_on], backbone, device) == chosen
    assert precision.choose_precision("fp32", RECOMPUTED[runs_on], backbone, device) == "fp32"
    assert precision.choose_precision("bf16", RECOMPUTED[runs_on], backbone, device) == "bf16"


def test_auto_keeps_fp32_for_narrow_towers_on_a_cpu(tiny, bf16):
    assert precision.choose_precision("auto", RECOMPUTED["both@0"], tiny) == "fp32"
    assert precision.choose_precision("auto", RECOMPUTED["both@0"], tiny, "cuda") == "bf16"


def test_convolutions_stay_in_fp32_on_a_cpu(tiny, bf16, monkeypatch):
    backbone = wide(tiny, monkeypatch, vision=1280, text=512)
    monkeypatch.setattr(backbone.vision, "has_tokens", False)
    assert precision.choose_precision("auto", RECOMPUTED["both@0"], backbone) == "fp32"
    assert precision.choose_precision("auto", RECOMPUTED["text"], backbone) == "bf16"


@pytest.mark.parametrize(("flags", "can"), [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)])
def test_a_processor_without_the_instructions_keeps_fp32(flags, can, tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    backbone = wide(tiny, monkeypatch, vision=768, text=512)
    assert precision.choose_precision("auto", RECOMPUTED["both@0"], backbone) == ("bf16" if can else "fp32")


def test_an_old_torch_keeps_fp32(tiny, monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not precision.multiplies_bf16("cpu")


def test_logits_are_exact_under_autocast(tiny):
    image, text = (torch.nn.functional.normalize(torch.randn(n, tiny.shape.embedding), dim=-1) for n in (5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(tiny.logits(image, text), tiny.scale * image @ text.T)
        under = tiny.logits(image, text)
    assert torch.equal(under, tiny.logits(image, text))
