"""Figures of Pocket CLIP on data it was never trained on: zero-shot, retrieval and a few-shot linear probe."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from engine.pretrain.corpus import clean, plain, read_parquet
from engine.pretrain.model import encode_tokens
from engine.pretrain.teachers import MEAN, STD

CLASSIFICATION = {
    "CIFAR-10": "eval-cifar10-test.parquet",
    "CIFAR-100": "eval-cifar100-test.parquet",
    "Tiny-ImageNet": "eval-tiny-imagenet-val.parquet",
}
RETRIEVAL = ("Flickr8k R@10", "eval-flickr8k-test.parquet")
FOLDERS = {"clothing": "clothing-50-per-class.zip", "EuroSAT": "eurosat-100-per-class.zip"}
"""Zips with a folder a class: measured with and without a probe."""
TEMPLATE = "a photo of a {}."
SHOTS, SEEDS = 8, (0, 1, 2)
"""Images a class that the probe learns from, and how often it is repeated with others."""


class Suite:
    """The measuring sets found in a folder; absent ones are left out. What the trunk's lower stages see of the images
    is kept where they are ``frozen``, so that measuring again is quick."""

    def __init__(self, folder: Path, frozen: bool = True):
        self.frozen = frozen
        self.rows = {name: read_parquet(folder / f) for name, f in CLASSIFICATION.items() if (folder / f).exists()}
        self.rows |= {name: read_folders(folder / f) for name, f in FOLDERS.items() if (folder / f).exists()}
        name, file = RETRIEVAL
        if (folder / file).exists():
            self.rows[name] = read_parquet(folder / file)
        self._maps: dict[str, Tensor] = {}

    @torch.inference_mode()
    def measure(self, clip: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        """Accuracy per classification set, text-to-image recall@10, mean accuracy of the probe; each 0 to 1."""
        figures = {}
        for name, rows in self.rows.items():
            image = self._encode_images(clip, name, rows)
            if name == RETRIEVAL[0]:
                texts = encode_texts(clip, tokenizer, [clean(row["captions"][0]) for row in rows])
                figures[name] = recall(image, texts)
                continue
            labels = sorted({row["label"] for row in rows})
            text = encode_texts(clip, tokenizer, [TEMPLATE.format(clean(label)) for label in labels])
            truth = torch.tensor([labels.index(row["label"]) for row in rows])
            figures[name] = ((image @ text.T).argmax(1).cpu() == truth).float().mean().item()
            if name in FOLDERS:
                figures[f"{name}, {SHOTS}-shot probe"] = probe(image.cpu().numpy(), truth.numpy())
        return figures

    def _encode_images(self, clip: Any, name: str, rows: list[dict], batch: int = 100) -> Tensor:
        """Normalised image features ``(N, P)``."""
        stem = clip.vision_model.embeddings.patch_embedding
        if name not in self._maps or not self.frozen:
            parts = []
            for start in range(0, len(rows), batch):
                pixels = np.stack([np.asarray(plain(row["image"]["bytes"])) for row in rows[start : start + batch]])
                x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
                x = x.to(clip.device).contiguous(memory_format=torch.channels_last)
                parts.append(stem.lower(x).half())
            self._maps[name] = torch.cat(parts)
        features = []
        for part in self._maps[name].split(batch):
            tokens = stem.projection(stem.upper(part.float())).flatten(2).transpose(1, 2)
            features.append(encode_tokens(clip, tokens))
        return F.normalize(torch.cat(features), dim=-1)


def read_folders(path: Path) -> list[dict]:
    """Rows of a zip with a folder a class."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/")]
        return [{"image": {"bytes": archive.read(n)}, "label": PurePosixPath(n).parent.name} for n in names]


def encode_texts(clip: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Normalised text features ``(K, P)``."""
    ids = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").input_ids
    return F.normalize(clip.get_text_features(input_ids=ids.to(clip.device)).pooler_output, dim=-1)


def recall(image: Tensor, text: Tensor, k: int = 10) -> float:
    """Share of texts whose own image is among the ``k`` nearest of all images."""
    best = (text @ image.T).topk(min(k, len(image)), dim=1).indices.cpu()
    return (best == torch.arange(len(text))[:, None]).any(1).float().mean().item()


def probe(features: np.ndarray, truth: np.ndarray) -> float:
    """Mean accuracy, 0 to 1, of logistic regression (scikit-learn) on ``SHOTS`` images a class, tested on the rest.

    ``features (N, P)`` are normalised; they are scaled by 10, which makes scikit-learn's usual regularisation mild.
    """
    from sklearn.linear_model import LogisticRegression

    found = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        chosen = np.concatenate([random.permutation(np.flatnonzero(truth == k))[:SHOTS] for k in np.unique(truth)])
        rest = np.setdiff1d(np.arange(len(truth)), chosen)
        model = LogisticRegression(max_iter=500).fit(10 * features[chosen], truth[chosen])
        found.append((model.predict(10 * features[rest]) == truth[rest]).mean())
    return float(np.mean(found))
