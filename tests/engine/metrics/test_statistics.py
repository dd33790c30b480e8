"""Intervals and tests against known values."""

from __future__ import annotations

import numpy as np
import pytest

from engine.metrics import statistics


def test_wilson_against_published_values():
    got = statistics.wilson(8, 10)  # Newcombe 1998 gives 0.490 to 0.943
    assert (got.value, round(got.low, 3), round(got.high, 3)) == (0.8, 0.49, 0.943)
    assert statistics.wilson(0, 20).low == 0
    assert statistics.wilson(20, 20).high == 1
    assert np.isnan(statistics.wilson(0, 0).value)


def test_mcnemar_counts_only_disagreements():
    before = np.array([1] * 50 + [0] * 9 + [1] * 1)
    after = np.array([1] * 50 + [1] * 9 + [0] * 1)
    assert statistics.mcnemar(before, after) == pytest.approx(22 / 1024)  # 2 (1 + 10) / 2^10
    assert statistics.mcnemar(before, before) == 1


def test_verdicts():
    wrong, right = np.zeros(40), np.ones(40)
    assert statistics.give_verdict(wrong, right).word == "better"
    assert statistics.give_verdict(right, wrong).word == "worse"
    assert statistics.give_verdict([1, 0, 1], [1, 1, 1]).word == "close"
    assert statistics.give_verdict(wrong, right, tuned=False).word == "baseline"
    verdict = statistics.give_verdict([1, 0, 0, 1], [1, 1, 1, 0])
    assert (verdict.gained, verdict.lost, verdict.tested) == (2, 1, 4)


def test_a_cross_validated_verdict_adds_up():
    before, after = [0, 0, 0, 1, 1, 1], [1, 0.5, 0, 1, 0.5, 1]
    verdict = statistics.give_verdict(before, after, [(1 / 6, 0.25)] * 10)
    assert (verdict.gained, verdict.lost) == (1.5, 0.5)
    assert (verdict.gained - verdict.lost) / verdict.tested == pytest.approx(np.mean(after) - np.mean(before))


def test_sign_flips_are_exact_where_they_can_be():
    assert statistics.sign_flips(np.array([1.0] * 9 + [-1.0] + [0.0] * 20)) == pytest.approx(22 / 1024)
    mixed = np.array([1.0, 1.0, 1.0, 0.5, 0.5])  # only all signs alike are as extreme: 2 of 32
    assert statistics.sign_flips(mixed) == pytest.approx(2 / 32, abs=0.01)
    assert statistics.sign_flips(np.zeros(5)) == 1


def test_the_corrected_resampled_test():
    """By hand: mean 0.2, variance 0.025, error sqrt(0.025 (1/5 + 1/4)) = 0.10607, t = 1.8856 with 4 degrees."""
    folds = [(x, 0.25) for x in (0.0, 0.1, 0.2, 0.3, 0.4)]
    assert statistics.corrected_resampled(folds) == pytest.approx(0.13235, abs=1e-4)
    assert statistics.corrected_resampled([(0.2, 0.25)] * 5) == 0
    assert statistics.corrected_resampled([(0.0, 0.25)] * 5) == 1


def test_random_labels_rarely_end_in_a_verdict():
    """Nearest class means in five folds, labels drawn at random: below 5 % of 400 tasks."""
    rng, ends = np.random.default_rng(0), []
    for _ in range(400):
        classes, count = int(rng.integers(3, 11)), int(rng.integers(4, 11))
        targets = np.repeat(np.arange(classes), count)
        x, before = rng.normal(size=(len(targets), 16)), rng.random(len(targets)) < 1 / classes
        after, folds = np.zeros(len(targets)), []
        for part in range(5 if count > 4 else 4):
            test = np.arange(len(targets)) % count % (5 if count > 4 else 4) == part
            means = np.stack([x[~test & (targets == k)].mean(0) for k in range(classes)])
            nearest = ((x[test, None] - means) ** 2).sum(-1).argmin(1)
            after[test] = nearest == targets[test]
            folds.append((float((after - before)[test].mean()), float(test.sum() / (~test).sum())))
        ends.append(statistics.give_verdict(before, after, folds).word)
    assert (np.array(ends) != "close").mean() < 0.05
    sure = statistics.give_verdict(np.zeros(30), np.ones(30), [(1.0, 0.25)] * 5)
    assert sure.word == "better"


def test_confusion_and_projection():
    assert statistics.confusion([0, 0, 1], [0, 1, 1], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    points = np.random.default_rng(0).normal(size=(20, 8))
    assert statistics.project(points).shape == (20, 2)
    assert statistics.project(points[:1]).shape == (1, 2)
