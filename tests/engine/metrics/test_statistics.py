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
    assert statistics.give_verdict(wrong, right, False).word == "better"
    assert statistics.give_verdict(right, wrong, False).word == "worse"
    assert statistics.give_verdict([1, 0, 1], [1, 1, 1], False).word == "close"
    assert statistics.give_verdict(wrong, right, False, tuned=False).word == "baseline"
    verdict = statistics.give_verdict([1, 0, 0, 1], [1, 1, 1, 0], False)
    assert (verdict.gained, verdict.lost, verdict.tested) == (2, 1, 4)


def test_bootstrap_is_fair_and_repeatable():
    rng = np.random.default_rng(0)
    shares = [rng.integers(0, 2, 30).astype(float) for _ in range(60)]
    false_alarms = sum(statistics.paired_bootstrap(a, b) < 0.05 for a, b in zip(shares[::2], shares[1::2], strict=True))
    assert false_alarms <= 5  # 30 comparisons of equals
    assert statistics.paired_bootstrap(np.zeros(30), np.ones(30)) < 0.001
    assert statistics.paired_bootstrap(shares[0], shares[1]) == statistics.paired_bootstrap(shares[0], shares[1])


def test_confusion_and_projection():
    assert statistics.confusion([0, 0, 1], [0, 1, 1], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    points = np.random.default_rng(0).normal(size=(20, 8))
    assert statistics.project(points).shape == (20, 2)
    assert statistics.project(points[:1]).shape == (1, 2)
