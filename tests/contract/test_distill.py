"""Distillation: the loss by an independent formula, the teachers, and what must not leak from them."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.backbones import catalog
from engine.costs.trace import trace_step
from engine.errors import BackboneUnavailable, BadAdapter, BadConfig
from engine.runs import store
from engine.tuning import adapter_files, loop, registry
from engine.tuning.features import FeatureStore, Views
from engine.tuning.losses import distillation
from engine.tuning.predict import predict
from engine.tuning.sources import NamedSources
from tests.contract.test_contract import LABELS, built, finished


def prepared(task_images, tiny, **settings):
    """(run, setting, tuner) whose teacher has been asked."""
    run, setting, tuner = built(task_images, "distill", tiny, **settings)
    list(tuner.prepare(run.store, run.spec.episode.final_support))
    return run, setting, tuner


def shares(row: list[float], temperature: float) -> list[float]:
    powers = [exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_the_formula_and_its_gradient():
    torch.manual_seed(0)
    logits, teacher = (2 * torch.randn(5, 4, dtype=torch.float64) for _ in range(2))
    targets, T, alpha = torch.tensor([0, 3, 1, 1, 2]), 3.0, 0.3
    rows, slopes = [], []
    for student, taught, own in zip(logits.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        p, q, plain = shares(taught, T), shares(student, T), shares(student, 1)
        soft = sum(a * log(a / b) for a, b in zip(p, q, strict=True))
        rows.append(alpha * T**2 * soft - (1 - alpha) * log(plain[own]))
        slopes.append([(alpha * T * (q[k] - p[k]) + (1 - alpha) * (plain[k] - (k == own))) / 5 for k in range(4)])
    logits.requires_grad_(True)
    loss = distillation(logits, teacher, targets, T, alpha)
    loss.backward()
    assert loss.item() == pytest.approx(np.mean(rows), rel=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), slopes, atol=1e-6)


@pytest.mark.parametrize("student", ["lora", "full"])
def test_without_the_teachers_share_it_is_the_student_alone(student, task_images, tiny):
    shared = {"epochs": 3, "views": 2, "weight_decay": 0.01, "warmup_epochs": 1}
    _, taught = finished(built(task_images, "distill", tiny, student=student, alpha=0, lr=1e-3, **shared)[0])
    _, alone = finished(built(task_images, student, tiny, lr=1e-3 if student == "lora" else 1e-5, **shared)[0])
    np.testing.assert_allclose(taught.result.curve, alone.result.curve, rtol=1e-5)
    np.testing.assert_allclose(taught.arrays["tuned"], alone.arrays["tuned"], atol=1e-5)
    assert taught.result.cost.trainable_parameters == alone.result.cost.trainable_parameters


def test_a_step_learns_from_the_view_and_image_it_sees(task_images, tiny):
    run, _, tuner = prepared(task_images, tiny, teacher="zero_shot_ensemble", views=3)
    support = run.spec.episode.final_support
    assert tuner.taught.shape == (3, len(support), 3)
    for view in range(3):
        features = run.store.stage(1_000_001, support, view, Views(3, 0.5, 0))
        torch.testing.assert_close(tuner.taught[view], tiny.logits(features, tuner.setting.ensemble))
    tuner.set_batch(torch.tensor([2, 0]), torch.tensor([4, 1]))
    assert torch.equal(tuner.soft, torch.stack([tuner.taught[2, 4], tuner.taught[0, 1]]))


def test_only_the_teacher_teaches_where_it_has_all_of_the_loss(task_images, tiny):
    """The student follows the teacher's answers, whatever the labels say; the teacher stays as it is."""
    run, setting, tuner = prepared(task_images, tiny, alpha=1, epochs=40, lr=3e-3)
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
    taught = tuner.taught.clone()

    def distance() -> float:
        with torch.no_grad():
            return distillation(tuner.eval()(inputs), taught[0], setting.targets, 3, 1).item()

    before = distance()
    list(loop.fit(tuner, inputs[None], (setting.targets + 1) % 3, run.config, 0))
    assert distance() < 0.5 * before
    assert torch.equal(tuner.taught, taught)


@pytest.mark.parametrize("teacher", ["zero_shot", "linear_probe", "tip_adapter", "tip_adapter_f", "prolip"])
def test_heads_teach(teacher, task_images, tiny):
    run, _, tuner = prepared(task_images, tiny, teacher=teacher)
    assert torch.isfinite(tuner.taught).all()
    if teacher == "linear_probe":  # the same head as a run of its own makes
        _, alone = finished(built(task_images, teacher, tiny, epochs=300)[0])
        wanted = predict(alone.tuner, run.store, run.spec.episode.final_support)
        torch.testing.assert_close(tuner.taught[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.fixture
def saved(task_images, tiny, tmp_path) -> Path:
    """A tuned adapter of the same task."""
    _, outcome = finished(built(task_images, "visual_prompt", tiny, epochs=2, lr=1e-2)[0])
    store.save(outcome, tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_saved_adapter_teaches(saved, task_images, tiny, tmp_path):
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    run, _, tuner = prepared(task_images, tiny, teacher=str(saved))
    wanted = predict(store.load(saved, tiny).tuner, run.store, run.spec.episode.final_support)
    torch.testing.assert_close(tuner.taught[0], wanted, atol=1e-2, rtol=1e-2)  # tokens are kept in half precision
    assert files == {file.name: file.read_bytes() for file in saved.iterdir()}
    archive = adapter_files.pack(saved, tmp_path / "teacher.zip")
    _, _, zipped = prepared(task_images, tiny, teacher=str(archive))
    assert torch.equal(zipped.taught, tuner.taught)
    run.sources = NamedSources(adapters={"my run": saved}, files=False)
    support = run.spec.episode.final_support
    named = run.method.tuner()(run.method.configure(settings={"teacher": "my run"}), run._setting(support))
    list(named.prepare(run.store, support))
    assert torch.equal(named.taught[0], tuner.taught[0])


def test_the_columns_follow_the_labels(saved, task_images, tiny):
    """A teacher of more labels in another order."""
    recipe = json.loads((saved / adapter_files.RECIPE).read_text())
    recipe["labels"] = [{"name": "black", "prompt": "black square"}, *recipe["labels"][::-1]]
    recipe["labels"][3] = {"name": "빨강", "prompt": "red square"}  # another language's name, read alike
    (saved / adapter_files.RECIPE).write_text(json.dumps(recipe))
    run, _, tuner = prepared(task_images, tiny, teacher=str(saved))
    loaded = store.load(saved, tiny)
    wanted = predict(loaded.tuner, run.store, run.spec.episode.final_support)
    assert [label.name for label in loaded.labels] == ["black", "blue", "green", "빨강"]
    torch.testing.assert_close(tuner.taught[0], wanted[:, [3, 2, 1]], atol=1e-2, rtol=1e-2)
    assert (tuner.taught[0] - wanted[:, 1:]).abs().max() > 0.1


def test_a_larger_backbone_teaches(task_images, tiny, monkeypatch):
    from tests.tiny import make_tiny

    large = make_tiny(7, num_hidden_layers=4)
    large.id = "large"
    monkeypatch.setattr(catalog, "load", lambda id, device: {"large": large}[id])
    before = {name: tensor.clone() for name, tensor in large.model.state_dict().items()}
    run, _, tuner = prepared(task_images, tiny, teacher="large")
    support = run.spec.episode.final_support
    text = large.text_features([label.prompt for label in LABELS], tuner.setting.templates)
    wanted = large.logits(FeatureStore(large, task_images).features(support), text)
    torch.testing.assert_close(tuner.taught[0], wanted)
    inputs = run.store.stage(tuner.stage, support)[None]
    list(loop.fit(tuner, inputs, tuner.setting.targets, run.config, 0))
    assert all(torch.equal(before[name], tensor) for name, tensor in large.model.state_dict().items())


def test_bad_teachers_are_explained(saved, task_images, tiny, tmp_path):
    configure = registry.get("distill").configure
    for name in ("lora", " "):
        with pytest.raises(BadConfig, match="linear_probe"):
            configure(settings={"teacher": name})
    with pytest.raises(BackboneUnavailable, match="no backbone"):
        prepared(task_images, tiny, teacher="nobody-knows-it")
    recipe = json.loads((saved / adapter_files.RECIPE).read_text())
    place = [label["name"] for label in recipe["labels"]].index("red")
    recipe["labels"][place] = {"name": "cat", "prompt": "cat"}
    (saved / adapter_files.RECIPE).write_text(json.dumps(recipe))
    with pytest.raises(BadAdapter, match=r"does not know the labels red; it was tuned on .*cat"):
        prepared(task_images, tiny, teacher=str(saved))
    (saved / adapter_files.RECIPE).unlink()
    with pytest.raises(BadAdapter, match=r"adapter\.json is missing"):
        prepared(task_images, tiny, teacher=str(saved))


def test_a_teacher_that_saw_test_images_is_refused(saved, task_images, tiny):
    recipe = json.loads((saved / adapter_files.RECIPE).read_text())
    run, _, _ = built(task_images, "distill", tiny)
    support = run.spec.episode.final_support
    assert recipe["trained_on"] == [task_images[i].digest[:12] for i in support]
    tested = run.spec.episode.folds[0].test[0]
    recipe["trained_on"].append(task_images[tested].digest[:12])
    (saved / adapter_files.RECIPE).write_text(json.dumps(recipe))
    with pytest.raises(BadAdapter, match="trained on 1 images that do not train here"):
        prepared(task_images, tiny, teacher=str(saved))


def test_the_teacher_is_asked_about_support_images_only(task_images, tiny):
    run, _, tuner = built(task_images, "distill", tiny)
    support, asked = run.spec.episode.final_support, []
    original = run.store.stage
    run.store.stage = lambda stage, indices=None, *rest: asked.append(indices) or original(stage, indices, *rest)
    list(tuner.prepare(run.store, support))
    assert len(asked) == 2  # for the head, and for its answers
    assert all(list(indices) == list(support) for indices in asked)


def test_counts(tiny):
    spec = registry.get("distill")
    for settings in ({"r": 4}, {"targets": "q", "towers": "vision", "last_blocks": 1}):
        wanted = registry.get("lora").configure(settings=settings)
        config = spec.configure(settings=settings)
        assert spec.count(tiny.shape, config, 3, 12) == registry.get("lora").count(tiny.shape, wanted, 3, 12)
    assert spec.count(tiny.shape, spec.configure(settings={"student": "full"}), 3, 12) == tiny.total_parameters()


@pytest.mark.parametrize(("teacher", "steps"), [("linear_probe", [300]), ("tip_adapter_f", [40]), ("zero_shot", [])])
def test_the_heads_training_is_in_the_forecast(teacher, steps, tiny):
    spec = registry.get("distill")
    config = spec.configure(settings={"teacher": teacher})
    step = trace_step(spec, config, tiny, [label.prompt for label in LABELS], 48)
    assert [count for _, count in step.pretraining_stages] == steps
    assert all(work.flops > 0 for work, _ in step.pretraining_stages)
