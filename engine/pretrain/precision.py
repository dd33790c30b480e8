"""Mixed precision where it is faster."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

FULL_PRECISION_ATTENTION = "sdpa_fp32"


def full_precision_attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    """Attention in fp32 under CPU autocast: its bf16 backward pass is ten times slower (measured)."""
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.to(dtype), key.to(dtype), value.to(dtype), mask, **options)


AttentionInterface.register(FULL_PRECISION_ATTENTION, full_precision_attention)
AttentionMaskInterface.register(FULL_PRECISION_ATTENTION, sdpa_mask)


def bf16_is_faster(device: str) -> bool:
    """Whether bf16 matrix products beat fp32 clearly here: on CUDA yes, on a CPU it is measured."""
    if device != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(4096, 256).to(dtype), torch.randn(1024, 256).to(dtype)
        runs = []
        for _ in range(5):
            started = time.perf_counter()
            F.linear(a, b)
            runs.append(time.perf_counter() - started)
        seconds[dtype] = min(runs)
    return seconds[torch.bfloat16] < 0.7 * seconds[torch.float32]
