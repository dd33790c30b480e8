"""Labels that were not tuned on, drift, and the WiSE-FT curve, on tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from engine.checks import forgetting
from engine.data import episode, uploads
from engine.errors import BadConfig, BadLabels
from engine.runs.run import Run
from engine.tuning import features, registry
from engine.tuning.features import Cache
from engine.tuning.outcome import Outcome
from engine.tuning.predict import predict
from engine.types import Label, Progress, RunSpec
from tests.tiny import picture

COLOURS = {
    "red": (160, 90, 90),
    "green": (90, 160, 90),
    "blue": (90, 90, 160),
    "yellow": (160, 160, 90),
    "pink": (160, 90, 160),
    "teal": (90, 160, 160),
}
KNOW_OWN_LABELS = {"linear_probe", "tip_adapter", "tip_adapter_f"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight pictures of each of six colours."""
    root = tmp_path_factory.mktemp("six")
    for k, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir()
        for i in range(8):
            picture(colour, 100 * k + i).save(root / name / f"{i}.png")
    return uploads.collect([root], root).images


@pytest.fixture
def six(images):
    labels = [Label(name, name) for name in COLOURS]
    return episode.build(labels, [image.label for image in images], shots=4)


def test_half_of_the_labels_are_held_back(six):
    base, others = forgetting.hold_back(six, seed=1)
    assert len(base.labels) == len(others.labels) == 3
    assert {*base.labels, *others.labels} == set(six.labels)
    assert len(others.images) == 24  # all images of the others test
    assert not set(others.images) & {*base.folds[0].support, *base.folds[0].test}
    for i, target in zip(others.images, others.targets, strict=True):
        assert others.labels[target] == six.labels[six.targets[i]]
    for i in (*base.folds[0].support, *base.folds[0].test):
        assert base.labels[base.targets[i]] == six.labels[six.targets[i]]
    assert forgetting.hold_back(six, seed=1) == (base, others)
    assert any(forgetting.hold_back(six, seed=s)[1].labels != others.labels for s in range(2, 6))


def test_too_few_labels_are_refused(images):
    names = [image.label if image.label not in ("pink", "teal") else None for image in images]
    few = episode.build([Label(n, n) for n in ("red", "green", "blue", "yellow")], names)
    with pytest.raises(BadLabels, match="there are 4"):
        forgetting.hold_back(few)


def test_capability_follows_from_what_is_counted(tiny):
    able = {
        spec.id: forgetting.scores_new_labels(spec, spec.configure(), tiny.shape)
        for spec in registry.methods()
        if registry.obstacle(spec, tiny) is None
    }
    assert {method for method, can in able.items() if not can} >= KNOW_OWN_LABELS
    assert all(able[m] for m in ("zero_shot", "prompt_tuning", "lora", "full", "visual_prompt", "clip_adapter"))
    spec = registry.get("prompt_tuning")
    assert not forgetting.scores_new_labels(spec, spec.configure("budget", {"per_class": True}), tiny.shape)


def finish(steps):
    *moments, last = steps
    assert all(isinstance(moment, Progress) for moment in moments)
    return last


def measured(method, six, images, tiny, **settings):
    base, others = forgetting.hold_back(six)
    spec = RunSpec("tiny", method, base, settings=tuple(settings.items()))
    return finish(
        forgetting.measure(spec, others, images, tiny, cache=Cache(disk_limit=0), shares=(0.0, 0.5, 1.0))
    ), others


def test_methods_with_weights_a_label_are_refused(six, images, tiny):
    with pytest.raises(BadConfig, match="cannot score labels"):
        measured("linear_probe", six, images, tiny)


def test_zero_shot_has_no_damage(six, images, tiny):
    found, others = measured("zero_shot_ensemble", six, images, tiny)
    assert found.other_labels[0] == found.other_labels[1]
    assert found.verdict.lost == found.verdict.gained == 0
    assert (found.drift.image, found.drift.text) == pytest.approx((0, 0), abs=1e-6)
    assert found.curve == ()
    prompts = [label.prompt for label in others.labels]
    text = tiny.text_features(prompts, episode.templates("general"))
    image = features.FeatureStore(tiny, images, Cache(disk_limit=0)).features(others.images)
    right = ((image @ text.T).argmax(1) == torch.tensor(others.targets)).float().mean()
    assert found.other_labels[0].value == pytest.approx(right.item())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("prompt_tuning", {"epochs": 2, "lr": 0.3}),
        ("lora", {"epochs": 2, "views": 1}),
        ("multitask_prompt", {"epochs": 1, "source_epochs": 1, "groups": "red, green | blue"}),
        ("clip_adapter", {"epochs": 2}),
    ],
)
def test_the_tuned_model_itself_scores_the_others(method, settings, six, images, tiny, monkeypatch):
    if "groups" in settings:
        names = [label.name for label in forgetting.hold_back(six)[0].labels]
        settings = settings | {"groups": f"{names[0]}, {names[1]}"}
    kept = {}
    real = Run.run

    def go(self):
        for item in real(self):
            if isinstance(item, Outcome):
                kept["tuner"] = item.tuner
            yield item

    monkeypatch.setattr(Run, "run", go)
    rebuilt = []
    monkeypatch.setattr(forgetting, "predict", lambda tuner, *rest: rebuilt.append(tuner) or predict(tuner, *rest))
    found, others = measured(method, six, images, tiny, **settings)
    assert found.verdict.tested == len(others.images)
    assert max(found.drift.image, found.drift.text) > 0
    assert found.to_json()["drift"] == {"image": found.drift.image, "text": found.drift.text}
    last = dict(rebuilt[-1].saved())
    assert last.keys() == dict(kept["tuner"].saved()).keys()
    for name, tensor in kept["tuner"].saved().items():
        assert torch.equal(last[name], tensor)
    assert rebuilt[-1].text_features().shape[0] == len(others.labels)
    json.dumps(found.to_json())


def test_wise_ft_goes_from_zero_shot_to_tuned(six, images, tiny):
    found, _ = measured("full", six, images, tiny, epochs=3, views=1, lr=1e-3)
    start, middle, end = found.curve
    assert [point.share for point in found.curve] == [0, 0.5, 1]
    assert end.tuned_labels == pytest.approx(found.tuned_labels[1].value)
    assert end.other_labels == pytest.approx(found.other_labels[1].value)
    single, _ = measured("zero_shot", six, images, tiny)  # full fine-tuning starts at the single template
    assert start.other_labels == pytest.approx(single.other_labels[1].value)
    assert start.tuned_labels == pytest.approx(single.tuned_labels[1].value)
    assert 0 <= middle.other_labels <= 1


def test_drift_is_the_mean_angle():
    before = np.eye(2)
    after = np.array([[1.0, 0.0], [0.6, 0.8]])  # cosines 1 and 0.8
    arrays = {"image_before": before, "image_after": after, "text_before": before, "text_after": before}
    found = forgetting.drift(arrays)
    assert (found.image, found.text) == pytest.approx((0.1, 0.0))


def test_one_fold_is_left_of_many(images):
    names = [image.label for k, image in enumerate(images) if k % 8 < 3]
    few = [image for k, image in enumerate(images) if k % 8 < 3]
    folded = episode.build([Label(name, name) for name in COLOURS], names, shots=2)
    assert folded.cross_validated
    base, others = forgetting.hold_back(folded)
    assert len(base.folds) == 1
    assert base.folds[0].test
    assert len(others.images) == len(few) // 2
