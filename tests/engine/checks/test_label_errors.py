"""Planted wrong labels are found; right ones are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.checks import label_errors
from engine.data import episode, uploads
from engine.tuning.features import Cache
from engine.types import Label, Progress
from tests.test_layers import ROOT


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def planted(count: int = 300, classes: int = 5, wrong: int = 24, seed: int = 0):
    """Three noisy methods that mostly know the truth, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    given = truth.copy()
    flipped = rng.choice(count, wrong, replace=False)
    given[flipped] = (truth[flipped] + rng.integers(1, classes, wrong)) % classes
    methods = {
        name: softmax(4 * np.eye(classes)[truth] + rng.normal(0, 1.2, (count, classes))) for name in ("a", "b", "c")
    }
    return methods, given, truth, flipped


@pytest.mark.parametrize("seed", range(3))
def test_planted_labels_are_found(seed):
    methods, given, truth, flipped = planted(seed=seed)
    found = label_errors.suspects(methods, given)
    named = {s.image for s in found}
    assert len(named & set(flipped)) / len(flipped) >= 0.75  # recall
    assert len(named & set(flipped)) / len(named) >= 0.95  # precision
    assert np.mean([s.suggested == truth[s.image] for s in found if s.image in set(flipped)]) >= 0.95
    assert all(s.given == given[s.image] != s.suggested and s.agree > 0.5 and 0 < s.margin <= 1 for s in found)
    assert [s.agree for s in found] == sorted((s.agree for s in found), reverse=True)


def test_a_clean_set_is_left_alone():
    methods, given, *_ = planted(wrong=0)
    assert len(label_errors.suspects(methods, given)) <= 3  # of 300


def test_a_class_is_reached_at_its_own_mean():
    rows = np.array([[0.9, 0.1], [0.5, 0.5], [0.45, 0.55], [0.3, 0.7], [0.2, 0.8]])
    targets = np.array([0, 0, 1, 1, 0])
    # thresholds: class 0 (0.9 + 0.5 + 0.2) / 3 = 0.533, class 1 (0.55 + 0.7) / 2 = 0.625
    assert label_errors.confident_class(rows, targets).tolist() == [0, -1, -1, 1, 1]
    (suspect,) = label_errors.suspects({"only": rows}, targets)
    assert (suspect.image, suspect.given, suspect.suggested, suspect.agree) == (4, 0, 1, 1.0)
    assert suspect.margin == pytest.approx(0.6)


def test_half_of_the_methods_are_not_enough():
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.05, 0.95]])
    unsure = sure.copy()
    unsure[4] = [0.95, 0.05]
    targets = [0, 0, 1, 1, 0]
    assert label_errors.suspects({"a": sure, "b": unsure}, targets) == ()
    assert len(label_errors.suspects({"a": sure, "b": sure, "c": unsure}, targets)) == 1


def test_what_was_not_judged_does_not_count():
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.05, 0.95]])
    absent = rows.copy()
    absent[4] = np.nan
    (suspect,) = label_errors.suspects({"a": rows, "b": absent}, [0, 0, 1, 1, 0])
    assert suspect.agree == 1
    assert label_errors.suspects({"a": rows}, [0, 0, 1, 1, -1]) == ()


def test_a_method_that_is_wrong_every_other_time_has_no_vote():
    methods, given, *_ = planted()
    rng = np.random.default_rng(1)
    noise = {f"noise {k}": rng.dirichlet(np.ones(5), len(given)) for k in range(5)}
    done = label_errors.find_label_errors(methods | noise, given)
    assert done.judges == ("a", "b", "c")
    assert done.suspects == label_errors.suspects(methods, given)
    assert all(share < 0.4 for name, share in done.agreement.items() if name in noise)
    assert label_errors.find_label_errors(noise, given).suspects == ()


def finish(steps):
    *moments, last = steps
    assert all(isinstance(moment, Progress) for moment in moments)
    return last


def test_every_image_is_judged_by_models_that_did_not_see_it():
    targets = (0,) * 7 + (1,) * 6 + (2,) + (-1,)
    labels = tuple(Label(n, n) for n in "abc")
    built = episode.build(labels, [None if t < 0 else "abc"[t] for t in targets], shots=2)
    folds = label_errors.checking_episode(built).folds
    assert {i for fold in folds for i in fold.test} == set(range(13))  # the only image of c always trains
    for fold in folds:
        assert not set(fold.support) & set(fold.test)
        assert set(fold.support) | set(fold.test) == set(range(14))


def test_wrong_labels_on_a_sample_task(pocket):
    """Every sixth picture of the materials gets the next material's label."""
    images = uploads.collect([ROOT / "assets/samples/materials"], ROOT).images
    names = sorted({image.label for image in images})
    flipped = set(range(0, len(images), 6))
    given = [
        replace(image, label=names[(names.index(image.label) + 1) % len(names)]) if i in flipped else image
        for i, image in enumerate(images)
    ]
    built = episode.build([Label(n, n) for n in names], [image.label for image in given])
    cache = Cache(disk_limit=0)
    methods = ("tip_adapter", "linear_probe", "zero_shot_ensemble")
    done = finish(label_errors.check(built, given, pocket, methods, cache=cache))
    assert done.judges == methods[:2]  # zero-shot knows too few of the materials to judge
    found = done.suspects
    named = {s.image for s in found}
    hits = len(named & flipped)
    assert hits / len(flipped) >= 0.55
    assert hits / len(named) >= 0.85
    right = [s for s in found if s.image in flipped]
    assert np.mean([names[s.suggested] == images[s.image].label for s in right]) >= 0.8
    assert "linear_probe" in label_errors.quick_methods(pocket)
