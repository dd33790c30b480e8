"""CLAP: a probe held near the texts, most where zero-shot already knows the label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import HeadConfig, Tuner, TunerContext, option


@dataclass(frozen=True)
class ClapConfig(HeadConfig):
    """CLAP's own numbers. Full batch: an epoch is one step."""

    method = "clap"
    epochs: int = option(300, 1, 10_000, help="steps, each on all training images")
    optimizer: str = option("sgd", choices=("adamw", "sgd"), help="optimizer")
    lr: float = option(0.1, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate is 1e-5")
    warmup: str = option("constant", choices=("linear", "constant"), help="a line up from zero, or constant at 1e-5")


class Clap(Tuner):
    """``s f normalise(w_k)^T`` with ``mean over k of lambda_k ‖w_k - t_k‖²`` in the loss."""

    full_batch = True
    lambdas: Tensor

    def __init__(self, config: ClapConfig, setting: TunerContext):
        super().__init__(config, setting)
        self.weight = nn.Parameter(setting.ensemble.clone())  # (K, P)
        self.register_buffer("lambdas", known_share(setting), persistent=False)

    def text_features(self) -> Tensor:
        return nn.functional.normalize(self.weight, dim=-1)

    def penalty(self) -> Tensor:
        """Return the weighted squared distance to the texts, a scalar."""
        return (self.lambdas * (self.weight - self.frozen_text).square().sum(1)).mean()

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().objective(x, targets)
        return loss + self.penalty(), logits


@torch.no_grad()
def known_share(setting: TunerContext) -> Tensor:
    """Return ``(K,)``: the mean zero-shot probability of each label on its own images; 1 where it has none."""
    labels, targets = len(setting.labels), setting.targets
    probabilities = setting.backbone.logits(setting.support, setting.ensemble).softmax(1)
    own = probabilities.gather(1, targets[:, None])[:, 0]  # (N,)
    images = torch.bincount(targets, minlength=labels).to(own)
    total = torch.zeros_like(images).index_add_(0, targets, own)
    return torch.where(images > 0, total / images.clamp(min=1), torch.ones_like(images))


register(
    MethodSpec(
        id="clap",
        name="CLAP",
        family="head",
        sentence="Trains one weight vector a label and holds it near the label's text, most where zero-shot is right "
        "already.",
        use_when="You want one set of numbers for every task and have no images to choose them by.",
        equation="logits = s·f·normalise(W)ᵀ,  loss + mean over k of λₖ‖wₖ − tₖ‖²,  λₖ = mean zero-shot p(k) on k's "
        "images",
        paper="Silva-Rodríguez et al. 2024, A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, "
        "arXiv 2312.12730",
        config=ClapConfig,
        tuner=lambda: Clap,
        count=lambda shape, config, K, N: K * shape.embedding,
        formula="K·P",
        runs_on="features",
        failures=(
            "The strength comes from zero-shot's own confidence: where that is wrongly sure, it holds too tight.",
            "Knows only the labels it was trained on.",
        ),
        saved="the weights of each label",
        starts_at="zero_shot_ensemble",
        presets={"budget": lambda shots: ClapConfig(blend="auto"), "paper": lambda shots: ClapConfig(views=20)},
    )
)
