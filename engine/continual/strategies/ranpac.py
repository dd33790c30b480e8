"""Ridge on random features, from running sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.continual.strategy import StrategySpec, StreamContext, register
from engine.continual.sums import Moments
from engine.tuning.tuner import Config, option


@dataclass(frozen=True)
class RanpacConfig(Config):
    """Settings of RanPAC."""

    method = "ranpac"
    width: int = option(1000, 1, 20_000, help="M, random features; 10,000 in the paper")
    ridge: float = option(0.1, 1e-8, 1e4, help="ridge penalty, in units of the random features' mean square")


class Ranpac(Moments):
    """Ridge on random features (McDonnell et al. 2023, equations 5 to 7): ``h = relu(f W)``, ``G = Σ h hᵀ``,
    ``C = Σ h yᵀ``, scores ``hᵀ (G + λ I)⁻¹ C``. The sums a label are the columns of C."""

    def __init__(self, config: RanpacConfig, context: StreamContext):
        super().__init__(config, context)
        inputs, self.width = self.width, config.width
        generator = torch.Generator().manual_seed(context.seed)
        self.projection = torch.randn(inputs, self.width, generator=generator).to(self.sums)
        self.sums = self.sums.new_zeros(0, self.width)
        self.moment = self.sums.new_zeros(self.width, self.width)
        self._solved: tuple[float, Tensor] | None = None

    def mapped(self, images: Sequence[int]) -> Tensor:
        return (self.context.store.features(images).double() @ self.projection).relu()

    def weight(self) -> Tensor:
        """Solve for the classifier ``(M, seen)``, once a step."""
        total = float(self.counts.sum())
        if self._solved is None or self._solved[0] != total:
            penalty = self.config.ridge * self.moment.trace() / self.width
            eye = torch.eye(self.width, dtype=self.moment.dtype, device=self.moment.device)
            factor = torch.linalg.cholesky(self.moment + penalty * eye)
            self._solved = total, torch.cholesky_solve(self.sums.T, factor)
        return self._solved[1]

    def scores(self, images: Sequence[int]) -> Tensor:
        return self.mapped(images) @ self.weight()


register(
    StrategySpec(
        id="ranpac",
        name="RanPAC",
        family="closed form",
        sentence="Spreads features by a random projection and fits a ridge classifier from running sums.",
        equation="scores = hᵀ (Σ h hᵀ + λ I)⁻¹ Σ h yᵀ,  h = relu(f W), W random",
        paper="McDonnell et al. 2023, arXiv 2307.02251",
        config=RanpacConfig,
        strategy=lambda: Ranpac,
        count="K·M + M²",
        failures=("The penalty is fixed, not chosen on held-out images as in the paper; the sums take M² numbers.",),
    )
)
