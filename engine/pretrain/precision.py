"""Attention that stays in full precision under autocast on a CPU."""

from __future__ import annotations

from typing import Any

import torch
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
