"""The frozen model, the bound that any tuning must beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.continual.strategy import Moment, StepData, Strategy, StrategySpec, register
from engine.tuning.tuner import Config


@dataclass(frozen=True)
class ZeroShotConfig(Config):
    """Zero-shot has no settings."""

    method = "zero_shot"


class ZeroShot(Strategy):
    """The frozen model, which learns nothing and so forgets nothing."""

    def learn(self, step: StepData) -> Iterator[Moment]:
        self.seen += step.classes
        yield 1, 1, None

    def scores(self, images: Sequence[int]) -> Tensor:
        return self.text_scores(images)[:, self.seen]

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing is kept."""


register(
    StrategySpec(
        id="zero_shot",
        name="Zero-shot",
        family="bound",
        sentence="Learns nothing: the frozen model reads the labels' names. It loses only as more labels compete.",
        equation="score_k = s · cos(f, w_k)",
        paper="Radford et al. 2021, arXiv 2103.00020",
        config=ZeroShotConfig,
        strategy=lambda: ZeroShot,
        count="0",
        failures=("Gains nothing from your images.",),
    )
)
