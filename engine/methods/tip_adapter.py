"""Tip-Adapter: a cache of support features as a key-value classifier, with trained keys in Tip-Adapter-F."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import BLEND, Config, HeadConfig, Tuner, TunerContext, option

ALPHAS = (0.0, 0.1, 0.3, 0.6, 1.0, 1.7, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0)
BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 20.0)
PAPER = "Zhang et al. 2022, Tip-Adapter: Training-free Adaption of CLIP, arXiv 2207.09519"
SEARCH = "chosen by leave-one-out on the support images; 0 = choose"


@dataclass(frozen=True)
class TipConfig(Config):
    """Weights of the cache."""

    method = "tip_adapter"
    alpha: float = option(0.0, 0, 100, help=f"weight of the cache; {SEARCH}")
    beta: float = option(0.0, 0, 100, help=f"sharpness of the cache; {SEARCH}")
    blend: str = BLEND


@dataclass(frozen=True)
class TipFConfig(HeadConfig):
    """Tip-Adapter-F's training."""

    method = "tip_adapter_f"
    alpha: float = option(0.0, 0, 100, help=f"weight of the cache; {SEARCH}")
    beta: float = option(0.0, 0, 100, help=f"sharpness of the cache; {SEARCH}")
    eps: float = option(1e-4, 0, 1, help="AdamW's term against division by zero")
    epochs: int = option(20, 1, 2000, help="passes over the training images; 100 far from natural photos")


def affinity(image: Tensor, keys: Tensor, beta: float) -> Tensor:
    """``exp(-beta (1 - f keys^T))``, ``(B, N)``."""
    return torch.exp(-beta * (1 - image @ keys.T))


class TipAdapter(Tuner):
    """``logits = scale f W^T + alpha exp(-beta (1 - f keys^T)) V``."""

    trains = False
    keeps_support = True
    values: Tensor
    keys: Tensor

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__(config, setting)
        self.register_buffer(
            "values", nn.functional.one_hot(setting.targets, len(setting.labels)).float(), persistent=False
        )
        self._make_keys(setting.support)
        self.chosen = leave_one_out(
            self.backbone.logits(setting.support, setting.ensemble), setting.support, setting.targets, self.values
        )
        self.chosen = {name: getattr(config, name) or value for name, value in self.chosen.items()}

    def adopt(self, chosen: Mapping[str, float]) -> None:
        self.chosen = {name: chosen[name] for name in ("alpha", "beta")}

    def _make_keys(self, support: Tensor) -> None:
        self.register_buffer("keys", support.clone(), persistent=False)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        keys = nn.functional.normalize(self.keys, dim=-1)
        cache = affinity(image, keys, self.chosen["beta"]) @ self.values
        return self.backbone.logits(image, text) + self.chosen["alpha"] * cache


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained."""

    trains = True

    def _make_keys(self, support: Tensor) -> None:
        self.keys = nn.Parameter(support.clone())  # (N, P)


@torch.no_grad()
def leave_one_out(
    logits: Tensor, support: Tensor, targets: Tensor, values: Tensor, images: Tensor | None = None
) -> dict[str, float]:
    """``alpha`` and ``beta`` that classify each support image best from the other ones.

    Leaving an image out takes a key from its own class only; its class sum is scaled back to the
    full number of keys. Ties go to the lower loss. With one image a class nothing can be left
    out, and the paper's 1.0 and 5.5 are returned.

    Args:
        images: of each label ``(K,)``, where ``values`` are not ones.
    """
    counts = values.sum(0) if images is None else images  # (K,)
    usable = counts[targets] > 1
    if not usable.any():
        return {"alpha": 1.0, "beta": 5.5}
    own = nn.functional.one_hot(targets, values.shape[1]).bool()  # (N, K)
    refill = torch.where(own, counts / (counts - 1).clamp(min=1), torch.ones_like(counts))
    best, chosen = (-1.0, float("-inf")), {}
    for beta in BETAS:
        cache = affinity(support, support, beta).fill_diagonal_(0) @ values * refill
        for alpha in ALPHAS:
            mixed = (logits + alpha * cache)[usable]
            right = (mixed.argmax(1) == targets[usable]).float().mean().item()
            score = (right, -nn.functional.cross_entropy(mixed, targets[usable]).item())
            if score > best:
                best, chosen = score, {"alpha": alpha, "beta": beta}
    return chosen


register(
    MethodSpec(
        id="tip_adapter",
        name="Tip-Adapter",
        family="head",
        sentence="Trains nothing: compares an image with your labelled images and adds their votes to zero-shot.",
        use_when="You want an answer at once and have a few typical images a label; also a good second baseline.",
        equation="logits = s·f·Wᵀ + α·exp(−β(1 − f·keysᵀ))·V",
        paper=PAPER,
        config=TipConfig,
        tuner=lambda: TipAdapter,
        count=lambda shape, config, K, N: 0,
        formula="0 (keeps N·P features)",
        runs_on="features",
        failures=("Alpha and beta matter a lot; chosen on test images, as in the authors' code, they flatter.",),
        saved="features and labels of the support images, alpha, beta",
        presets={"budget": lambda shots: TipConfig(blend="auto")},
    )
)
register(
    MethodSpec(
        id="tip_adapter_f",
        name="Tip-Adapter-F",
        family="head",
        sentence="Tip-Adapter whose stored image features are trained.",
        use_when="Tip-Adapter helps but is not enough, and there are no more than some hundred training images.",
        equation="logits = s·f·Wᵀ + α·exp(−β(1 − f·keysᵀ))·V,  keys are trained",
        paper=PAPER,
        config=TipFConfig,
        tuner=lambda: TipAdapterF,
        count=lambda shape, config, K, N: N * shape.embedding,
        formula="N·P",
        runs_on="features",
        failures=("Grows with the number of support images.", "Twenty epochs are too few far from natural photos."),
        saved="the trained keys, labels of the support images, alpha, beta",
        presets={"budget": lambda shots: TipFConfig(blend="auto"), "paper": lambda shots: TipFConfig(batch_size=256)},
    )
)
