"""Running a strategy over a stream: learn a step, measure all of them, go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.backbones.base import FEATURES, Backbone
from engine.continual import metrics, state, strategy
from engine.continual.results import Selection, StrategyResult
from engine.continual.state import SavedState
from engine.continual.strategy import CHUNK, StepData, Strategy, StreamContext
from engine.continual.tasks import Stream
from engine.data.episode import templates
from engine.data.images import ImageFile
from engine.tuning.features import SHARED, Cache, FeatureStore, text_features
from engine.tuning.outcome import Stopped
from engine.types import Progress


class StreamRun:
    """One strategy on one stream. Iterate over :meth:`run`; the last item is a :class:`StrategyResult`.

    Args:
        stream: its steps, whose first ones a saved state may have learned already.
        before: the saved state from which to go on; by default nothing is learned yet.
    """

    def __init__(
        self,
        name: str,
        stream: Stream,
        images: Sequence[ImageFile],
        backbone: Backbone,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        order: int = 0,
        template_set: str = "general",
        stop: threading.Event | None = None,
        cache: Cache = SHARED,
        before: SavedState | None = None,
    ):
        self.spec, self.stream, self.order, self.stop = strategy.get(name), stream, order, stop or threading.Event()
        self.images, self.template_set = tuple(images), template_set
        self.store = FeatureStore(backbone, images, cache, check=self.check)
        sentences = templates(template_set)
        text = text_features(backbone, [label.prompt for label in stream.labels], sentences, cache)
        self.context = StreamContext(backbone, self.store, stream.labels, sentences, text, seed)
        self.learner = self.spec.build(self.context, settings)
        self.first, self.seconds = 0, 0.0
        self.rows: list[list[float]] = []
        self.open_row: list[float] = []
        if before is not None:
            self._go_on(before)

    def _go_on(self, before: SavedState) -> None:
        """Take up a saved state. Raises BadAdapter."""
        self.first, self.seconds = len(before.steps), before.seconds
        unknown = [float("nan")] * (len(self.stream.steps) - self.first)
        self.rows = [row + unknown for row in before.matrix]
        self.open_row = list(before.open_row)
        self.learner.seen = list(range(len(before.labels)))
        self.learner.restore(before.tensors)

    def save(self, folder: Path) -> None:
        """Write what is learned so far, so that another run can go on."""
        state.save(
            folder, self.learner, self.stream, self.images, self.template_set, self.rows, self.open_row, self.seconds
        )

    def check(self) -> None:
        """Raise Stopped where the user asked for it."""
        if self.stop.is_set():
            raise Stopped

    def run(self) -> Iterator[Progress | StrategyResult]:
        """Yield progress, a result after each step, and the whole result at the end. Stopping keeps what is done.
        Raises Stopped where not one step is done, LabError."""
        steps = self.stream.steps
        wanted = [i for step in steps for i in (*step.train, *step.test)]
        for done, total in self.store.prefetch(FEATURES, wanted):
            yield Progress("features", done, total)
        for number in range(self.first, len(steps)):
            try:
                yield from self._learn(number)
                row, among_all = self._measure(number), self._open()
            except Stopped:
                if not self.rows:
                    raise
                yield self._result(stopped=True)
                return
            self.rows.append(row)
            self.open_row.append(among_all)
            if number + 1 < len(steps):
                yield self._result(stopped=True)
        yield self._result()

    def _learn(self, number: int) -> Iterator[Progress]:
        step, steps = self.stream.steps[number], len(self.stream.steps)
        targets = torch.tensor([self.stream.targets[i] for i in step.train], device=self.context.text.device)
        data = StepData(step.classes, step.train, targets)
        torch.manual_seed(self.context.seed)
        started = time.perf_counter()
        for done, total, loss in self.learner.learn(data):
            self.check()
            yield Progress("train", number * total + done, steps * total, loss)
        self.seconds += time.perf_counter() - started

    @torch.no_grad()
    def _measure(self, number: int) -> list[float]:
        """Return a row of the matrix: each step's test images among the labels seen, or among those never tuned."""
        seen = self.learner.seen
        later = [k for k in range(len(self.stream.labels)) if k not in set(seen)]
        row = []
        for j, step in enumerate(self.stream.steps):
            classes = seen if j <= number else later
            if not step.test:  # of a saved state whose test images are gone
                row.append(float("nan"))
                continue
            right = 0
            for chunk in chunks(step.test):
                scores = self.learner.scores(chunk) if j <= number else self.learner.text_scores(chunk)[:, later]
                named = torch.tensor(classes, device=scores.device)[scores.argmax(1)]
                right += sum(int(k) == self.stream.targets[i] for k, i in zip(named, chunk, strict=True))
            row.append(right / len(step.test))
        return row

    @torch.no_grad()
    def _open(self) -> float:
        """Return accuracy on all test images among all labels of the stream."""
        tests = [i for step in self.stream.steps for i in step.test]
        right = 0
        for chunk in chunks(tests):
            named = self.learner.open_probabilities(chunk).argmax(1)
            right += sum(int(k) == self.stream.targets[i] for k, i in zip(named, chunk, strict=True))
        return right / len(tests)

    def _zero_shot_later(self) -> list[float]:
        """Return the frozen model's accuracy on each step among the labels of that step and later ones; NaN for steps
        of a saved state, whose later labels were not known then."""
        found, text = [], self.context.text
        for j, step in enumerate(self.stream.steps):
            if j < self.first:
                found.append(float("nan"))
                continue
            later = [k for part in self.stream.steps[j:] for k in part.classes]
            scores = self.context.backbone.logits(self.store.features(step.test), text[later])
            named = [later[int(k)] for k in scores.argmax(1)]
            found.append(float(np.mean([k == self.stream.targets[i] for k, i in zip(named, step.test, strict=True)])))
        return found

    def _result(self, stopped: bool = False) -> StrategyResult:
        """Return what is known so far; ``stopped`` where steps are missing."""
        done = len(self.rows)
        matrix, steps = np.array(self.rows), self.stream.steps
        square = matrix[:, :done]
        names = [label.name for label in self.stream.labels]
        return StrategyResult(
            self.spec.id,
            self.learner.config.to_dict(),
            self.order,
            tuple(names),
            tuple(tuple(names[k] for k in step.classes) for step in steps),
            matrix,
            tuple(self.open_row),
            tuple(len(step.test) for step in steps),
            metrics.summarise(square, self._zero_shot_later(), self.open_row),
            self.learner.trained,
            self.learner.kept_bytes,
            self.spec.keeps,
            self.seconds,
            selection=None if stopped else selection_of(self.learner, self.stream),
            stopped=stopped,
        )


def chunks(images: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield positions a few at a time."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK]


@torch.no_grad()
def selection_of(learner: Strategy, stream: Stream) -> Selection | None:
    """Return which prompts the test images of each label choose; None where nothing is chosen."""
    origins = learner.origins()
    if not origins.size or not learner.seen:
        return None
    tests = [i for step in stream.steps for i in step.test if stream.targets[i] in learner.seen]
    chosen = np.zeros((len(tests), origins.size), bool)
    for start in range(0, len(tests), CHUNK):
        places = learner.choices(tests[start : start + CHUNK])
        assert places is not None
        chosen[np.arange(start, start + len(places))[:, None], places.cpu().numpy()] = True
    targets = np.array([stream.targets[i] for i in tests])
    counts = np.stack([chosen[targets == k].sum(0) for k in range(len(stream.labels))])
    images = tuple(int((targets == k).sum()) for k in range(len(stream.labels)))
    tested = metrics.dependence(chosen, targets)
    return Selection(counts, images, *tested, origins.began_as, origins.pictures, origins.starts)
