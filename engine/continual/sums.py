"""Running sums: what grows with each step so that T steps give exactly what one step gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from engine.continual.strategy import Moment, StepData, Strategy, StreamContext, grown
from engine.tuning.tuner import Config


class Sums(Strategy):
    """Running sums of features a label, in fp64 so that their order does not matter."""

    width: int
    """Size of what is summed."""

    def __init__(self, config: Config, context: StreamContext):
        super().__init__(config, context)
        self.width = context.text.shape[1]
        self.sums = context.text.new_zeros(0, self.width, dtype=torch.float64)
        self.counts = context.text.new_zeros(0, dtype=torch.float64)

    def mapped(self, images: Sequence[int]) -> Tensor:
        """Return what is summed of images, ``(B, width)`` in fp64."""
        return self.context.store.features(images).double()

    def learn(self, step: StepData) -> Iterator[Moment]:
        self.seen += [k for k in step.classes if k not in self.seen]
        columns = torch.tensor([self.seen.index(int(k)) for k in step.targets], device=self.sums.device)
        self.sums, self.counts = grown(self.sums, len(self.seen)), grown(self.counts, len(self.seen))
        values = self.mapped(step.images)
        self.sums.index_add_(0, columns, values)
        self.counts.index_add_(0, columns, torch.ones_like(columns, dtype=torch.float64))
        self.add(values)
        yield 1, 1, None

    def add(self, values: Tensor) -> None:
        """Take more from a step's values ``(N, width)`` than their sums."""

    @property
    def means(self) -> Tensor:
        """Mean ``(seen, width)`` a label."""
        return self.sums / self.counts[:, None]

    def tensors(self) -> dict[str, Tensor]:
        return {"sums": self.sums, "counts": self.counts}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.sums = self.taken(tensors, "sums", (len(self.seen), self.width))
        self.counts = self.taken(tensors, "counts", (len(self.seen),))


class Moments(Sums):
    """Running sums and the running second moment ``Σ h hᵀ``."""

    def __init__(self, config: Config, context: StreamContext):
        super().__init__(config, context)
        self.moment = self.sums.new_zeros(self.width, self.width)

    def add(self, values: Tensor) -> None:
        self.moment += values.T @ values

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "moment": self.moment}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        self.moment = self.taken(tensors, "moment", (self.width, self.width))
