"""What a method may ask of an image-text model.

A tower is seen as ``embed -> blocks -> pool -> project``. Prompts put tokens between embed and
blocks, weight methods change blocks, heads work on what project returns; so everything before the
first thing that a method changes is the same for every training step and is computed once.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from engine.errors import messages
from engine.types import LogitScale, descriptions_of, phrase_of

PIXELS = -2
"""Stage of an image before the tower: normalised pixels ``(B, 3, S, S)``."""
PATCHES = -1
"""Stage after a convolutional trunk that embeds the patches ``(B, T, D)``; the pixels in towers without one."""
POOLED = 1_000_000
"""Stage after the pooling: ``(B, D)``. Stages 0..L are tokens ``(B, T, D)`` before block k."""
FEATURES = 1_000_001
"""Stage after the projection, normalised: ``(B, P)``."""

LINEAR_KINDS = ("q", "k", "v", "out", "fc1", "fc2")
"""Linear layers of a transformer block: attention projections and the two of the MLP."""

VISION_TOKENS, TEXT_TOKENS = "vision tokens", "text tokens"
ATTENTION, LINEAR = "attention projections", "linear layers"
PROJECTION = "image projection"
CAPABILITIES = (VISION_TOKENS, TEXT_TOKENS, ATTENTION, LINEAR, PROJECTION)
"""What a method may need of a backbone and not every backbone offers: a sequence of tokens in a
tower, separate attention projections or linear layers in some block, a linear layer that ends the
image tower."""
messages(**{f"needs.{capability}": capability for capability in CAPABILITIES})

SPACES = ("</w>", "\u2581", "\u0120")
"""Marks of tokenizers for a space beside a token: CLIP's, SentencePiece's and GPT-2's."""
BIASES = ("bias", "in_proj_bias")
"""What libraries call the bias parameters of a module."""

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
    """Side of an image patch in pixels; of convolutions the stride of the last stage."""
    image_size: int
    """Side of the square input in pixels."""
    vision_tokens: int
    """Image tokens with the class token, if there is one; of convolutions the last stage's positions."""
    context: int
    """Longest text in tokens."""
    vocabulary: int
    vision_mlp: int
    text_mlp: int
    parameters: int
    """All of the model's parameters."""
    vision_linears: tuple[tuple[tuple[str, int, int], ...], ...] | None = None
    """(kind, inputs, outputs) of each linear layer of each vision block; None: those of a transformer."""
    vision_pooled: int = 0
    """Size of the pooled image feature that a linear layer projects; 0 where there is no such layer."""
    norm_parameters: int = 0
    """Scales and shifts of all LayerNorms."""
    trunk_parameters: int = 0
    """Parameters of a convolutional trunk under the image tower's transformer."""
    bias_parameters: int = 0
    """All biases, those of norms among them."""
    count_tokens: Callable[[str], int] = field(default=len, compare=False, repr=False)
    """Tokens of a text with start and end, before any cutting: what a prompt of given words counts."""

    def linears(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of a tower's linear layers from a block on, in the order of
        :meth:`Backbone.linear_names`."""
        if tower == "vision" and self.vision_linears is not None:
            blocks = self.vision_linears[first_block:]
            return [(i, o) for block in blocks for kind in kinds for name, i, o in block if name == kind]
        width, mlp, layers = (getattr(self, f"{tower}_{part}") for part in ("width", "mlp", "layers"))
        sizes = {"fc1": (width, mlp), "fc2": (mlp, width)}
        return [sizes.get(kind, (width, width)) for _ in range(first_block, layers) for kind in kinds]


class Tower(ABC):
    """One encoder as a pipeline of stages."""

    blocks: Sequence[nn.Module]
    has_tokens: bool = True
    """Whether blocks work on a sequence ``(B, T, D)`` that more tokens can join."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Size D of a token."""

    @abstractmethod
    def run_block(self, k: int, hidden: Tensor) -> Tensor:
        """Block ``k`` on tokens ``(B, T, D)``."""

    @abstractmethod
    def project(self, pooled: Tensor) -> Tensor:
        """Map ``(B, D)`` to ``(B, P)``, not normalised."""

    def run(self, hidden: Tensor, start: int = 0, stop: int | None = None, insert: Insert | None = None) -> Tensor:
        """Blocks ``start`` to ``stop`` (default: all) on ``(B, T, D)``."""
        for k in range(start, len(self.blocks) if stop is None else stop):
            hidden = self.run_block(k, insert(k, hidden) if insert else hidden)
        return hidden


class VisionTower(Tower):
    """Image encoder."""

    prefix: int = 1
    """Tokens that stand before the patches (class and register tokens); prompts are put in after them."""
    memory_format: torch.memory_format = torch.contiguous_format
    """Order of the pixels in memory that encodes quickest: convolutions take a fifth to a third less time with
    channels last."""
    first_trainable: int = PIXELS
    """Stage where training a norm or a bias begins: ``PATCHES`` where a convolutional trunk has none of its own."""

    @property
    def projected(self) -> int:
        """Size of the pooled feature where :meth:`project` is one linear map; 0 where it is none."""
        return 0

    def run_stem(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, 3, S, S)`` to what :meth:`embed` takes: patches ``(B, T, D)`` embedded by a
        convolutional trunk, or the pixels themselves."""
        return pixels

    def replace_projection(self, weight: Tensor) -> bool:
        """Put another weight ``(P, D)`` in the place of the one of :meth:`project`, its bias stays; False where the
        tower has no single matrix for it."""
        return False

    @abstractmethod
    def embed(self, patches: Tensor) -> Tensor:
        """What :meth:`run_stem` returns to tokens ``(B, T, D)``, class token first; to maps
        ``(B, C, H, W)`` in towers without tokens."""

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Normalised pixels of loose patches ``(M, 3, p, p)`` to tokens ``(M, D)`` that can join those of
        :meth:`embed`. A loose patch has no place in the picture: it gets the mean of the patches' position
        embeddings, so that it enters the first block within the range of its neighbours."""
        raise NotImplementedError("this image encoder has no patches")

    @abstractmethod
    def pool(self, hidden: Tensor) -> Tensor:
        """Map tokens after the last block to ``(B, D)``."""

    def advance(self, x: Tensor, start: int, stop: int, insert: Insert | None = None) -> Tensor:
        """From stage ``start`` to stage ``stop`` (``PIXELS``, ``PATCHES``, 0..L, ``POOLED``, ``FEATURES``)."""
        if start == PIXELS and stop > PIXELS:
            x, start = self.run_stem(x), PATCHES
        if start == stop:
            return x
        if start == PATCHES:
            x, start = self.embed(x), 0
        if start < POOLED:
            x = self.run(x, start, min(stop, len(self.blocks)), insert)
            x = self.pool(x) if stop >= POOLED else x
        return F.normalize(self.project(x), dim=-1) if stop == FEATURES else x


class TextTower(Tower):
    """Text encoder."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Map ids ``(K, T)`` to token embeddings ``(K, T, D)`` without positions."""

    @abstractmethod
    def add_positions(self, tokens: Tensor) -> Tensor:
        """Token embeddings plus position embeddings, ``(K, T, D)``."""

    @abstractmethod
    def pool(self, hidden: Tensor, at: Tensor) -> Tensor:
        """Map tokens after the last block to ``(K, D)``; ``at (K,)`` is the position that is pooled."""

    def encode_ids(self, ids: Tensor, at: Tensor) -> Tensor:
        """Map ids ``(K, T)`` to normalised features ``(K, P)``."""
        return self.encode_tokens(self.embed_tokens(ids), at)

    def encode_tokens(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Token embeddings ``(K, T, D)`` to normalised features ``(K, P)``."""
        return self.encode_from_block(self.add_positions(tokens), at)

    def encode_from_block(self, hidden: Tensor, at: Tensor, start: int = 0) -> Tensor:
        """Map tokens ``(K, T, D)`` that enter block ``start`` to normalised features ``(K, P)``."""
        return F.normalize(self.project(self.pool(self.run(hidden, start), at)), dim=-1)


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
    start_tokens: int = 1
    """Tokens that the tokenizer puts before the first word."""

    @abstractmethod
    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to ``(B, 3, S, S)`` uint8, resized and cropped as the checkpoint asks."""

    @abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``(B, 3, S, S)`` to the floats the tower was trained on."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        """Return ids ``(K, T)`` with start and end, cut to the longest text of the call where the tower
        allows it (a causal one, where what follows the end changes nothing) and otherwise padded to
        the context less ``reserve``, so that as many tokens can be put in. Texts longer than that
        are cut and keep their end token."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Return tokens that a text takes with start and end, before any cutting."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return tokens as people read them, without special ones and the tokenizer's marks for words and spaces."""

    @abstractmethod
    def end_of(self, ids: Tensor) -> Tensor:
        """Return the position ``(K,)`` of each row that is pooled: the end token of most towers, the last
        position where the tower was trained so."""

    def words_end(self, ids: Tensor) -> Tensor:
        """Return the position ``(K,)`` after each row's last word."""
        return self.end_of(ids)

    @abstractmethod
    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        """Return names in :attr:`model` of a tower's linear layers; ``tower`` is ``vision`` or ``text``,
        kinds are among ``LINEAR_KINDS``. Kinds that a block does not have are left out."""

    def peft_targets(self, names: Sequence[str]) -> list[str] | str:
        """Module names for PEFT's ``target_modules``: a list, or a regular expression where PEFT,
        which takes a listed name for an ending, would find more modules by it."""
        endings = tuple(f".{name}" for name in names)
        if any(name.endswith(endings) for name, _ in self.model.named_modules()):
            return "|".join(re.escape(name) for name in names)
        return list(names)

    @property
    def offers(self) -> frozenset[str]:
        """Which of ``CAPABILITIES`` this backbone has."""
        has = {
            VISION_TOKENS: self.vision.has_tokens,
            TEXT_TOKENS: self.text.has_tokens,
            ATTENTION: any(self.linear_names(tower, LINEAR_KINDS[:4]) for tower in ("vision", "text")),
            LINEAR: any(self.linear_names(tower, LINEAR_KINDS) for tower in ("vision", "text")),
            PROJECTION: self.vision.projected > 0,
        }
        return frozenset(name for name, there in has.items() if there)

    @abstractmethod
    def replace_model(self, model: Any) -> Backbone:
        """Return the same backbone around another model of the same class."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """Factor from cosine similarity to logits, a scalar."""

    @property
    def bias(self) -> Tensor | None:
        """What is added to every logit, a scalar; None where the model has no such term."""
        return None

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, 3, S, S)`` to normalised features ``(B, P)``."""
        return self.vision.advance(pixels, PIXELS, FEATURES)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Map ids ``(K, T)`` to normalised features ``(K, P)``."""
        return self.text.encode_ids(ids, self.end_of(ids))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Normalised ``(B, P)`` and ``(K, P)`` to logits ``(B, K)``, in fp32 under autocast too: a scale of 100
        makes of bf16's last digit a fifth of a logit."""
        with torch.autocast(image.device.type, enabled=False):
            logits = self.scale * image.float() @ text.float().T
            return logits if self.bias is None else logits + self.bias

    @property
    def logit_scale(self) -> LogitScale:
        """Scale and bias as plain numbers."""
        return LogitScale(float(self.scale), None if self.bias is None else float(self.bias))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Map logits ``(B, K)`` to probabilities: shares of one, or one yes-or-no a label where the
        model was trained so (sigmoid loss)."""
        return logits.softmax(dim=-1) if self.bias is None else logits.sigmoid()

    def twin(self, share: bool = True) -> Backbone:
        """Return a copy whose modules can be replaced without touching this one. With ``share`` all
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
        """Return the number of parameters of the model."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return the mean over the templates, and over a prompt's own descriptions (as in CuPL, arXiv 2209.03320), of
        normalised features, normalised again: ``(K, P)``."""
        per_template = [self.encode_text(self.tokenize([fill(t, p) for p in prompts])) for t in templates]
        mean = torch.stack(per_template).mean(0)
        for k, prompt in enumerate(prompts):
            if own := descriptions_of(prompt):
                described = self.encode_text(self.tokenize(own)).sum(0)
                mean[k] = (mean[k] * len(templates) + described) / (len(templates) + len(own))
        return F.normalize(mean, dim=-1)


def without_marks(text: str) -> str:
    """Return a decoded text with single spaces where a tokenizer left its marks, and none before a full stop."""
    for mark in SPACES:
        text = text.replace(mark, " ")
    return " ".join(text.split()).replace(" .", ".")


def mean_position(table: Tensor | None, patches: int) -> Tensor | float:
    """Mean ``(D,)`` of the patches' position embeddings, the last rows of ``(..., T, D)``; 0 where there are none."""
    return 0.0 if table is None else table.reshape(-1, table.shape[-1])[-patches:].mean(0)


def named_norms(model: nn.Module) -> Iterator[tuple[str, nn.LayerNorm]]:
    """(name, module) of each LayerNorm that has parameters."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and any(True for _ in module.parameters(recurse=False)):
            yield name, module


def named_biases(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(name of the module, module, attribute) of each bias; those of a convolutional trunk are batch norms that were
    merged into it, and no biases of the transformer."""
    left_out = {id(module) for trunk in trunks(model) for module in trunk.modules()}
    for name, module in model.named_modules():
        if id(module) in left_out:
            continue
        for attribute in BIASES:
            if isinstance(module._parameters.get(attribute), nn.Parameter):
                yield name, module, attribute


def trunks(model: nn.Module) -> list[nn.Module]:
    """Return the convolutional trunks that embed patches: one or none."""
    return [module for module in model.modules() if getattr(module, "is_trunk", False)]


def part_sizes(model: nn.Module) -> dict[str, Any]:
    """Return parameters of norms and biases, as the fields of :class:`Shape`."""
    return {
        "norm_parameters": sum(p.numel() for _, norm in named_norms(model) for p in norm.parameters(recurse=False)),
        "trunk_parameters": sum(p.numel() for trunk in trunks(model) for p in trunk.parameters()),
        "bias_parameters": sum(getattr(module, bias).numel() for _, module, bias in named_biases(model)),
    }


def fill(template: str, prompt: str) -> str:
    """Return a template with a prompt's phrase in place of ``{}``."""
    return template.replace("{}", phrase_of(prompt))
