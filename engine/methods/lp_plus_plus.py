"""LP++: a linear probe plus the text logits, weighted label by label, with step sizes from Lipschitz bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import HeadConfig, Tuner, TunerContext, option

CURVATURE = 0.5
"""Bound of the eigenvalues of cross-entropy's Hessian in the logits."""


@dataclass(frozen=True)
class LpPlusPlusConfig(HeadConfig):
    """LP++'s settings. Full batch: an epoch is one step."""

    method = "lp_plus_plus"
    epochs: int = option(300, 1, 10_000, help="steps, each on all training images")
    optimizer: str = option("sgd", choices=("adamw", "sgd"), help="optimizer; the step sizes are meant for sgd")
    lr: float = option(1.0, 1e-6, 10, help="factor of the step that the Lipschitz bounds allow")


class LpPlusPlus(Tuner):
    """``f (w_k + alpha_k t_k)``: w starts at the mean of the label's images, alpha at the logit scale."""

    full_batch = True
    weight_bound: Tensor
    alpha_bound: Tensor

    def __init__(self, config: LpPlusPlusConfig, setting: TunerContext):
        super().__init__(config, setting)
        x, text = setting.support, setting.ensemble
        images = torch.bincount(setting.targets, minlength=len(text)).to(x)
        means = torch.zeros_like(text).index_add_(0, setting.targets, x) / images.clamp(min=1)[:, None]
        self.weight = nn.Parameter(means)  # (K, P)
        self.alpha = nn.Parameter(self.backbone.scale.detach() * torch.ones_like(images))  # (K,)
        weight_bound, alpha_bound = bounds(x, text)
        self.register_buffer("weight_bound", weight_bound.clamp(min=1e-9), persistent=False)  # a scalar
        self.register_buffer("alpha_bound", alpha_bound.clamp(min=1e-9), persistent=False)  # (K,)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        weight, alpha = slowed(self.weight, self.weight_bound), slowed(self.alpha, self.alpha_bound)
        logits = image @ weight.T + alpha * (image @ text.T)
        return logits if self.backbone.bias is None else logits + self.backbone.bias


def slowed(parameter: Tensor, bound: Tensor) -> Tensor:
    """Return the parameter itself, whose gradient will be divided by a bound."""
    return parameter.detach() + (parameter - parameter.detach()) / bound


@torch.no_grad()
def bounds(x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of the loss's curvature in all weights, a scalar, and in each label's alpha, ``(K,)``.

    A gradient divided by its bound is the longest step that cannot raise the loss of its block.
    """
    in_weights = CURVATURE * torch.linalg.matrix_norm(x, 2) ** 2 / len(x)
    return in_weights, CURVATURE * (x @ text.T).square().mean(0)


register(
    MethodSpec(
        id="lp_plus_plus",
        name="LP++",
        family="head",
        sentence="A linear probe beside zero-shot, with a trained weight of each label's text; its steps are as long "
        "as the data allows.",
        use_when="You want a trained head without a learning rate to choose.",
        equation="logitₖ = f·(wₖ + αₖ·tₖ),  steps 1/L with L_w = λmax(FᵀF)/2N and L_α = mean (f·tₖ)²/2",
        paper="Huang et al. 2024, LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, arXiv 2404.02285",
        config=LpPlusPlusConfig,
        tuner=lambda: LpPlusPlus,
        count=lambda shape, config, K, N: K * shape.embedding + K,
        formula="K·P + K",
        runs_on="features",
        failures=(
            "Nothing but the number of steps holds it near zero-shot: where zero-shot is nearly right, it loses.",
            "Knows only the labels it was trained on.",
        ),
        saved="the weights of each label and the weight of its text",
        presets={"budget": lambda shots: LpPlusPlusConfig(blend="auto")},
    )
)
