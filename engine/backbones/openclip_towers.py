"""open_clip's encoders as towers: its own transformers, timm's ViTs and FastViT's convolutions.

An encoder of any other kind (ResNet, a text model of transformers) is taken as a whole: heads and
full fine-tuning work on it, methods that reach inside do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import TextTower, VisionTower, mean_position

BLOCK_NAMES = MappingProxyType(
    {"q": "attn.q", "k": "attn.k", "v": "attn.v", "out": "attn.out", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
)
"""Linear layers of open_clip's blocks by kind, once their attention is split."""


class OpenClipText(TextTower):
    """open_clip's text transformer, whether its parts are the model's own or those of ``model.text``."""

    names = BLOCK_NAMES

    def __init__(self, holder: Any, path: str):
        self.holder, self.path = holder, path
        self.blocks = holder.transformer.resblocks

    @property
    def width(self) -> int:
        return self.holder.positional_embedding.shape[1]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.holder.token_embedding(ids)

    def add_positions(self, tokens: Tensor) -> Tensor:
        return tokens + self.holder.positional_embedding[: tokens.shape[1]]

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        mask, length = self.holder.attn_mask, hidden.shape[1]
        return self.blocks[k](hidden, attn_mask=None if mask is None else mask[:length, :length])

    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        return self.holder.ln_final(hidden[torch.arange(len(hidden), device=hidden.device), at])

    def project(self, pooled: Tensor) -> Tensor:
        projection = self.holder.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


class WholeText(TextTower):
    """A text encoder that is only ever run from ids to features."""

    has_tokens = False
    blocks: Sequence[nn.Module] = ()
    path = ""
    names: Mapping[str, str] = MappingProxyType({})

    def __init__(self, model: Any):
        self.model = model

    @property
    def width(self) -> int:
        return 0

    def encode_ids(self, ids: Tensor, at: Tensor) -> Tensor:
        return F.normalize(self.model.encode_text(ids, normalize=False), dim=-1)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        raise NotImplementedError("this text encoder offers no tokens")

    def add_positions(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError("this text encoder offers no tokens")

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        raise IndexError(k)

    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        return hidden

    def project(self, pooled: Tensor) -> Tensor:
        return pooled


@dataclass(frozen=True)
class VisionShape:
    """The vision part of a :class:`engine.backbones.base.Shape`."""

    width: int
    layers: int
    mlp: int
    patch: int
    tokens: int
    linears: tuple[tuple[tuple[str, int, int], ...], ...] | None = field(default=None)


class OpenClipVit(VisionTower):
    """open_clip's ``VisionTransformer``."""

    path = "visual.transformer.resblocks"
    names = BLOCK_NAMES

    def __init__(self, visual: Any):
        self.visual = visual
        self.blocks = visual.transformer.resblocks

    @property
    def width(self) -> int:
        return self.visual.positional_embedding.shape[1]

    @property
    def projected(self) -> int:
        return 0 if self.visual.proj is None else self.visual.proj.shape[0]

    def replace_projection(self, weight: Tensor) -> bool:
        self.visual.proj = nn.Parameter(weight.T.contiguous(), requires_grad=False)
        return True

    def embed(self, pixels: Tensor) -> Tensor:
        return self.visual._embeds(pixels)  # (B, T, D)

    def embed_patches(self, patches: Tensor) -> Tensor:
        positions = self.visual.positional_embedding
        place = mean_position(positions, len(positions) - self.prefix)
        return self.visual.ln_pre(self.visual.conv1(patches).flatten(1) + place)  # (M, D)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden)

    def pool(self, hidden: Tensor) -> Tensor:
        if self.visual.pool_type == "avg" and self.visual.attn_pool is None:
            hidden = without_prompts(hidden, self.prefix, len(self.visual.positional_embedding))
        return self.visual._pool(hidden)[0]

    def project(self, pooled: Tensor) -> Tensor:
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def shape(self) -> VisionShape:
        """Its sizes."""
        mlp, patch = out_features(self.blocks[0], "mlp.c_fc"), self.visual.patch_size[0]
        tokens, linears = len(self.visual.positional_embedding), linear_sizes(self.blocks, self.names)
        return VisionShape(self.width, len(self.blocks), mlp, patch, tokens, linears)


class TimmVit(VisionTower):
    """timm's ``VisionTransformer`` (SigLIP, MobileCLIP-B) and ``Eva`` (PE-Core) in open_clip."""

    path = "visual.trunk.blocks"

    def __init__(self, visual: Any):
        self.visual, self.trunk = visual, visual.trunk
        self.blocks, self.prefix = self.trunk.blocks, self.trunk.num_prefix_tokens
        self.rope = getattr(self.trunk, "rope", None)
        self.patches = self.trunk.patch_embed.num_patches
        self.names = {"out": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
        joint = getattr(self.blocks[0].attn, "qkv", None) is not None
        self.names |= {kind: f"attn.qkv.{kind}" if joint else f"attn.{kind}_proj" for kind in "qkv"}

    @property
    def width(self) -> int:
        return self.trunk.embed_dim

    @property
    def projected(self) -> int:
        return linear_inputs(self.trunk.head, self.visual.head)

    def embed(self, pixels: Tensor) -> Tensor:
        tokens = self.trunk._pos_embed(self.trunk.patch_embed(pixels))
        tokens = tokens[0] if isinstance(tokens, tuple) else self.trunk.patch_drop(tokens)
        return self.trunk.norm_pre(tokens)  # (B, T, D)

    def embed_patches(self, patches: Tensor) -> Tensor:
        part = self.trunk.patch_embed
        stem, norm = getattr(part, "backbone", nn.Identity()), getattr(part, "norm", nn.Identity())
        tokens = norm(part.proj(stem(patches)).flatten(1))
        return self.trunk.norm_pre(tokens + mean_position(self.trunk.pos_embed, self.patches))  # (M, D)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        if self.rope is None:
            return self.blocks[k](hidden)
        return self.blocks[k](hidden, rope=self._rotation(hidden.shape[1] - self.prefix - self.patches))

    def _rotation(self, prompts: int) -> Tensor:
        """Rotary embedding ``(M + patches, 2 d)``: sines, then cosines; prompts have no place, so they do not turn."""
        rope: Any = self.rope
        angles = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(self.trunk.patch_embed.grid_size)
        if not prompts:
            return angles
        half = angles.shape[-1] // 2
        still = angles.new_zeros(prompts, 2 * half)
        still[:, half:] = 1
        return torch.cat([still, angles])

    def pool(self, hidden: Tensor) -> Tensor:
        hidden = self.trunk.norm(hidden)
        if getattr(self.trunk, "attn_pool", None) is None:
            hidden = without_prompts(hidden, self.prefix, self.prefix + self.patches)
        return self.trunk.fc_norm(self.trunk.pool(hidden))  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return self.visual.head(self.trunk.head(self.trunk.head_drop(pooled)))

    def shape(self) -> VisionShape:
        """Its sizes."""
        side = self.trunk.patch_embed.img_size[0]
        patch = round(side / self.patches**0.5)
        mlp = out_features(self.blocks[0], "mlp.fc1")
        linears = linear_sizes(self.blocks, self.names)
        return VisionShape(self.width, len(self.blocks), mlp, patch, self.prefix + self.patches, linears)


class FastVitTower(VisionTower):
    """timm's ``FastVit`` (MobileCLIP-S): stages of convolutions on maps ``(B, C, H, W)``."""

    has_tokens = False
    prefix = 0
    memory_format = torch.channels_last
    path = "visual.trunk.stages"

    def __init__(self, visual: Any):
        self.visual, self.trunk = visual, visual.trunk
        self.blocks = self.trunk.stages

    @property
    def width(self) -> int:
        return self.trunk.feature_info[-1]["num_chs"]

    @property
    def projected(self) -> int:
        return linear_inputs(self.trunk.head.fc, self.visual.head)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.trunk.stem(pixels)  # (B, C, S / 4, S / 4)

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        return self.blocks[k](hidden)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.trunk.forward_head(self.trunk.final_conv(hidden), pre_logits=True)  # (B, D)

    def project(self, pooled: Tensor) -> Tensor:
        return self.visual.head(self.trunk.head.fc(pooled))

    def shape(self) -> VisionShape:
        """Its sizes; those of the last stage stand for width and positions."""
        # ``linears`` decides counts; width, MLP and positions only serve estimates of cost.
        stride = 4 * 2 ** (len(self.blocks) - 1)
        side = self.visual.image_size[0]
        linears = linear_sizes(self.blocks, fast_vit_names(self.blocks))
        return VisionShape(self.width, len(self.blocks), 4 * self.width, stride, (side // stride) ** 2, linears)


class WholeVision(VisionTower):
    """An image encoder that is only ever run from pixels to features."""

    has_tokens = False
    prefix = 0
    memory_format = torch.channels_last
    blocks: Sequence[nn.Module] = ()
    path = ""
    names: Mapping[str, str] = MappingProxyType({})

    def __init__(self, model: Any, embedding: int):
        self.model, self.embedding = model, embedding

    @property
    def width(self) -> int:
        return self.embedding

    def embed(self, pixels: Tensor) -> Tensor:
        return pixels

    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        raise IndexError(k)

    def pool(self, hidden: Tensor) -> Tensor:
        return self.model.encode_image(hidden, normalize=False)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled

    def shape(self) -> VisionShape:
        """No blocks."""
        return VisionShape(self.embedding, 0, 0, 32, 0, ())


def out_features(block: nn.Module, name: str) -> int:
    """Outputs of a linear layer of a block; 0 where it has no layer of that name (gated MLPs)."""
    layer: Any = dict(block.named_modules()).get(name)
    return 0 if layer is None else int(layer.weight.shape[0])


def linear_inputs(*heads: nn.Module) -> int:
    """Return inputs of modules that are together one linear map; 0 where they are none or not linear."""
    parts = [part for head in heads for part in head.modules() if not isinstance(part, nn.Sequential)]
    layers = [part for part in parts if isinstance(part, nn.Linear)]
    plain = all(isinstance(part, nn.Linear | nn.Identity | nn.Dropout) for part in parts)
    return layers[0].in_features if layers and plain else 0


def without_prompts(hidden: Tensor, prefix: int, tokens: int) -> Tensor:
    """Leave out prompt tokens, which stand after the prefix, where patches are averaged."""
    extra = hidden.shape[1] - tokens
    return hidden if not extra else torch.cat([hidden[:, :prefix], hidden[:, prefix + extra :]], dim=1)


def fast_vit_names(stages: Any) -> list[dict[str, list[str]]]:
    """Return per stage the layers of each kind: attention where a stage has it, and the 1x1 convolutions
    of the MLPs, which are linear layers over channels."""
    endings = {"q": "qkv.q", "k": "qkv.k", "v": "qkv.v", "out": "token_mixer.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    return [
        {kind: [name for name, _ in stage.named_modules() if name.endswith(end)] for kind, end in endings.items()}
        for stage in stages
    ]


def linear_sizes(blocks: Any, names: Any) -> tuple[tuple[tuple[str, int, int], ...], ...]:
    """Return (kind, inputs, outputs) of each named layer that a block has."""
    sizes = []
    for k, block in enumerate(blocks):
        own = names[k] if isinstance(names, list) else {kind: [name] for kind, name in names.items()}
        there = dict(block.named_modules())
        layers = [(kind, there[name]) for kind, found in own.items() for name in found if name in there]
        sizes.append(tuple((kind, layer.weight.shape[1], layer.weight.shape[0]) for kind, layer in layers))
    return tuple(sizes)
