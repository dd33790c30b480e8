"""APE: a cache of support features, as Tip-Adapter's, on the channels that tell the labels apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.methods.tip_adapter import SEARCH, affinity, leave_one_out
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import BLEND, Config, Tuner, TunerContext, option


@dataclass(frozen=True)
class ApeConfig(Config):
    """Channels, and weights of the cache."""

    method = "ape"
    channels: int = option(
        0, 0, 100_000, help="Q, channels that are kept; 0 = half of them, as 500 of the paper's 1024"
    )
    similarity: float = option(
        0.7, 0, 1, help="weight of the labels' similarity in a channel; its variance has the rest"
    )
    gamma: float = option(0.2, 0, 100, help="how much less a training image counts that its own text contradicts")
    alpha: float = option(0.0, 0, 100, help=f"weight of the cache; {SEARCH}")
    beta: float = option(0.0, 0, 100, help=f"sharpness of the cache; {SEARCH}")
    blend: str = BLEND


class Ape(Tuner):
    """``s f W^T + alpha exp(-beta (1 - f' keys'^T)) (V exp(-gamma KL))``, primes for the kept channels."""

    trains = False
    keeps_support = True
    values: Tensor
    keys: Tensor
    channels: Tensor

    def __init__(self, config: ApeConfig, setting: TunerContext):
        super().__init__(config, setting)
        text = setting.ensemble
        kept = min(config.channels or text.shape[1] // 2, text.shape[1])
        self.register_buffer("channels", refine(text, kept, config.similarity), persistent=False)  # (Q,)
        self.register_buffer("keys", self.refined(setting.support), persistent=False)  # (N, Q)
        hits = nn.functional.one_hot(setting.targets, len(text)).to(text)
        scores = self.backbone.scale.detach() * self.keys @ self.refined(text).T
        against = nn.functional.cross_entropy(scores, setting.targets, reduction="none")  # KL to the one-hot label
        self.register_buffer("values", hits * torch.exp(-config.gamma * against)[:, None], persistent=False)
        zero = self.backbone.logits(setting.support, text)
        found = leave_one_out(zero, self.keys, setting.targets, self.values, hits.sum(0))
        self.chosen = {name: getattr(config, name) or value for name, value in found.items()}

    def adopt(self, chosen: Mapping[str, float]) -> None:
        self.chosen = {name: chosen[name] for name in ("alpha", "beta")}

    def refined(self, features: Tensor) -> Tensor:
        """Return features ``(B, P)`` on the kept channels, normalised, ``(B, Q)``."""
        return nn.functional.normalize(features[:, self.channels], dim=-1)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        cache = affinity(self.refined(image), self.keys, self.chosen["beta"]) @ self.values
        return self.backbone.logits(image, text) + self.chosen["alpha"] * cache


def refine(text: Tensor, kept: int, share: float) -> Tensor:
    """Return the ``kept`` channels in which the labels are least alike and vary most, ``(Q,)`` in order.

    Args:
        text: normalised text features ``(K, P)``.
        share: weight of the similarity, ``sum over labels i != j of t_i t_j``, against the variance.
    """
    labels = len(text)
    similarity = (text.sum(0).square() - text.square().sum(0)) / max(1, labels * (labels - 1))
    criterion = share * similarity - (1 - share) * text.var(0, correction=0)
    return criterion.argsort(stable=True)[:kept].sort().values


register(
    MethodSpec(
        id="ape",
        name="APE",
        family="head",
        sentence="Trains nothing: Tip-Adapter on those channels of the features that tell your labels apart, where "
        "typical images count more.",
        use_when="Tip-Adapter helps, and your labels' texts differ in few respects.",
        equation="logits = s·f·Wᵀ + α·exp(−β(1 − f′·keys′ᵀ))·(V·exp(−γ·KL)),  ′ = the Q best channels",
        paper="Zhu et al. 2023, Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement, arXiv "
        "2304.01195",
        config=ApeConfig,
        tuner=lambda: Ape,
        count=lambda shape, config, K, N: 0,
        formula="0 (keeps N·P features)",
        runs_on="features",
        failures=("The channels are chosen by the texts alone: where these say little, so does the choice.",),
        saved="features and labels of the support images, alpha, beta",
        presets={"budget": lambda shots: ApeConfig(blend="auto")},
    )
)
