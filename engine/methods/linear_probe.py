"""Logistic regression on frozen image features, held near the text features, near zero or in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.tuning import lbfgs
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import LBFGS, HeadConfig, TrainConfig, Tuner, TunerContext, option

if TYPE_CHECKING:
    from engine.tuning.features import FeatureStore

CHOOSE = -1.0
"""Value of ``penalty`` that stands for a choice by folds."""
STRENGTHS = (10.0, 1.0, 0.3, 0.1, 0.03, 0.003)
"""Penalties times the number of training images, the strongest first: the inverse of scikit-learn's C."""
UNCHOSEN = 0.1
"""The same where no class has two images, so that nothing can be chosen."""
TEXT_SHARES = (1.0, 0.3, 0.0)
"""Shares of the zero-shot weights that the penalty may hold the probe near to; at 0 texts count for nothing."""
VERY_FEW_IMAGES, REPEATS = 100, 3
"""Up to so many images the folds are dealt out several times, which costs next to nothing there."""


@dataclass(frozen=True)
class LinearProbeConfig(HeadConfig):
    """Full batch: an epoch is one step."""

    method = "linear_probe"
    epochs: int = option(300, 1, 10_000, help="steps at most, each on all training images")
    optimizer: str = option(
        "lbfgs", choices=("lbfgs", "adamw", "sgd"), help="lbfgs stops when the loss cannot fall any more"
    )
    lr: float = option(1.0, 1e-6, 100, help="peak learning rate of sgd and adamw; stable up to about 7")
    init: str = option(
        "auto",
        choices=("auto", "text", "noise"),
        help="start from the zero-shot weights or from noise, and with lbfgs held near there; auto = chosen by folds",
    )
    penalty: float = option(
        CHOOSE, -1, 1000, help="with lbfgs: half the weight of the squared distance to the start; -1 = chosen by folds"
    )


class LinearProbe(Tuner):
    """``logits = f W^T + b`` with ``penalty / 2 ‖W - share W0‖²`` in the loss, W0 the scale times the text features.

    With L-BFGS the features are centred while it trains, which changes nothing but the speed: the bias, which is not
    penalised, takes the centre back at the end.
    """

    full_batch = True
    anchor: Tensor
    centre: Tensor

    def __init__(self, config: LinearProbeConfig, setting: TunerContext):
        super().__init__(config, setting)
        anchor = self.backbone.scale.detach() * setting.ensemble
        if config.init == "noise":
            anchor = torch.randn(anchor.shape, generator=setting.generator()).to(anchor) * 0.01
        self.exact = config.optimizer == LBFGS
        centre = setting.support.mean(0) if self.exact else torch.zeros_like(anchor[0])
        self.register_buffer("centre", centre, persistent=False)  # (P,)
        self.register_buffer("anchor", anchor, persistent=False)  # (K, P)
        self.weight = nn.Parameter(anchor.clone())
        bias = torch.zeros_like(anchor[:, 0]) if self.backbone.bias is None else self.backbone.bias.detach()
        self.bias = nn.Parameter(anchor @ centre + bias)
        self.strength = (UNCHOSEN / len(setting.targets) if config.penalty < 0 else config.penalty) if self.exact else 0
        self.setting: TunerContext | None = setting

    def text_features(self) -> Tensor:
        return nn.functional.normalize(self.weight, dim=-1)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return (image - self.centre) @ self.weight.T + self.bias

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().objective(x, targets)
        return loss + self.strength / 2 * (self.weight - self.anchor).square().sum(), logits

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Choose the penalty, and what it holds the weights near to, by folds inside the support."""
        folds, shares, strengths = self.choices()
        if folds is not None and len(shares) * len(strengths) > 1:
            scores = []
            for found in self.score(folds, shares, strengths):
                scores.append(found)
                yield len(scores), len(strengths)
            strength, share = lbfgs.best(scores)
            self._hold(strengths[strength], shares[share])

    def choices(self) -> tuple[Tensor | None, tuple[float, ...], tuple[float, ...]]:
        """Return the folds ``(N, F)``, None where nothing is to be chosen, shares of the start, and penalties."""
        if not self.exact or self.setting is None:
            return None, (), ()
        config, targets = self.config, self.setting.targets
        shares = TEXT_SHARES if config.init == "auto" else (1.0,)
        strengths = tuple(s / len(targets) for s in STRENGTHS) if config.penalty < 0 else (config.penalty,)
        return lbfgs.assign_folds(targets, REPEATS if len(targets) <= VERY_FEW_IMAGES else 1), shares, strengths

    def score(self, folds: Tensor, shares: Sequence[float], strengths: Sequence[float]) -> Iterator[Tensor]:
        """Yield out-of-fold scores ``(S, 2)`` of each strength, as :func:`engine.tuning.lbfgs.score_strengths` does."""
        assert self.setting is not None
        anchors = torch.stack([share * self.anchor for share in shares])[:, None]  # (S, 1, K, P)
        weight = anchors.repeat(1, folds.shape[1], 1, 1).requires_grad_()
        bias = (weight.detach() @ self.centre).requires_grad_()  # (S, F, K)
        x = self.setting.support - self.centre

        def logits() -> Tensor:
            flat = torch.addmm(bias.flatten(), x, weight.flatten(0, 2).T)  # one product for all starts and folds
            return flat.view(len(x), *bias.shape)

        def penalty() -> Tensor:
            return (weight - anchors).square().sum() / 2

        effort = lbfgs.CAREFUL if len(x) <= lbfgs.FEW_IMAGES else lbfgs.ROUGH
        return lbfgs.score_strengths((weight, bias), logits, penalty, self.setting.targets, folds, strengths, effort)

    def _hold(self, strength: float, share: float) -> None:
        """Start at a share of the zero-shot weights, with the penalty's strength."""
        with torch.no_grad():
            self.bias.sub_((1 - share) * (self.anchor @ self.centre))
            self.anchor.mul_(share)
            self.weight.copy_(self.anchor)
        self.strength, self.chosen = strength, {"penalty": strength, "text_share": share}

    def adopt(self, chosen: Mapping[str, float]) -> None:
        if "penalty" in chosen:
            self._hold(chosen["penalty"], chosen["text_share"])

    def pretraining_stages(self) -> Iterator[tuple[Tuner, TrainConfig, int]]:
        folds, shares, strengths = self.choices()
        if folds is not None and self.setting is not None:
            fits = folds.shape[1] * len(shares) * len(strengths)
            config = replace(self.config, optimizer="sgd", epochs=fits * lbfgs.ROUGH[0])
            yield LinearProbe(config, self.setting), config, len(self.setting.targets)

    def finished(self) -> Tuner:
        with torch.no_grad():
            self.bias.sub_(self.weight @ self.centre)
        self.centre.zero_()
        self.setting = None
        return self


def count(shape: Any, config: Any, K: int, N: int) -> int:
    """K(P+1)."""
    return K * (shape.embedding + 1)


register(
    MethodSpec(
        id="linear_probe",
        name="Linear probe",
        family="head",
        recommended=True,
        leading=True,
        sentence="Learns one weight vector a label on top of the frozen image features, held near the label's text "
        "as far as your photos speak for it.",
        use_when="The first thing to try with two or more images a label: it takes seconds on any backbone.",
        equation="logits = f·Wᵀ + b,  loss + λ/2·‖W − W₀‖²,  W₀ = s·(text features) or a share of it",
        paper="Radford et al. 2021, arXiv 2103.00020; text start: Huang et al. 2024 (LP++), arXiv 2404.02285",
        config=LinearProbeConfig,
        tuner=lambda: LinearProbe,
        count=count,
        formula="K(P+1)",
        runs_on="features",
        failures=(
            "With init = noise it loses to zero-shot below about 8 shots.",
            "Knows only the labels it was trained on.",
        ),
        saved="weight and bias of each label",
        starts_at="zero_shot_ensemble",
        presets={
            "budget": lambda shots: LinearProbeConfig(blend="auto"),
            "paper": lambda shots: LinearProbeConfig(init="noise", epochs=1000),
        },
    )
)
