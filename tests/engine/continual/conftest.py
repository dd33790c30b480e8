"""Streams of coloured pictures on the tiny backbone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.continual import strategy
from engine.continual.run import StreamRun
from engine.continual.strategy import StepData, Strategy
from engine.continual.tasks import Stream, build_stream, split_labels
from engine.types import Label

NAMES = ("red", "green", "blue")


def make_stream(images, steps: int = 3, shots: int = 4) -> Stream:
    """Return the three colours in some steps."""
    labels = [Label(name, name) for name in NAMES]
    return build_stream(labels, [image.label for image in images], split_labels(NAMES, steps), shots)


@pytest.fixture
def learned(tiny, task_images) -> Callable[..., tuple[Strategy, list[int]]]:
    """Return a function that trains a strategy in some steps: (strategy, test images)."""

    def train(name: str, steps: int = 3, **settings) -> tuple[Strategy, list[int]]:
        stream = make_stream(task_images, steps)
        run = StreamRun(name, stream, task_images, tiny, settings)
        for step in stream.steps:
            torch.manual_seed(0)
            targets = torch.tensor([stream.targets[i] for i in step.train])
            list(run.learner.learn(StepData(step.classes, step.train, targets)))
        return run.learner, [i for step in stream.steps for i in step.test]

    return train


@pytest.fixture(params=[spec.id for spec in strategy.strategies()])
def every_strategy(request: pytest.FixtureRequest) -> str:
    """Id of each registered strategy."""
    return request.param
