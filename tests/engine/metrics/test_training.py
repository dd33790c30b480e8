"""What a curve says about a training."""

from __future__ import annotations

import math

import pytest

from engine.metrics import training


def curve(loss, right, steps: int = 100):
    """Rows of a curve from loss and share right by the share of steps done."""
    return [(k + 1, loss(k / (steps - 1)), right(k / (steps - 1))) for k in range(steps)]


CASES = {
    training.SETTLED: curve(lambda t: 2 * math.exp(-8 * t) + 0.05, lambda t: min(1, 0.3 + t)),
    training.LEARNING: curve(lambda t: 2 - t, lambda t: 0.3 + 0.3 * t),
    training.UNLEARNED: curve(lambda t: 1.61 + 0.01 * math.sin(40 * t), lambda t: 0.2),
    training.DIVERGED: curve(lambda t: 1.6 + 12 * t, lambda t: 0.2),
}


@pytest.mark.parametrize("word", CASES)
def test_each_kind_is_known(word):
    assert training.judge(CASES[word]) == word
    note = training.sentence(word, CASES[word], {"lr": 10})
    assert (note is None) == (word == training.SETTLED)
    if word == training.DIVERGED:
        assert "rose from 1.84 to 13.1" in str(note) and "to 1." in str(note)


def test_a_head_that_fits_its_images_is_done_however_steep_its_loss():
    assert training.judge(curve(lambda t: 2 - t, lambda t: 1.0)) == training.SETTLED


def test_one_that_had_nothing_to_learn_is_not_blamed():
    assert training.judge(curve(lambda t: 0.01, lambda t: 1.0)) == training.SETTLED


def test_the_optimizers_own_word_counts():
    flat = curve(lambda t: 1.3, lambda t: 0.6)
    assert training.judge(flat, converged=True) == training.SETTLED
    assert training.judge(flat, converged=False) == training.LEARNING


def test_no_number_and_no_steps():
    broken = curve(lambda t: float("nan") if t > 0.5 else 1.0, lambda t: 0.2)
    assert training.judge(broken) == training.DIVERGED
    assert "no number" in str(training.sentence(training.DIVERGED, broken, {}))
    assert training.judge([]) == "" and training.sentence("", [], {}) is None


def test_the_worst_word_is_the_one_that_is_shown():
    assert training.worst(["settled", "diverged", "", "learning"]) == "diverged"
    assert training.worst([]) == training.worst([""]) == ""


def test_three_steps_can_be_judged():
    assert training.judge([(1, 2.0, 0.1), (2, 1.0, 0.5), (3, 0.5, 0.8)]) in training.WORDS
