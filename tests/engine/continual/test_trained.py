"""Strategies that are trained: what each of them must do by its definition, and the bounds in their order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from engine.continual.results import StrategyResult
from engine.continual.run import StreamRun
from engine.continual.strategy import StepData
from engine.continual.training import HeadStrategy, distillation
from engine.errors import BadConfig
from engine.tuning.outcome import Stopped
from engine.types import Progress
from tests.engine.continual.conftest import make_stream


def results(name, tiny, images, stop=None, **settings) -> list[StrategyResult]:
    run = StreamRun(name, make_stream(images), images, tiny, settings, stop=stop)
    return [item for item in run.run() if isinstance(item, StrategyResult)]


def test_a_result_after_each_step_and_the_whole_at_the_end(tiny, task_images, every_strategy):
    found = results(every_strategy, tiny, task_images)
    assert [len(item.matrix) for item in found] == [1, 2, 3]
    assert [item.stopped for item in found] == [True, True, False]
    assert found[-1].matrix.shape == (3, 3) and np.isfinite(found[-1].matrix).all()
    assert found[-1].to_json()["measures"]["accuracy"] == pytest.approx(found[-1].matrix[-1].mean())


def test_joint_ends_where_one_step_ends(learned):
    steps, images = learned("joint", 3)
    once, _ = learned("joint", 1)
    assert len(steps.memory.targets) == 12
    assert (steps.scores(images).argmax(1) == once.scores(images).argmax(1)).float().mean() > 0.9


def test_replay_keeps_n_images_a_label_and_says_so(learned):
    learner, _ = learned("replay", memory=2)
    assert torch.bincount(learner.memory.targets).tolist() == [2, 2, 2]
    assert learner.kept_bytes > learned("sequential")[0].kept_bytes


def test_distillation_by_hand():
    old, new = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0, 5.0]])
    p = torch.tensor([[1.0, 0.0]]).softmax(1)  # of the old logits over T = 2
    assert float(distillation(new, old)) == pytest.approx(4 * float((p * (p.log() - np.log(0.5))).sum()), rel=1e-5)
    assert float(distillation(torch.cat([old, new], 1), old)) == pytest.approx(0, abs=1e-6)


def test_distillation_holds_what_the_old_labels_were_told_apart_by(tiny, task_images):
    stream = make_stream(task_images, 2)
    places = stream.steps[1].train

    def moved(weight: float) -> float:
        """How far the old labels' logits move against each other in the last step, on its images."""
        run = StreamRun("lwf", stream, task_images, tiny, {"lwf": weight})
        gaps = []
        for step in stream.steps:
            torch.manual_seed(0)
            targets = torch.tensor([stream.targets[i] for i in step.train])
            list(run.learner.learn(StepData(step.classes, step.train, targets)))
            gaps.append(run.learner.scores(places)[:, :2].diff(dim=1))
        return float((gaps[1] - gaps[0]).abs().mean())

    assert moved(100.0) < 0.5 * moved(0.0)


def test_stop_keeps_the_steps_that_are_done(tiny, task_images):
    stop = threading.Event()
    run = StreamRun("sequential", make_stream(task_images), task_images, tiny, stop=stop)
    found = []
    for item in run.run():
        if isinstance(item, StrategyResult):
            found.append(item)
            stop.set()
    assert len(found[-1].matrix) == 1 and found[-1].stopped
    early = threading.Event()
    early.set()
    with pytest.raises(Stopped):
        list(StreamRun("sequential", make_stream(task_images), task_images, tiny, stop=early).run())


def test_progress_counts_all_steps(tiny, task_images):
    run = StreamRun("sequential", make_stream(task_images), task_images, tiny, {"epochs": 2})
    moments = [item for item in run.run() if isinstance(item, Progress) and item.stage == "train"]
    assert moments[-1].done == moments[-1].total and isinstance(run.learner, HeadStrategy)


def test_unknown_setting_and_value():
    from engine.continual import strategy

    with pytest.raises(BadConfig, match="has no setting"):
        strategy.get("lwf").configure({"x": 1})
    with pytest.raises(BadConfig, match="must be"):
        strategy.get("replay").configure({"memory": "0"})
    with pytest.raises(BadConfig, match="Choose one of"):
        strategy.get("nothing")
