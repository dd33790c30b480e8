"""The precision of training steps: bf16 autocast where it saves time, otherwise fp32.

Weights, gradients and optimizer stay in fp32 either way, and everything that is reported (features,
zero-shot, the tuned model's scores) is computed in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.tuning.registry import Recomputed

WIDE = 384
"""Width of a tower from which bf16 pays on a CPU: there a ViT's step takes half the time, at 768 a third. Below it
the casts cost what the products save."""


def choose_precision(wanted: str, recomputes: Recomputed, backbone: Backbone, device: str | None = None) -> str:
    """``fp32`` or ``bf16`` for the training steps of a method on a backbone.

    ``auto`` takes bf16 where a tower is run and the device is clearly quicker with it. Heads stay in fp32: they gain
    nothing, and Tip-Adapter's sharp kernel would lose digits.

    Args:
        wanted: ``auto``, or the answer.
        recomputes: what each step of the method runs.
        device: ``cpu`` or ``cuda``; the backbone's own by default.
    """
    if wanted != "auto":
        return wanted
    device = device or backbone.device.type
    if not recomputes.towers or not multiplies_bf16(device):
        return "fp32"
    return "bf16" if device == "cuda" or width(recomputes, backbone) >= WIDE else "fp32"


def width(recomputes: Recomputed, backbone: Backbone) -> int:
    """Return the width of the transformer that takes most of a step; 0 for convolutions, which hardly gain in bf16."""
    if "vision" not in recomputes.towers:
        return backbone.shape.text_width
    return backbone.shape.vision_width if backbone.vision.has_tokens else 0


def multiplies_bf16(device: str) -> bool:
    """Return whether the device has instructions for products of bf16 numbers; on a CPU: AVX512-BF16 or AMX."""
    if device != "cpu":
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported()  # a card that is only planned for
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch: fp32
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
