"""Attention with a linear layer each for query, key, value and output.

open_clip's ``nn.MultiheadAttention`` and timm's ``qkv`` hold the three projections in one matrix,
so no method could change just one of them (PEFT's LoRA on ``nn.MultiheadAttention`` always covers
all). Splitting the rows of that matrix gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer that holds copies of these values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


class SplitAttention(nn.Module):
    """``nn.MultiheadAttention`` (self-attention, batch first) with separate projections."""

    def __init__(self, joint: nn.MultiheadAttention):
        super().__init__()
        self.heads, self.dropout = joint.num_heads, joint.dropout
        weights = joint.in_proj_weight.chunk(3)
        biases = joint.in_proj_bias.chunk(3) if joint.in_proj_bias is not None else (None, None, None)
        self.q, self.k, self.v = (linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.out = linear(joint.out_proj.weight, joint.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """``(B, T, D)`` each to ``(B, T, D)``; ``attn_mask (T, T)`` or ``(B * H, T, T)`` is added to the scores."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
            for layer, x in ((self.q, query), (self.k, key), (self.v, value))
        )
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.heads))  # (B, H, T, T)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(mixed.transpose(1, 2).flatten(2)), None


class SplitProjection(nn.Module):
    """timm's joint ``qkv`` layer as three; its output is theirs side by side."""

    def __init__(self, joint: nn.Linear, bias: Tensor | None):
        super().__init__()
        weights = joint.weight.chunk(3)
        biases = bias.chunk(3) if bias is not None else (None, None, None)
        self.q, self.k, self.v = (linear(w, b) for w, b in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, D)`` to ``(B, T, 3 D)``."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def join_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict whose split projections are joined again under the names that open_clip and timm know."""
    joined = dict(state)
    for name in state:
        place, _, part = name.rpartition(".q.")
        if not place or part not in ("weight", "bias") or f"{place}.k.{part}" not in state:
            continue
        rows = torch.cat([joined.pop(f"{place}.{kind}.{part}") for kind in "qkv"])
        if f"{place}.out.weight" in state:  # of SplitAttention; timm's qkv has no output layer of its own
            joined[f"{place}.in_proj_{part}"] = rows
            joined[f"{place}.out_proj.{part}"] = joined.pop(f"{place}.out.{part}")
        else:
            joined[f"{place}.{part}"] = rows
    return joined


def splittable(module: nn.Module) -> bool:
    """Return whether a module is a plain self-attention of ``nn.MultiheadAttention``."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and module.in_proj_weight is not None
        and module.batch_first
        and module.bias_k is None
        and not module.add_zero_attn
    )


def split_block(block: Any) -> None:
    """Replace the joint projections inside one block of open_clip or timm."""
    for name, child in list(block.named_children()):
        if splittable(child):
            setattr(block, name, SplitAttention(child))
        elif name == "qkv" and isinstance(child, nn.Linear):
            bias: Tensor | None = child.bias
            if getattr(block, "q_bias", None) is not None:  # EVA keeps the biases beside the layer
                bias = torch.cat([block.q_bias, block.k_bias, block.v_bias])
                block.q_bias = block.v_bias = None
            block.qkv = SplitProjection(child, bias)
        else:
            split_block(child)
