"""A convolutional trunk in the place of a CLIP's patch embedding.

A CLIP whose ``vision_config`` has an entry ``conv_stem`` embeds an image by a convolutional network: a grid
of features, each of which becomes a token, and the transformer reads those. This is the hybrid of
Dosovitskiy et al. (arXiv 2010.11929, section 3.1). Everything before the first block is the same in every training
step of most methods, so the trunk runs once an image.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import CLIPConfig, CLIPModel

STRIDE = 32
"""Side in pixels of the square that one token stands for."""
LOWER = 5
"""Stages of the trunk whose output pretraining computes once and keeps."""


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Merge each batch norm into the convolution before it, in place; its activation stays.

    ``model`` is a timm network in evaluation mode. The result computes the same (to rounding), is quicker, and has no
    running statistics that training could spoil.
    """
    from timm.layers import BatchNormAct2d

    for parent in list(model.modules()):
        convolution = None
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNormAct2d) and convolution is not None:
                setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), child))
                setattr(parent, name, child.act)
            convolution = name if isinstance(child, nn.Conv2d) else None
    return model


def run_lower(network: Any, pixels: Tensor) -> Tensor:
    """Map normalised pixels ``(B, 3, S, S)`` to a folded EfficientNet's map ``(B, C, S / 16, S / 16)`` after its first
    ``LOWER`` stages."""
    return network.blocks[:LOWER](network.bn1(network.conv_stem(pixels)))


def run_upper(network: Any, hidden: Tensor) -> Tensor:
    """Map what :func:`run_lower` returns to the network's last map, ``(B, F, S / 32, S / 32)``."""
    return network.bn2(network.conv_head(network.blocks[LOWER:](hidden)))


class ConvStem(nn.Module):
    """EfficientNet-Lite, its last map of features projected to tokens.

    Args:
        name: the network's name in timm, for example ``tf_efficientnet_lite0``.
        width: size D of a token.
    """

    is_trunk = True

    def __init__(self, name: str, width: int):
        import timm  # late: it takes a second, and other backbones do without

        super().__init__()
        network: Any = timm.create_model(name, num_classes=0, global_pool="").eval()
        self.features = network.num_features
        self.trunk: Any = fold_batch_norms(network)
        self.projection = nn.Conv2d(self.features, width, 1)

    @property
    def weight(self) -> Tensor:
        """The weight whose dtype the pixels take, as transformers asks of a patch embedding."""
        return self.projection.weight

    def lower(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels ``(B, 3, S, S)`` as :func:`run_lower` does."""
        return run_lower(self.trunk, pixels)

    def upper(self, hidden: Tensor) -> Tensor:
        """Map what :meth:`lower` returns as :func:`run_upper` does."""
        return run_upper(self.trunk, hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, 3, S, S)`` to ``(B, D, S / 32, S / 32)``."""
        return self.projection(self.upper(self.lower(pixels)))


class HybridCLIPModel(CLIPModel):
    """transformers' ``CLIPModel``; with ``conv_stem`` in its vision configuration a trunk embeds the image."""

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        vision: Any = config.vision_config
        if name := getattr(vision, "conv_stem", None):
            self.vision_model.embeddings.patch_embedding = ConvStem(name, vision.hidden_size)
