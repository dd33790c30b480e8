"""Holding tuned text features near the frozen ones, so that labels that were not tuned on are not forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine.tuning.tuner import TowerConfig, Tuner, option


@dataclass(frozen=True)
class KeepConfig(TowerConfig):
    """Settings of a method that tunes the texts (Yao et al. 2023, KgCoOp, arXiv 2303.13283)."""

    keep: float = option(
        0.0, 0, 1000, help="weight of the mean squared distance of the texts to the frozen ones (KgCoOp: 8); 0 = none"
    )


class KeepsTexts(Tuner):
    """``loss + keep · mean over k of ‖w_k - t_k‖²``, t the frozen ensemble's text features."""

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not getattr(self.config, "keep", 0.0):
            return super().objective(x, targets)
        text = self.text_features()
        logits, _ = self.outputs(x, text)
        distance = (text - self.frozen_text).square().sum(1).mean()
        return self.loss(logits + self.added_bias, targets) + self.config.keep * distance, logits
