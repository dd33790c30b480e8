"""One Gaussian a label, with one covariance for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.continual.strategy import StrategySpec, register
from engine.continual.sums import Moments
from engine.tuning.tuner import Config, option


@dataclass(frozen=True)
class GaussianConfig(Config):
    """Settings of the shared Gaussian."""

    method = "gaussian"
    shrinkage: float = option(0.1, 1e-6, 1, help="share of a round covariance mixed into the measured one")


class Gaussian(Moments):
    """Linear discriminant of running means and one covariance (Hayes and Kanan 2020), at equal priors.

    ``score_k = μ_kᵀ Λ f - ½ μ_kᵀ Λ μ_k`` with ``Λ = ((1 - ε) Σ + ε tr(Σ)/P I)⁻¹`` and Σ the scatter within labels
    over ``max(1, N - K)``.
    """

    def scores(self, images: Sequence[int]) -> Tensor:
        means, total = self.means, self.counts.sum()
        scatter = self.moment - (means * self.counts[:, None]).T @ means
        covariance = scatter / (total - len(means)).clamp(min=1)
        share, eye = self.config.shrinkage, torch.eye(self.width, dtype=means.dtype, device=means.device)
        spread = (covariance.trace() / self.width).clamp(min=1e-6)  # one image a label has no scatter at all
        weight = torch.linalg.solve((1 - share) * covariance + share * spread * eye, means.T)  # (P, seen)
        return self.mapped(images) @ weight - 0.5 * (means * weight.T).sum(1)


register(
    StrategySpec(
        id="gaussian",
        name="Gaussian, shared covariance",
        family="closed form",
        sentence="Keeps each label's mean and one covariance of all of them, and draws the best straight borders.",
        equation="score_k = μ_kᵀ Λ f − ½ μ_kᵀ Λ μ_k,  Λ = ((1 − ε) Σ + ε tr(Σ)/P · I)⁻¹",
        paper="Hayes and Kanan 2020, arXiv 1909.01520",
        config=GaussianConfig,
        strategy=lambda: Gaussian,
        count="K·P + P²",
        failures=("With a few images in all, the covariance is mostly the shrinkage.",),
    )
)
