"""Logits and features of images with a tuner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from engine.backbones.base import FEATURES
from engine.tuning.features import FeatureStore
from engine.tuning.tuner import Tuner


@torch.no_grad()
def describe(tuner: Tuner, store: FeatureStore, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return logits ``(n, K)`` and normalised features ``(n, P)`` of some images; text features are computed once."""
    tuner.eval()
    text = tuner.text_features()
    logits, images = zip(*(tuner.outputs(x, text) for x in batches(tuner, store, indices)), strict=True)
    return torch.cat(logits), torch.cat(images)


def predict(tuner: Tuner, store: FeatureStore, indices: Sequence[int]) -> Tensor:
    """Return logits ``(n, K)`` of some images."""
    return describe(tuner, store, indices)[0]


def batches(tuner: Tuner, store: FeatureStore, indices: Sequence[int]) -> Iterator[Tensor]:
    """Values of images at the tuner's stage, in batches; only features are kept in the cache."""
    for start in range(0, len(indices), store.batch):
        chosen = indices[start : start + store.batch]
        yield store.features(chosen) if tuner.stage == FEATURES else store.fresh(tuner.stage, chosen)
