"""None of these: false alarms at the share that was asked for, strange pictures beyond the threshold."""

from __future__ import annotations

import numpy as np
import pytest

from engine.metrics import novelty


def cloud(chance, labels, each, size=24, spread=0.3, seed=3):
    """Features of labels whose photos scatter around means of their own."""
    means = np.random.default_rng(seed).normal(size=(labels, size))
    targets = np.repeat(np.arange(labels), each)
    rows = means[targets] + spread * chance.normal(size=(len(targets), size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), targets


def test_the_distance_is_that_of_mahalanobis():
    chance = np.random.default_rng(0)
    rows, targets = cloud(chance, 3, 10)
    found = novelty.Gaussians.fit(rows, targets)
    centred = np.concatenate([rows[targets == k] - rows[targets == k].mean(0) for k in range(3)])
    covariance = centred.T @ centred + np.trace(centred.T @ centred) / 29 * np.eye(24)
    new = chance.normal(size=(4, 24))
    for row, distance in zip(new, found.nearest(new), strict=True):
        gaps = [row - rows[targets == k].mean(0) for k in range(3)]
        assert distance == pytest.approx(min(24 * gap @ np.linalg.solve(covariance, gap) for gap in gaps))


@pytest.mark.parametrize(("labels", "each"), [(5, 8), (20, 5), (30, 4)])
def test_few_photos_of_the_labels_are_taken_for_something_else(labels, each):
    wrong, strange = [], []
    for seed in range(5):
        chance = np.random.default_rng(seed)
        rows, targets = cloud(chance, labels, each)
        found, figures = novelty.calibrate(rows, targets)
        assert figures["images"] == len(rows) and figures["alarms"] == 0.05
        wrong.append(found.unlike(cloud(chance, labels, 20)[0]).mean())
        strange.append(found.unlike(cloud(chance, 5, 20, seed=99)[0]).mean())
        assert figures["noticed"] > 0.8
    assert np.mean(wrong) <= 0.06
    assert np.mean(strange) >= 0.9


def test_with_few_photos_the_share_of_alarms_says_so():
    rows, targets = cloud(np.random.default_rng(0), 4, 3)
    _, figures = novelty.calibrate(rows, targets)
    assert figures["alarms"] == 1 / 13
    assert novelty.calibrate(rows[::3], targets[::3]) is None, "one photo a label leaves none to leave out"
    assert novelty.calibrate(rows[targets == 0], targets[targets == 0]) is None


def test_two_labels_cannot_show_what_stands_out():
    rows, targets = cloud(np.random.default_rng(0), 2, 8)
    _, figures = novelty.calibrate(rows, targets)
    assert figures["noticed"] == -1 and novelty.sentence(figures) is None


def test_it_is_made_again_from_photos_and_figures():
    rows, targets = cloud(np.random.default_rng(0), 4, 6)
    found, figures = novelty.calibrate(rows, targets)
    again = novelty.rebuild(rows.astype(np.float16), targets, figures)
    new = cloud(np.random.default_rng(5), 4, 30, seed=9)[0]
    assert np.abs(again.scores(new) / found.scores(new) - 1).max() < 0.01
    for bad in ({}, {"threshold": "x"}, {"threshold": float("nan")}):
        assert novelty.rebuild(rows, targets, bad) is None


def test_equal_photos_do_not_fail():
    rows, targets = np.tile([1.0, 0.0], (12, 1)), np.repeat([0, 1], 6)
    found, _ = novelty.calibrate(rows, targets)
    assert not found.unlike(rows).any()
