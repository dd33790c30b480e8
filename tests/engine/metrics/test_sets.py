"""Prediction sets hold the right label as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest

from engine.metrics.sets import calibrate, least_images, likely, members, shares, threshold_of


def drawn(count, classes=5, seed=0, sharp=1.5):
    """Probabilities and classes drawn from them: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharp, (count, classes))
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return rows, np.array([rng.choice(classes, p=row) for row in rows])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_new_images_are_covered_at_the_promised_rate(coverage):
    held = []
    for seed in range(60):
        rows, targets = drawn(60, seed=seed)
        found = calibrate(rows, targets, coverage)
        new, goals = drawn(100, seed=1000 + seed)
        held += [goal in members(row, found.threshold) for row, goal in zip(new, goals, strict=True)]
    assert coverage - 0.01 <= np.mean(held) <= coverage + 0.08


def test_it_holds_for_a_model_that_is_far_too_sure():
    """Nothing is asked of the model: only that new images come from where the calibrating ones did."""
    held = []
    for seed in range(60):
        rows, targets = drawn(80, seed=seed)
        sure = shares(rows**6)
        new, goals = drawn(100, seed=1000 + seed)
        found = calibrate(sure, targets)
        held += [goal in members(row, found.threshold) for row, goal in zip(shares(new**6), goals, strict=True)]
    assert 0.89 <= np.mean(held) <= 0.99


def test_what_is_measured_on_the_calibrating_images_is_what_new_ones_show():
    rows, targets = drawn(400, seed=3)
    found = calibrate(rows, targets)
    assert found.reached.low <= 0.93 and found.reached.high >= 0.9
    assert 1 <= found.size <= 5 and found.images == 400
    assert found.to_json()["reached"] == found.reached.value


def test_by_hand():
    own = np.array([0.7, 0.4, 0.1])
    assert threshold_of(own, 0.5) == 0.4  # the second of three: ceil(4 x 0.5)
    assert threshold_of(own, 0.9) == 0.0
    row = np.array([0.5, 0.1, 0.4])
    assert members(row, 0.4) == (0, 2) and members(row, 0.9) == (0,) and members(row, 0.0) == (0, 2, 1)


def test_a_model_that_is_always_right_needs_one_label():
    rows = np.full((60, 7), 0.02)
    targets = np.arange(60) % 7
    rows[np.arange(60), targets] = 0.88
    found = calibrate(rows, targets)
    assert found.size == 1 and found.reached.value == 1


def test_too_few_images_give_no_sets():
    rows, targets = drawn(9)
    assert least_images(0.9) == 9 and calibrate(rows, targets) is None
    assert calibrate(*drawn(10)) is not None
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate(rows, targets, 1.0)


def test_a_sigmoid_models_probabilities_are_made_shares():
    assert shares(np.array([[0.2, 0.6]])).tolist() == [pytest.approx([0.25, 0.75])]
    assert shares(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


def test_a_run_keeps_its_sets_and_predict_uses_them(tiny, task_folder, tmp_path):
    from engine.front_door import load_adapter, predict, read_task, tune
    from engine.metrics.sets import sentence

    task = read_task(task_folder)
    tuned = tune(task, "gda", tiny, shots=2)
    sets = tuned.result.sets
    assert sets["images"] == tuned.result.verdict.tested and 0 <= sets["reached"] <= 1
    tuned.save(tmp_path / "adapter")
    found = predict(load_adapter(tmp_path / "adapter", backbone=tiny), task)
    for row in found:
        assert row.likely[0] == row.label and len(set(row.likely)) == len(row.likely)
        others = [p for name, p in row.tuned.probabilities.items() if name not in row.likely]
        assert all(row.tuned.probabilities[name] >= max(others, default=0) for name in row.likely)
    assert [row.likely for row in found] == [row.likely for row in predict(tuned, task)]
    said = sentence({**sets, "size": 1.4})
    assert "1.4 labels" in str(said) and sentence({**sets, "size": 1.0}) is None and sentence({}) is None


@pytest.mark.parametrize("told", [{}, {"threshold": "x"}, {"threshold": 7}, {"threshold": None}])
def test_a_recipe_without_a_threshold_gives_no_sets(told):
    assert likely(np.array([0.6, 0.4]), told) == ()
