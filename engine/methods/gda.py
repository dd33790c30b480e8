"""Gaussian discriminant analysis beside zero-shot: one mean a label, one covariance for all, no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.tuning import blend
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import Config, Tuner, TunerContext, option

CHOOSE = -1.0
"""Value of ``alpha`` that stands for a choice by folds."""
ALPHAS = (0.0, *(10 ** (exponent / 4) for exponent in range(-12, 7)))
"""Weights that are tried, the one that changes least first."""


@dataclass(frozen=True)
class GdaConfig(Config):
    """Weight of the Gaussians."""

    method = "gda"
    alpha: float = option(
        CHOOSE, -1, 1000, help="weight of the Gaussian classifier beside zero-shot; -1 = chosen by folds of the support"
    )


class Gda(Tuner):
    """``logits = s f T^T + alpha (f W^T + b)``, the log-posterior of Gaussians with one covariance."""

    trains = False
    weight: Tensor
    bias: Tensor

    def __init__(self, config: GdaConfig, setting: TunerContext):
        super().__init__(config, setting)
        weight, bias = fit(setting.support, setting.targets, len(setting.labels))
        self.register_buffer("weight", weight, persistent=False)  # (K, P)
        self.register_buffer("bias", bias, persistent=False)  # (K,)
        self.chosen = {"alpha": choose_alpha(setting) if config.alpha < 0 else config.alpha}

    def saved(self) -> Mapping[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return self.backbone.logits(image, text) + self.chosen["alpha"] * (image @ self.weight.T + self.bias)


@torch.no_grad()
def fit(support: Tensor, targets: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """Return weights ``(K, P)`` and biases ``(K,)`` of Gaussians with equal priors, whose logarithm is left out.

    The inverse covariance is shrunk, ``P ((N - 1) S + tr(S) I)^-1`` with S the covariance of the images around their
    labels' means. A label without images says what the others say on average; where no label has two images there is
    no covariance, and all is zero.

    Args:
        support: features ``(N, P)``.
        targets: classes ``(N,)``.
    """
    count, size = support.shape
    images = torch.bincount(targets, minlength=labels).to(support)
    means = support.new_zeros(labels, size).index_add_(0, targets, support) / images.clamp(min=1)[:, None]
    centred = support - means[targets]
    scatter = centred.T @ centred  # (N - 1) S
    trace = scatter.trace() / max(1, count - 1)
    if trace < 1e-9:
        return torch.zeros_like(means), torch.zeros_like(images)
    root = torch.linalg.cholesky(scatter + trace * torch.eye(size).to(scatter))
    weight = size * torch.cholesky_solve(means.T, root).T
    bias = -(means * weight).sum(1) / 2
    there = images > 0
    weight[~there], bias[~there] = weight[there].mean(0), bias[there].mean()
    return weight, bias


@torch.no_grad()
def choose_alpha(setting: TunerContext) -> float:
    """Return the smallest weight within one standard error of the best on images left out; 0 where none can be."""
    left_out = blend.deal_out(setting.targets)
    if left_out is None:
        return 0.0
    zero = setting.backbone.logits(setting.support, setting.ensemble)
    alphas = torch.tensor(ALPHAS).to(zero)[:, None, None]
    right = torch.zeros(*left_out.shape, len(ALPHAS), device=zero.device)
    for number, out in enumerate(left_out.T):
        weight, bias = fit(setting.support[~out], setting.targets[~out], len(setting.labels))
        mixed = zero[out] + alphas * (setting.support[out] @ weight.T + bias)  # (C, n, K)
        right[out, number] = (mixed.argmax(-1) == setting.targets[out]).float().T
    return ALPHAS[blend.smallest_as_good(right, left_out)]


register(
    MethodSpec(
        id="gda",
        name="GDA",
        family="head",
        recommended=True,
        sentence="Trains nothing: measures where each label's images lie and how they spread, and adds what that says "
        "to zero-shot.",
        use_when="You have two or more images a label and want the answer at once; it keeps zero-shot where your "
        "images give no reason to leave it.",
        equation="logits = s·f·Tᵀ + α(f·Wᵀ + b),  wₖ = Σ⁻¹μₖ,  bₖ = −μₖᵀΣ⁻¹μₖ/2,  Σ⁻¹ = P((N−1)S + tr(S)·I)⁻¹",
        paper="Wang et al. 2024, A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, OpenReview "
        "Js5PJPHDyY",
        config=GdaConfig,
        tuner=lambda: Gda,
        count=lambda shape, config, K, N: 0,
        formula="0 (keeps K·(P + 1) numbers)",
        runs_on="features",
        failures=(
            "One covariance for all labels: where some labels vary far more than others, a trained head fits better.",
            "With one image a label it is zero-shot: nothing can be left out to choose its weight by.",
        ),
        saved="weight and bias of each label, alpha",
        presets={"budget": lambda shots: GdaConfig()},
    )
)
