"""What a method may ask of an image-text model.

A tower is seen as ``embed -> blocks -> pool -> project``. Prompts put tokens between embed and
blocks, weight methods change blocks, heads work on what project returns; so everything before the
first thing that a method changes is the same for every training step and is computed once.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

PIXELS = -1
"""Stage of an image before the tower: normalised pixels ``(B, 3, S, S)``."""
POOLED = 1_000_000
"""Stage after the pooling: ``(B, D)``. Stages 0..L are tokens ``(B, T, D)`` before block k."""
FEATURES = 1_000_001
"""Stage after the projection, normalised: ``(B, P)``."""

LINEAR_KINDS = ("q", "k", "v", "out", "fc1", "fc2")
"""Linear layers of a transformer block: attention projections and the two of the MLP."""

Insert = Callable[[int, Tensor], Tensor]
"""``insert(k, hidden)`` returns the tokens that enter block k."""


@dataclass(frozen=True)
class Shape:
    """The sizes that parameter counts depend on."""

    embedding: int
    """P, size of the shared space."""
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    patch: int
    """Side of an image patch in pixels."""
    image_size: int
    """Side of the square input in pixels."""
    vision_tokens: int
    """Image tokens with the class token."""
    context: int
    """Longest text in tokens."""
    vocabulary: int
    vision_mlp: int
    text_mlp: int
    parameters: int
    """All of the model's parameters."""
    count_tokens: Callable[[str], int] = field(default=len, compare=False, repr=False)
    """Tokens of a text with start and end, before any cutting: what a prompt of given words counts."""


class Tower(ABC):
    """One encoder as a pipeline of stages."""

    blocks: Sequence[nn.Module]

    @property
    @abstractmethod
    def width(self) -> int:
        """Size D of a token."""

    @abstractmethod
    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        """Block ``k`` on tokens ``(B, T, D)``."""

    @abstractmethod
    def project(self, pooled: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, P)``, not normalised."""

    def run(self, hidden: Tensor, start: int = 0, stop: int | None = None, insert: Insert | None = None) -> Tensor:
        """Blocks ``start`` to ``stop`` (default: all) on ``(B, T, D)``."""
        for k in range(start, len(self.blocks) if stop is None else stop):
            hidden = self.run_block(k, insert(k, hidden) if insert else hidden)
        return hidden


class VisionTower(Tower):
    """Image encoder."""

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, 3, S, S)`` to tokens ``(B, T, D)``, class token first."""

    @abstractmethod
    def pool(self, hidden: Tensor) -> Tensor:
        """Tokens after the last block to ``(B, D)``."""

    def advance(self, x: Tensor, start: int, stop: int, insert: Insert | None = None) -> Tensor:
        """From stage ``start`` to stage ``stop`` (``PIXELS``, 0..L, ``POOLED``, ``FEATURES``)."""
        if start == stop:
            return x
        if start == PIXELS:
            x, start = self.embed(x), 0
        if start < POOLED:
            x = self.run(x, start, min(stop, len(self.blocks)), insert)
            x = self.pool(x) if stop >= POOLED else x
        return F.normalize(self.project(x), dim=-1) if stop == FEATURES else x


class TextTower(Tower):
    """Text encoder."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Ids ``(K, T)`` to token embeddings ``(K, T, D)`` without positions."""

    @abstractmethod
    def add_positions(self, tokens: Tensor) -> Tensor:
        """Token embeddings plus position embeddings, ``(K, T, D)``."""

    @abstractmethod
    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        """Tokens after the last block to ``(K, D)``; ``at (K,)`` is the position of each end token."""

    def encode_tokens(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Token embeddings ``(K, T, D)`` to normalised features ``(K, P)``."""
        hidden = self.run(self.add_positions(tokens))
        return F.normalize(self.project(self.pool(hidden, at)), dim=-1)


class Backbone(ABC):
    """An image-text model. Its parameters are frozen and never written: methods that change
    weights work on a :meth:`twin`."""

    family: ClassVar[str]
    id: str
    """Name it was loaded by."""
    weight_hash: str
    """Hash of all parameters, so that an adapter knows the weights it belongs to."""
    shape: Shape
    vision: VisionTower
    text: TextTower
    model: Any
    """The library's own model (a ``torch.nn.Module``), for PEFT."""

    @abstractmethod
    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to ``(B, 3, S, S)`` uint8, resized and cropped as the checkpoint asks."""

    @abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``(B, 3, S, S)`` to the floats the tower was trained on."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        """Ids ``(K, T)`` with start and end, cut to the longest text of the call where the tower
        allows it. Texts longer than the context less ``reserve`` are cut and keep their end token."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Tokens that a text takes with start and end, before any cutting."""

    @abstractmethod
    def end_of(self, ids: Tensor) -> Tensor:
        """Position ``(K,)`` of each row's end token."""

    @abstractmethod
    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        """Names in :attr:`model` of a tower's linear layers; ``tower`` is ``vision`` or ``text``,
        kinds are among ``LINEAR_KINDS``."""

    @abstractmethod
    def replace_model(self, model: Any) -> Backbone:
        """The same backbone around another model of the same class."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """Factor from cosine similarity to logits, a scalar."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, 3, S, S)`` to normalised features ``(B, P)``."""
        return self.vision.advance(pixels, PIXELS, FEATURES)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Ids ``(K, T)`` to normalised features ``(K, P)``."""
        return self.text.encode_tokens(self.text.embed_tokens(ids), self.end_of(ids))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Normalised ``(B, P)`` and ``(K, P)`` to logits ``(B, K)``."""
        return self.scale * image @ text.T

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits ``(B, K)`` to probabilities."""
        return logits.softmax(dim=-1)

    def twin(self, share: bool = True) -> Backbone:
        """A copy whose modules can be replaced without touching this one. With ``share`` all
        tensors are common to both (no memory); otherwise they are copied and can be trained."""
        memo: dict[int, object] = {}
        if share:
            memo = {id(t): t for t in [*self.model.parameters(), *self.model.buffers()]}
        return self.replace_model(copy.deepcopy(self.model, memo))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def total_parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Mean over the templates of normalised features, normalised again: ``(K, P)``."""
        per_template = [self.encode_text(self.tokenize([fill(t, p) for p in prompts])) for t in templates]
        return F.normalize(torch.stack(per_template).mean(0), dim=-1)


def fill(template: str, prompt: str) -> str:
    """A template with the phrase in place of ``{}``."""
    return template.replace("{}", prompt)
