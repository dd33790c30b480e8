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


def planted(count: int = 300, classes: int = 5, wrong: int = 24, seed: int = 0, noise: float = 1.2):
    """Three noisy methods that mostly know the truth, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    given = truth.copy()
    flipped = rng.choice(count, wrong, replace=False)
    given[flipped] = (truth[flipped] + rng.integers(1, classes, wrong)) % classes
    methods = {
        name: softmax(4 * np.eye(classes)[truth] + rng.normal(0, noise, (count, classes))) for name in ("a", "b", "c")
    }
    return methods, given, truth, flipped


@pytest.mark.parametrize("seed", range(3))
def test_planted_labels_are_found(seed):
    methods, given, truth, flipped = planted(seed=seed)
    found = label_errors.find_label_errors(methods, given).suspects
    named = {s.image for s in found}
    assert len(named & set(flipped)) / len(flipped) >= 0.75  # recall
    assert len(named & set(flipped)) / len(named) >= 0.9  # precision
    assert np.mean([s.suggested == truth[s.image] for s in found if s.image in set(flipped)]) >= 0.95
    assert all(s.given == given[s.image] != s.suggested for s in found)
    chances = [s.probability for s in found]
    assert chances == sorted(chances, reverse=True) and all(label_errors.NAMED <= chance <= 1 for chance in chances)


def test_probabilities_are_kept():
    """Of the images named with 90 % about nine in ten are wrong, and with less certainty fewer."""
    tables = [planted(seed=seed, noise=2.5) for seed in range(20)]
    pairs = [
        (s.probability, s.image in set(flipped))
        for methods, given, _, flipped in tables
        for s in label_errors.find_label_errors(methods, given).suspects
    ]
    sure = [wrong for chance, wrong in pairs if chance >= 0.9]
    unsure = [wrong for chance, wrong in pairs if chance < 0.75]
    assert len(sure) > 100 and np.mean(sure) >= 0.9 > np.mean(unsure)
    assert abs(np.mean([wrong for _, wrong in pairs]) - np.mean([chance for chance, _ in pairs])) < 0.07


def test_a_clean_set_is_left_alone():
    methods, given, *_ = planted(wrong=0)
    assert len(label_errors.find_label_errors(methods, given).suspects) <= 3  # of 300


def test_a_wrong_label_is_the_strays_share():
    """One temperature, one share: 0.1 * 0.9 / (0.1 * 0.9 + 0.9 * 0.1) = 1/2 by Bayes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_errors, "WRONG", np.array([0.1]))
        patch.setattr(label_errors, "TEMPERATURES", np.array([1.0]))
        wrong = label_errors.wrong_probabilities(np.log([[0.1, 0.9], [0.9, 0.1]]), np.array([0, 0]))
    assert wrong[0] == pytest.approx([0.5, 0.1 * 0.1 / (0.1 * 0.1 + 0.9 * 0.9)])
    assert wrong[1] == pytest.approx(wrong[0][::-1])


def test_what_was_not_judged_does_not_count():
    methods, given, _, flipped = planted()
    absent, unlabelled = int(flipped[0]), int(flipped[1])
    methods["a"][absent] = np.nan
    given[unlabelled] = -1
    found = label_errors.find_label_errors(methods, given)
    assert not {absent, unlabelled} & {s.image for s in found.suspects}
    assert (found.judged, found.alone) == (298, 1)
    assert found.notes[1].key == "labels_alone"


def test_a_method_that_is_far_behind_is_not_asked():
    methods, given, *_ = planted()
    rng = np.random.default_rng(1)
    noise = {f"noise {k}": rng.dirichlet(np.ones(5), len(given)) for k in range(5)}
    done = label_errors.find_label_errors(methods | noise, given)
    assert done.judges == ("a", "b", "c")
    assert done.suspects == label_errors.find_label_errors(methods, given).suspects
    assert all(share < 0.4 for name, share in done.agreement.items() if name in noise)


def test_where_nothing_can_be_judged_it_is_said():
    _, given, *_ = planted()
    noise = {"noise": np.random.default_rng(1).dirichlet(np.ones(5), len(given))}
    done = label_errors.find_label_errors(noise, given)
    assert not done.able and done.suspects == ()
    assert "cannot be judged" in str(done.notes[0]) and "More photos" in str(done.notes[0])
    nobody = label_errors.find_label_errors({"a": np.full((2, 2), np.nan)}, [0, 1])
    assert not nobody.able and nobody.alone == 2
    able = label_errors.find_label_errors(planted()[0], given)
    assert able.able and "would be noticed" in str(able.notes[0])


@pytest.mark.parametrize("noise", [0.5, 1.2, 2.5])
def test_the_power_is_what_is_found(noise):
    """The share of wrong labels that it says it would notice is the share that it notices."""
    rng, hits, promised = np.random.default_rng(0), [], []
    for _ in range(12):
        truth = rng.integers(0, 5, 300)
        wrong = rng.choice(300, 24, replace=False)
        given = truth.copy()
        given[wrong] = (truth[wrong] + rng.integers(1, 5, 24)) % 5
        table = {"a": softmax(4 * np.eye(5)[truth] + rng.normal(0, noise, (300, 5)))}
        found = label_errors.find_label_errors(table, given)
        hits.append(len({s.image for s in found.suspects} & set(wrong)) / 24)
        promised.append(found.power)
    assert np.mean(hits) == pytest.approx(np.mean(promised), abs=0.1)


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
    assert done.judges == methods[:2]  # zero-shot knows too few of the materials to be asked
    assert done.able
    found = done.suspects
    named = {s.image for s in found}
    hits = len(named & flipped)
    assert hits / len(flipped) >= 0.55
    assert hits / len(named) >= 0.85
    right = [s for s in found if s.image in flipped]
    assert np.mean([names[s.suggested] == images[s.image].label for s in right]) >= 0.8
    assert "linear_probe" in label_errors.quick_methods(pocket)
