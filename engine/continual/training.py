"""Strategies that gradient steps train: what all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import FEATURES
from engine.continual.strategy import Moment, StepData, Strategy, StreamContext
from engine.tuning.features import Views
from engine.tuning.loop import fit
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext, option

TEMPERATURE = 2.0
"""Of the distilled logits, as in Li and Hoiem 2016."""


@dataclass(frozen=True)
class StreamConfig(TrainConfig):
    """Settings of a strategy that is trained; they hold for each step."""

    epochs: int = option(20, 1, 2000, help="passes over a step's training images")
    masked: bool = option(False, help="whether only the labels of the step compete while it is learned")
    lwf: float = option(0.0, 0, 10_000, help="weight of distilling the previous step's logits (LwF); 0 = none")


def tuner_context(context: StreamContext) -> TunerContext:
    """Return what a tuner is built for. There are no support images of all labels at once."""
    none = context.text.new_zeros(1, context.text.shape[1])
    targets = torch.zeros(1, dtype=torch.long, device=none.device)
    return TunerContext(
        context.backbone, context.labels, context.templates, context.text, context.text, none, targets, context.seed
    )


class Learner(Tuner):
    """What gradient steps train over a stream. Its logits have a column a learned label, in the order of ``seen``."""

    def __init__(self, config: StreamConfig, context: StreamContext):
        super().__init__(config, tuner_context(context))
        self.seen: list[int] = []
        self.competing = slice(0, 0)
        self.queries = self.frozen_text.new_zeros(0)
        self.teacher: Tensor | None = None
        self.batch: tuple[Tensor, Tensor] | None = None

    def grow(self, classes: Sequence[int]) -> None:
        """Make room for labels that arrive."""
        self.seen += [k for k in classes if k not in self.seen]

    def logits(self, x: Tensor, query: Tensor) -> Tensor:
        """Map values ``(B, ...)`` at :attr:`stage` and frozen image features ``(B, P)`` to logits ``(B, seen)``."""
        return self.backbone.logits(self.encode(x, query), self.frozen_text[self.seen])

    def encode(self, x: Tensor, query: Tensor) -> Tensor:
        """Return normalised image features ``(B, P)``."""
        return query

    def extra_loss(self) -> Tensor | float:
        """Return what the last forward pass adds to the loss."""
        return 0.0

    def begin(self, queries: Tensor, teacher: Tensor | None, first: int) -> None:
        """Take up what a step needs.

        Args:
            queries: frozen features ``(V, N, P)`` of the training images.
            teacher: the previous step's logits ``(V, N, old)``, where they are distilled.
            first: column from which on labels compete.
        """
        self.queries, self.teacher, self.competing = queries, teacher, slice(first, len(self.seen))

    def set_batch(self, views: Tensor, chosen: Tensor) -> None:
        self.batch = views, chosen

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy among the competing labels, the strategy's own terms, and distillation."""
        assert self.batch is not None
        logits = self.logits(x, self.queries[self.batch])
        own = logits[:, self.competing]
        loss = self.loss(own + self.added_bias, targets - self.competing.start) + self.extra_loss()
        if self.teacher is not None:
            loss = loss + self.config.lwf * distillation(logits, self.teacher[self.batch])
        return loss, logits


def distillation(logits: Tensor, old: Tensor) -> Tensor:
    """Return ``T² KL(old ‖ new)`` over the labels of earlier steps, at ``TEMPERATURE``.

    Args:
        logits: ``(B, seen)``; the first columns are those of ``old``.
        old: the previous step's ``(B, old)``.
    """
    new = F.log_softmax(logits[:, : old.shape[1]] / TEMPERATURE, dim=1)
    return TEMPERATURE**2 * F.kl_div(
        new, F.log_softmax(old / TEMPERATURE, dim=1), reduction="batchmean", log_target=True
    )


@dataclass(eq=False)
class Material:
    """What a step trains with: V views of N images."""

    inputs: Tensor
    """Values at the learner's stage ``(V, N, ...)``."""
    queries: Tensor
    """Frozen features ``(V, N, P)``."""
    targets: Tensor
    """Classes ``(N,)`` of the stream."""

    def joined(self, other: Material) -> Material:
        """Return these images and others."""
        return Material(
            torch.cat([self.inputs, other.inputs], 1),
            torch.cat([self.queries, other.queries], 1),
            torch.cat([self.targets, other.targets]),
        )

    def taken(self, chosen: Sequence[int]) -> Material:
        """Return some of the images."""
        return Material(self.inputs[:, chosen], self.queries[:, chosen], self.targets[list(chosen)])


class Trained(Strategy):
    """A learner that goes on from step to step with the images of the step alone."""

    def __init__(self, config: StreamConfig, context: StreamContext):
        super().__init__(config, context)
        self.learner = self.build()

    def build(self) -> Learner:
        """Return the learner before its first step."""
        raise NotImplementedError

    def material(self, step: StepData) -> Material:
        """Return what a step trains with."""
        store, views = self.context.store, Views(self.config.views, self.config.min_crop, self.context.seed)
        stage = self.learner.stage

        def values(stage: int) -> Tensor:
            return torch.stack([store.stage(stage, step.images, view, views) for view in range(views.count)])

        queries = values(FEATURES)
        return Material(queries if stage == FEATURES else values(stage), queries, step.targets)

    def before(self, step: StepData, material: Material) -> None:
        """Change the learner where a step begins; it has room for the new labels."""

    def learn(self, step: StepData) -> Iterator[Moment]:
        material, old = self.material(step), len(self.seen)
        teacher = self._taught(material) if self.config.lwf and old else None
        self.learner.grow(step.classes)
        self.before(step, material)
        self.seen = list(self.learner.seen)
        self.learner.begin(material.queries, teacher, old if self.config.masked else 0)
        columns = torch.tensor([self.seen.index(int(k)) for k in material.targets], device=material.targets.device)
        for done, total, loss, _ in fit(self.learner, material.inputs, columns, self.config, self.context.seed):
            yield done, total, loss
        self.learner.eval()
        self.learner.begin(material.queries[:0], None, 0)

    @torch.no_grad()
    def _taught(self, material: Material) -> Tensor:
        """Return the logits ``(V, N, old)`` of the learner as the previous step left it."""
        self.learner.eval()
        pairs = zip(material.inputs, material.queries, strict=True)
        return torch.stack([self.learner.logits(x, query) for x, query in pairs])

    @property
    def trained(self) -> int:
        return sum(p.numel() for p in self.learner.trained().values())

    def _values(self, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        store = self.context.store
        query = store.features(images)
        return (query if self.learner.stage == FEATURES else store.stage(self.learner.stage, images)), query

    @torch.no_grad()
    def scores(self, images: Sequence[int]) -> Tensor:
        return self.learner.logits(*self._values(images))

    @torch.no_grad()
    def features(self, images: Sequence[int]) -> Tensor:
        return self.learner.encode(*self._values(images))

    def tensors(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.learner.saved().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.learner.grow(self.seen)
        with torch.no_grad():
            for name, value in self.learner.saved().items():
                value.copy_(self.taken(tensors, name, value.shape))


class Head(Learner):
    """A linear classifier on frozen features; a label's row starts from its text."""

    start: Tensor

    def __init__(self, config: StreamConfig, context: StreamContext):
        super().__init__(config, context)
        start = self.backbone.scale.detach() * context.text
        self.register_buffer("start", start, persistent=False)
        self.weight = nn.Parameter(start[:0].clone())  # (seen, P)
        self.bias = nn.Parameter(start[:0, 0].clone())  # (seen,)

    def grow(self, classes: Sequence[int]) -> None:
        fresh = [k for k in classes if k not in self.seen]
        super().grow(classes)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), self.start[fresh]]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), self.start[fresh, 0] * 0]))

    def logits(self, x: Tensor, query: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@dataclass(frozen=True)
class HeadConfig(StreamConfig):
    """Settings of a linear head."""

    epochs: int = option(50, 1, 2000, help="passes over a step's training images")
    lr: float = option(0.05, 1e-8, 100, help="peak learning rate")


class HeadStrategy(Trained):
    """A linear head on frozen features."""

    def build(self) -> Learner:
        return Head(self.config, self.context)


class Remembering(HeadStrategy):
    """A head that also trains on what it remembers of old images: the features of some of them."""

    def __init__(self, config: HeadConfig, context: StreamContext):
        super().__init__(config, context)
        self.memory: Material | None = None

    def kept(self, count: int) -> int:
        """Return how many of a label's ``count`` images are remembered."""
        raise NotImplementedError

    def material(self, step: StepData) -> Material:
        found = super().material(step)
        chosen: list[int] = []
        for k in step.classes:
            places = (found.targets == k).nonzero()[:, 0].tolist()
            chosen += places[: self.kept(len(places))]
        both = found if self.memory is None else self.memory.joined(found)
        fresh = found.taken(chosen)
        self.memory = fresh if self.memory is None else self.memory.joined(fresh)
        return both

    def tensors(self) -> dict[str, Tensor]:
        if self.memory is None:
            return super().tensors()
        return {**super().tensors(), "memory": self.memory.inputs, "memory_targets": self.memory.targets}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        size = len(tensors.get("memory_targets", ()))
        shape = (self.config.views, size, self.context.text.shape[1])
        targets = self.taken(tensors, "memory_targets", (size,))
        memory = self.taken(tensors, "memory", shape)
        self.memory = Material(memory, memory, targets)
