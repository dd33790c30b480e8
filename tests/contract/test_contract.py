"""What every registered method must keep to; a new method is tested by being registered."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.backbones.base import PIXELS, POOLED
from engine.data import episode
from engine.data.episode import templates
from engine.errors import MESSAGES
from engine.methods.peft_table import ROWS
from engine.runs import store
from engine.runs.run import Run
from engine.tuning import loop, registry
from engine.tuning.features import Cache, FeatureStore, Views
from engine.tuning.learned import NEAREST, LearnedImage
from engine.tuning.losses import classification
from engine.tuning.outcome import Outcome
from engine.tuning.predict import predict
from engine.tuning.tuner import TrainConfig, TunerContext
from engine.types import Label, Progress, RunSpec

METHODS = [spec.id for spec in registry.methods()]
ONE_BY_ONE = [method for method in METHODS if method not in ROWS]
"""Rows of PEFT's table share their code: each keeps the shorter contract of test_peft.py."""
TRAINED = [method for method in ONE_BY_ONE if registry.get(method).tuner().trains]
LABELS = (Label("red", "red square"), Label("green", "green square"), Label("blue", "blue square"))


def short(method: str, **settings):
    """The budget preset with few epochs; a learning rate that suits a random tower."""
    spec = registry.get(method)
    names = {f.name for f in dataclasses.fields(spec.config)}
    wanted = {"epochs": 12, "batch_size": 8, "views": 1, "warmup_epochs": 0} | settings
    return {name: value for name, value in wanted.items() if name in names}


def built(task_images, method: str, tiny, shots: int = 4, **settings):
    """(run, setting, tuner) before training."""
    chosen = episode.build(LABELS, [image.label for image in task_images], shots)
    spec = RunSpec("tiny", method, chosen, settings=tuple(short(method, **settings).items()))
    run = Run(spec, task_images, tiny, cache=Cache())
    setting = run._setting(chosen.final_support)
    torch.manual_seed(0)
    return run, setting, run.method.tuner()(run.config, setting)


def finished(run: Run) -> tuple[list[Progress], Outcome]:
    """All progress and the outcome."""
    *progress, outcome = run.run()
    return progress, outcome


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_start_is_finite_and_equals_its_baseline(method, task_images, tiny):
    run, setting, tuner = built(task_images, method, tiny)
    logits = predict(tuner, run.store, range(len(task_images)))
    assert logits.shape == (len(task_images), 3)
    assert torch.isfinite(logits).all()
    baseline = {"zero_shot": setting.single, "zero_shot_ensemble": setting.ensemble}.get(run.method.starts_at)
    if baseline is not None:
        expected = tiny.logits(run.store.features(), baseline)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", TRAINED)
def test_loss_falls(method, task_images, tiny):
    rate = 1e-3 if registry.get(method).family == "weights" else 1e-2
    run, setting, tuner = built(task_images, method, tiny, epochs=30, lr=rate)
    inputs = torch.stack([run.store.stage(tuner.stage, run.spec.episode.final_support)])

    def loss() -> float:
        with torch.no_grad():
            return classification(tuner.eval()(inputs[0]), setting.targets).item()

    before = loss()
    list(loop.fit(tuner, inputs, setting.targets, run.config, 0))
    assert loss() < before - min(1e-3, before / 2)  # Tip-Adapter-F may start where hardly any loss is left


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_only_what_is_declared_changes(method, task_images, tiny):
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    run, setting, tuner = built(task_images, method, tiny)
    assert tiny.vision.blocks is tiny.model.vision_model.encoder.layers
    frozen = {name: p.detach().clone() for name, p in tuner.named_parameters() if not p.requires_grad}
    start = {name: p.detach().clone() for name, p in tuner.trained().items()}
    if tuner.trains:
        inputs = torch.stack([run.store.stage(tuner.stage, run.spec.episode.final_support)])
        list(loop.fit(tuner, inputs, setting.targets, run.config, 0))
        assert any(not torch.equal(start[name], p) for name, p in tuner.trained().items())
    for name, p in tuner.named_parameters():
        if name in frozen:
            assert torch.equal(frozen[name], p), name
    after = tiny.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in tiny.model.parameters())


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_declared_count_is_the_counted_one(method, task_images, tiny):
    run, setting, tuner = built(task_images, method, tiny)
    declared = run.method.count(tiny.shape, run.config, 3, len(setting.targets))
    assert declared == sum(p.numel() for p in tuner.trained().values())
    _, outcome = finished(run)
    assert outcome.result.cost.trainable_parameters == declared == run.forecast().trainable_parameters


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_saved_and_loaded_gives_equal_logits(method, task_images, tiny, tmp_path):
    run, _, _ = built(task_images, method, tiny)
    _, outcome = finished(run)
    store.save(outcome, tmp_path)
    adapter = store.load(tmp_path, tiny)
    everything = range(len(task_images))
    wanted = predict(outcome.tuner, run.store, everything)
    assert torch.equal(wanted, predict(adapter.tuner, run.store, everything))


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_cached_inputs_equal_uncached(method, task_images, tiny):
    run, _, tuner = built(task_images, method, tiny)
    tuner.eval()
    kept = run.store.stage(tuner.stage, [0, 5, 20])
    pixels = FeatureStore(tiny, task_images, Cache()).stage(PIXELS, [0, 5, 20])
    exact = tiny.vision.advance(pixels, PIXELS, tuner.stage)
    half = 0 <= tuner.stage < POOLED  # tokens are kept in half precision
    torch.testing.assert_close(run.store.fresh(tuner.stage, [0, 5, 20]), exact, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(kept, exact, atol=1e-3 if half else 1e-6, rtol=1e-3 if half else 1e-5)
    with torch.no_grad():
        torch.testing.assert_close(tuner(kept), tuner(exact), atol=1e-2 if half else 1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_same_seed_same_numbers(method, task_images, tiny):
    first, second = (finished(built(task_images, method, tiny, views=2)[0])[1] for _ in range(2))
    assert first.result.curve == second.result.curve
    assert first.result.accuracy == second.result.accuracy
    assert (first.arrays["tuned"] == second.arrays["tuned"]).all()


@pytest.mark.parametrize("method", TRAINED)
def test_progress_comes_at_least_once_a_step(method, task_images, tiny):
    run, _, _ = built(task_images, method, tiny, epochs=3)
    progress, outcome = finished(run)
    steps = [p for p in progress if p.stage == "train"]
    assert [p.done for p in steps] == list(range(1, len(outcome.result.curve) + 1))
    assert steps[-1].total == run.forecast().steps == steps[-1].done


@pytest.mark.parametrize("method", METHODS)
def test_record_is_complete(method):
    spec = registry.get(method)
    for preset, make in spec.presets.items():
        for shots in (1, 2, 4, 8, 16):
            config = make(shots)
            assert type(config) is spec.config, (method, preset)
    for field in dataclasses.fields(spec.config):
        assert field.metadata.get("help"), f"{method}.{field.name} says nothing about itself"
    assert spec.failures
    assert spec.tuner().trains == issubclass(spec.config, TrainConfig)
    assert spec.sentence.endswith(".")


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_views_are_deterministic(method, task_images, tiny):
    views = Views(3, 0.5, 7)
    stores = [FeatureStore(tiny, task_images, Cache()) for _ in range(2)]
    rows = [s.stage(PIXELS, [1, 2], view=2, views=views) for s in stores]
    assert torch.equal(*rows)
    assert not torch.equal(rows[0], stores[0].stage(PIXELS, [1, 2]))


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_what_was_learned_can_be_looked_at(method, task_images, tiny):
    """Pictures of one size; vectors that stand in the text, each with its nearest words. Reading changes nothing."""
    _, _, tuner = built(task_images, method, tiny)
    before = {name: p.detach().clone() for name, p in tuner.trained().items()}
    parts = tuner.learned()
    family = registry.get(method).family
    readable = method == "image_prompt" or (family == "text prompt" and method != "prefix_tuning")
    assert bool(parts) == readable
    for part in parts:
        assert part.about.key in MESSAGES and MESSAGES[part.about.key].format(**dict(part.about.values))
        if isinstance(part, LearnedImage):
            assert part.before.shape == part.after.shape == (*part.after.shape[:2], 3)
            assert part.before.dtype == part.after.dtype == "uint8"
            continue
        assert [piece.text for piece in part.layout if piece.trained] == [token.name for token in part.tokens]
        words = [piece.text for piece in part.layout if not piece.trained]
        assert any(next(x.prompt for x in LABELS if x.name == part.label) in text for text in words)
        for token in part.tokens:
            distances = [distance for _, distance in token.nearest]
            assert len(distances) == NEAREST and distances == sorted(distances)
            if token.start:  # where it starts from, and here still is
                assert token.nearest[0] == (token.start, token.moved) and token.moved < 1e-3
    assert all(torch.equal(before[name], p) for name, p in tuner.trained().items())


def test_template_sets_start_with_one_sentence():
    assert isinstance(TunerContext.__doc__, str)
    assert all("{}" in sentence for name in episode.TEMPLATE_SETS for sentence in templates(name))


@pytest.mark.parametrize("method", [m for m in TRAINED if registry.get(m).recomputes.towers])
def test_bf16_steps_learn_and_keep_fp32_weights(method, task_images, tiny):
    rate = 1e-3 if registry.get(method).family == "weights" else 1e-2
    run, setting, tuner = built(task_images, method, tiny, epochs=20, lr=rate)
    inputs = torch.stack([run.store.stage(tuner.stage, run.spec.episode.final_support)])

    def losses(precision: str) -> list[float]:
        return [loss for *_, loss, _ in loop.fit(tuner, inputs, setting.targets, run.config, 0, precision)]

    half = losses("bf16")
    assert half[-1] < half[0]
    assert all(p.dtype == torch.float32 for p in tuner.parameters())
    assert losses("fp32")[0] < half[0]
