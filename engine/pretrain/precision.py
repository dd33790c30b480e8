"""What stays in full precision under autocast on a CPU: attention and depthwise convolutions; how attention is run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

FULL_PRECISION_ATTENTION = "sdpa_fp32"


def full_precision_attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    """Attention in fp32 under CPU autocast: its bf16 backward pass is ten times slower (measured)."""
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.to(dtype), key.to(dtype), value.to(dtype), mask, **options)


def attend_without_plans() -> None:
    """Keep attention on a GPU away from cuDNN, which plans every new shape for a second: texts differ in number and
    length from step to step."""
    torch.backends.cuda.enable_cudnn_sdp(False)


AttentionInterface.register(FULL_PRECISION_ATTENTION, full_precision_attention)
AttentionMaskInterface.register(FULL_PRECISION_ATTENTION, sdpa_mask)


class FullPrecision:
    """Mixed into the class of a convolution that runs in fp32 under CPU autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's own, in fp32."""
        if x.device.type != "cpu":
            return super().forward(x)  # type: ignore[misc]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())  # type: ignore[misc]


def full_precision_depthwise(model: nn.Module) -> None:
    """Let the depthwise convolutions of ``model`` run in fp32 under CPU autocast: in bf16 their 5 x 5 backward pass
    takes three times as long (measured)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            kind = type(module)
            module.__class__ = type(f"FullPrecision{kind.__name__}", (FullPrecision, kind), {})
