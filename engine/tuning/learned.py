"""What training made, in forms that people can look at: pictures, and the words nearest to trained vectors.

Plain records without tensors, so that the page, the command line and tests read them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.errors import Note

if TYPE_CHECKING:
    from torch import Tensor

    from engine.backbones.base import Backbone

NEAREST = 3
"""Words that are named for a vector."""
CHUNK = 8192
"""Tokens of the vocabulary that are compared at once."""


@dataclass(frozen=True, eq=False)
class LearnedImage:
    """Trained pixels as a picture."""

    about: Note
    """What the picture is and how its colours are to be read."""
    before: np.ndarray
    """RGB before training, uint8 ``(H, W, 3)``."""
    after: np.ndarray
    """The same after training."""


@dataclass(frozen=True)
class Piece:
    """A trained vector, or the words between two of them."""

    text: str
    """The name of a vector such as ``v1``, or words."""
    trained: bool


@dataclass(frozen=True)
class LearnedToken:
    """One trained vector and the vocabulary around it."""

    name: str
    """``v1``, ``v2``, ... as in the layout."""
    nearest: tuple[tuple[str, float], ...]
    """(word, Euclidean distance in the table of token embeddings), the nearest first."""
    start: str = ""
    """The word it started from; empty where that was noise."""
    moved: float | None = None
    """Euclidean distance from its start, where that was a word."""


@dataclass(frozen=True)
class LearnedTokens:
    """The trained vectors of one prompt and where they stand."""

    about: Note
    """What the vectors are."""
    label: str
    """The label whose text :attr:`layout` shows."""
    shared: bool
    """Whether all labels have these vectors, or only this one."""
    layout: tuple[Piece, ...]
    """The label's text in the tower's order, without start, end and padding."""
    tokens: tuple[LearnedToken, ...]

    def to_json(self) -> dict[str, Any]:
        """For the command line."""
        return {
            "label": self.label,
            "shared": self.shared,
            "layout": [f"[{piece.text}]" if piece.trained else piece.text for piece in self.layout],
            "tokens": [asdict(token) for token in self.tokens],
        }


Learned = LearnedImage | LearnedTokens


@torch.no_grad()
def nearest_words(backbone: Backbone, vectors: Tensor, count: int = NEAREST) -> list[tuple[tuple[str, float], ...]]:
    """The words of the vocabulary nearest to vectors ``(n, D)``, each with its Euclidean distance, nearest first.

    Euclidean as in the table of CoOp (Zhou et al. 2021, table 4). Special tokens are left out, and of tokens
    that read alike (inside and at the end of a word) only the nearest is named.
    """
    distances, ids = [], []
    spare = min(4 * count + 8, backbone.shape.vocabulary)
    for first in range(0, backbone.shape.vocabulary, CHUNK):
        chunk = torch.arange(first, min(first + CHUNK, backbone.shape.vocabulary), device=vectors.device)
        found = torch.cdist(vectors, backbone.text.embed_tokens(chunk), compute_mode="donot_use_mm_for_euclid_dist")
        best = found.topk(min(spare, len(chunk)), largest=False)
        distances.append(best.values)
        ids.append(best.indices + first)
    near, order = torch.cat(distances, dim=1).sort(dim=1)
    sorted_ids = torch.cat(ids, dim=1).gather(1, order)
    return [readable(backbone, *row, count) for row in zip(sorted_ids.tolist(), near.tolist(), strict=True)]


def readable(
    backbone: Backbone, ids: Sequence[int], distances: Sequence[float], count: int
) -> tuple[tuple[str, float], ...]:
    """Return the first ``count`` different words of sorted ids."""
    words: dict[str, float] = {}
    for id, distance in zip(ids, distances, strict=True):
        if len(words) == count:
            break
        text = backbone.decode([id])
        if text and text.isprintable() and "\ufffd" not in text:  # which stands for a part of a character
            words.setdefault(text, distance)
    return tuple(words.items())
