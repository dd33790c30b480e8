"""Ridge for learned labels that leaves all others to zero-shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.continual.strategies.ranpac import Ranpac, RanpacConfig
from engine.continual.strategy import StrategySpec, register
from engine.tuning.tuner import option


@dataclass(frozen=True)
class RailConfig(RanpacConfig):
    """Settings of RAIL."""

    method = "rail"
    share: float = option(0.8, 0, 1, help="share of the ridge classifier against zero-shot for learned labels")


class Rail(Ranpac):
    """Ridge for labels that were learned, zero-shot for the others (Xu et al. 2024).

    Zero-shot decides first: where it names a learned label, learned labels are scored by ``(1 - β) p + β r`` of
    zero-shot probabilities p and ridge scores r; where it names another one, that stands.
    """

    def scores(self, images: Sequence[int]) -> Tensor:
        zero_shot = self.text_scores(images)[:, self.seen].softmax(1).double()
        return (1 - self.config.share) * zero_shot + self.config.share * super().scores(images)

    def open_probabilities(self, images: Sequence[int]) -> Tensor:
        """Return zero-shot probabilities, in which the learned label that the ridge names takes the place of those
        that zero-shot found among the learned ones."""
        found = self.text_scores(images).softmax(1)
        learned = torch.zeros(found.shape[1], dtype=torch.bool, device=found.device)
        learned[self.seen] = True
        inside = learned[found.argmax(1)]
        rows = torch.zeros_like(found)
        rows[:, self.seen] = self.scores(images).softmax(1).to(found.dtype)
        return torch.where(inside[:, None], rows, found)


register(
    StrategySpec(
        id="rail",
        name="RAIL",
        family="closed form",
        sentence="A ridge classifier for learned labels beside zero-shot, which goes on deciding about all others.",
        equation="zero-shot names a learned label: (1 − β) p + β hᵀ (Σ h hᵀ + λ I)⁻¹ Σ h yᵀ; otherwise: p",
        paper="Xu et al. 2024, arXiv 2406.18868",
        config=RailConfig,
        strategy=lambda: Rail,
        count="K·M + M²",
        failures=("Where zero-shot takes a learned label for another one, the ridge is not asked.",),
    )
)
