"""Every method that trains through a tower, with each loss it offers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from engine.tuning import loop, registry
from engine.tuning.losses import LOSSES
from engine.tuning.tuner import TowerConfig
from tests.contract.test_contract import built, finished

TOWERS = [spec.id for spec in registry.methods() if issubclass(spec.config, TowerConfig)]


@pytest.mark.parametrize("method", TOWERS)
def test_steps_with_each_loss(method, task_images, tiny):
    """The first step's loss is the formula's, gradients reach what is trained, and losses differ."""
    seen = set()
    for name, loss in LOSSES.items():
        run, setting, tuner = built(task_images, method, tiny, loss=name, dropout=0.0)
        inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
        start = {key: p.detach().clone() for key, p in tuner.trained().items()}
        with torch.no_grad():
            logits = tuner.eval()(inputs) + tuner.added_bias
        assert (tuner.added_bias != 0) == (name == "sigmoid")
        value, right = tuner.objective(inputs, setting.targets)
        extra = value.item() - loss(logits, setting.targets).item()  # AdaLoRA's distance to orthogonal factors
        assert extra > 0 if method == "adalora" else abs(extra) < 1e-3 * (1 + value.item())
        assert right.shape == (12, 3)
        steps = list(itertools.islice(loop.fit(tuner, inputs[None], setting.targets, run.config, 0), 3))
        assert all(math.isfinite(step[2]) for step in steps)
        assert any(not torch.equal(start[key], p) for key, p in tuner.trained().items())
        seen.add(round(value.item(), 3))
    assert len(seen) == len(LOSSES)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_says_its_loss(loss, task_images, tiny):
    run, _, _ = built(task_images, "prompt_tuning", tiny, loss=loss, epochs=2)
    assert run.forecast().steps == 4
    _, outcome = finished(run)
    assert outcome.result.config["loss"] == outcome.result.to_json()["config"]["loss"] == loss


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns(loss, task_images, tiny):
    run, setting, tuner = built(task_images, "full", tiny, loss=loss, lr=2e-5, epochs=20)
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)[None]
    losses = [step[2] for step in loop.fit(tuner, inputs, setting.targets, run.config, 0)]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
