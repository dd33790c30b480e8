"""A SAM image encoder that starts from the image tower of a CLIP of the same width and depth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from transformers import CLIPModel

PARTS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.lin1": "mlp.fc1",
    "mlp.lin2": "mlp.fc2",
}
"""A block's parts by their names in segment-anything and in transformers."""


@torch.no_grad()
def adopt_image_tower(sam: Sam, folder: Path, pixels: torch.Tensor) -> None:
    """Copy the CLIP tower in ``folder`` into ``sam.image_encoder``, in place.

    Patches are larger here: the kernel is stretched so that an enlarged image gives the same answer.
    CLIP normalises embedded patches and SAM does not: that norm is folded into kernel and positions
    with the spread measured on ``pixels (B, 3, S, S)``. Raises ValueError where the shapes differ.
    """
    tower: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).vision_model
    encoder = sam.image_encoder
    shape = (tower.config.hidden_size, tower.config.num_hidden_layers)
    if shape != (encoder.patch_embed.proj.out_channels, len(encoder.blocks)):
        raise ValueError(f"The image tower in {folder} is {shape[0]} wide and {shape[1]} deep, the encoder is not.")
    kernel = tower.embeddings.patch_embedding.weight  # (D, 3, p, p)
    new = encoder.patch_embed.proj.kernel_size[0]
    kernel = F.interpolate(kernel, size=(new, new), mode="bilinear") * (kernel.shape[-1] / new) ** 2
    places = tower.embeddings.position_embedding.weight[1:]  # (p*p, D)
    side, grid = math.isqrt(len(places)), encoder.pos_embed.shape[1]
    places = F.interpolate(places.T.reshape(1, -1, side, side), size=(grid, grid), mode="bicubic")
    embedded = F.conv2d(pixels, kernel, stride=new) + places
    spread = embedded.std(1).mean()
    norm = tower.pre_layrnorm
    encoder.patch_embed.proj.weight.copy_(kernel * (norm.weight / spread)[:, None, None, None])
    encoder.patch_embed.proj.bias.zero_()
    encoder.pos_embed.copy_((places * (norm.weight / spread)[None, :, None, None]).permute(0, 2, 3, 1) + norm.bias)
    for block, layer in zip(encoder.blocks, tower.encoder.layers, strict=True):
        for ours, theirs in PARTS.items():
            block.get_submodule(ours).load_state_dict(layer.get_submodule(theirs).state_dict())
        attention = layer.self_attn
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.qkv.weight.copy_(torch.cat([part.weight for part in three]))
        block.attn.qkv.bias.copy_(torch.cat([part.bias for part in three]))
