"""Pocket CLIP's recipe and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig

from engine.backbones.conv_stem import LOWER, STRIDE, HybridCLIPModel
from engine.pretrain.precision import FULL_PRECISION_ATTENTION, full_precision_depthwise
from engine.pretrain.training import BaseRecipe

FROZEN = LOWER
"""Stages of the trunk that are trained only where crops are live: else what they see is extracted once."""


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Everything that decides the weights."""

    minutes: float = 75.0
    batch_size: int = 256
    muon_lr: float = 2e-3
    adam_lr: float = 1e-3
    trunk_rate: float = 0.2
    """Learning rate of the trunk's last stages, as a share of ``adam_lr``."""
    trunk_from: float = 0.3
    """Share of training after which the trunk's last stages are trained too."""
    ema: float = 0.99
    live: bool = False
    """Whether all pictures stay on the device, crops are cut anew in each step and the whole trunk is trained."""
    lower_rate: float = 0.05
    """Learning rate of the trunk's first stages, where they are trained, as a share of ``adam_lr``."""
    trunk: str = "tf_efficientnet_lite0"
    image_size: int = 224
    vision_width: int = 256
    vision_layers: int = 4
    vision_heads: int = 4
    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 3
    embedding: int = 256
    vocabulary: int = 9800
    context: int = 40
    """Longest text in tokens."""
    tokens: int = 32
    """Image tokens of 49 that are kept, at random, until the trunk is trained too (FLIP, arXiv 2212.00794)."""
    distractors: int = 96
    """Labels a step that none of its pictures has: wrong answers beside the other pictures' captions."""
    classes: int = 160
    """ImageNet classes a step that the text tower names."""
    imagined: int = 64
    """Images a step whose features are made from a row of the classifier."""
    words: int = 192
    """Names of nouns a step that the text tower learns from the sentence encoder."""

    @classmethod
    def preset(cls, device: str, **changes: Any) -> Recipe:
        """Defaults for a machine: a GPU takes larger batches."""
        if device.startswith("cuda"):
            changes = {"minutes": 8.0, "batch_size": 1024, "imagined": 256, "words": 512, "live": True, **changes}
        return cls(**changes)


def build_clip(recipe: Recipe, vocabulary: int) -> HybridCLIPModel:
    """Return a randomly initialised CLIP of the recipe's shape."""
    text = {
        "vocab_size": vocabulary,
        "hidden_size": recipe.text_width,
        "intermediate_size": 4 * recipe.text_width,
        "num_hidden_layers": recipe.text_layers,
        "num_attention_heads": recipe.text_heads,
        "hidden_act": "gelu",
        "max_position_embeddings": recipe.context,
        "projection_dim": recipe.embedding,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": recipe.vision_width,
        "intermediate_size": 4 * recipe.vision_width,
        "num_hidden_layers": recipe.vision_layers,
        "num_attention_heads": recipe.vision_heads,
        "hidden_act": "gelu",
        "image_size": recipe.image_size,
        "patch_size": STRIDE,
        "projection_dim": recipe.embedding,
        "conv_stem": recipe.trunk,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.embedding)
    config._attn_implementation = FULL_PRECISION_ATTENTION
    return HybridCLIPModel(config)


class SentenceHead(nn.Module):
    """From the sentence encoder's feature to the shared space: a linear map and a small network beside it."""

    def __init__(self, width: int, embedding: int, hidden: int = 768):
        super().__init__()
        self.linear = nn.Linear(width, embedding)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, embedding)
        nn.init.zeros_(self.down.weight)

    def forward(self, sentence: Tensor) -> Tensor:
        """``(n, width)`` to normalised ``(n, P)``."""
        noisy = F.dropout(sentence, 0.1, self.training)
        return F.normalize(self.linear(noisy) + self.down(F.gelu(self.up(noisy))), dim=-1)


class Student(nn.Module):
    """Pocket CLIP with what only its training needs.

    ``sentences`` carries the sentence encoder's features over; ``memory`` reads the trunk's pooled feature out of the
    image feature, so that what no caption names is not lost. ``whole`` trains the trunk's first stages too.
    """

    def __init__(self, clip: Any, sentence_width: int, remembered: int, whole: bool = False):
        super().__init__()
        self.clip = clip
        embedding = clip.config.projection_dim
        self.sentences = SentenceHead(sentence_width, embedding)
        self.memory = nn.Linear(embedding, remembered)
        self.sentence_scale = nn.Parameter(clip.logit_scale.detach().clone())
        trunk = self.stem.trunk
        for part in self._lower():
            part.requires_grad_(whole)
        full_precision_depthwise(trunk)

    @property
    def stem(self) -> Any:
        """The convolutional trunk with its projection."""
        return self.clip.vision_model.embeddings.patch_embedding

    def teaching(self) -> dict[str, Tensor]:
        """What only training needs: a state that :meth:`load_state_dict` takes with ``strict=False``."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("clip.")}

    def _lower(self) -> tuple[nn.Module, ...]:
        trunk = self.stem.trunk
        return trunk.conv_stem, trunk.bn1, trunk.blocks[:FROZEN]

    def trunk_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Those of the trunk that are trained: of its first stages and of its last ones."""
        trained = [p for p in self.stem.trunk.parameters() if p.requires_grad]
        first = [p for part in self._lower() for p in part.parameters() if p.requires_grad]
        seen = set(map(id, first))
        return first, [p for p in trained if id(p) not in seen]

    def encode_grid(self, grid: Tensor, keep: Tensor | None = None) -> Tensor:
        """The trunk's last map ``(B, F, 7, 7)`` to image features ``(B, P)``, not normalised; ``keep (T,)`` are the
        positions of the grid that are read, all by default."""
        return encode_tokens(self.clip, self.stem.projection(grid).flatten(2).transpose(1, 2), keep)


def encode_tokens(clip: Any, patches: Tensor, keep: Tensor | None = None) -> Tensor:
    """Embedded patches ``(B, T, D)`` of a ``CLIPModel`` without positions to image features ``(B, P)``."""
    tower = clip.vision_model
    positions = tower.embeddings.position_embedding.weight
    patches = patches + positions[1:]
    if keep is not None:
        patches = patches[:, keep]
    first = (tower.embeddings.class_embedding + positions[0]).expand(len(patches), 1, -1)
    hidden = tower.pre_layrnorm(torch.cat([first.to(patches.dtype), patches], dim=1))
    hidden = tower.encoder(inputs_embeds=hidden).last_hidden_state
    return clip.visual_projection(tower.post_layernorm(hidden[:, 0]))
