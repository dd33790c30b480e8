"""Calibration against a few independent lines and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from engine.metrics.calibration import calibration


def random_probabilities(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(4, 0.4), count), rng.integers(0, 4, count)


def test_many_images_use_fifteen_bins_of_equal_width():
    probabilities, targets = random_probabilities(600)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    expected = 0.0
    for k in range(15):  # Guo et al. 2017, equation 3
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = calibration(probabilities, targets)
    assert found.ece == pytest.approx(expected)
    assert sum(b.count for b in found.bins) == 600
    assert [b.confidence for b in found.bins] == sorted(b.confidence for b in found.bins)


def test_few_images_share_bins_of_equal_size():
    probabilities, targets = random_probabilities(47)
    found = calibration(probabilities, targets)
    assert sorted(b.count for b in found.bins) == [11, 12, 12, 12]
    assert [b.count for b in calibration(probabilities[:7], targets[:7]).bins] == [7]


def test_known_values():
    found = calibration(np.array([[0.8, 0.2]] * 10), [0] * 8 + [1] * 2)
    assert found.ece == pytest.approx(0)  # 80 % sure, 80 % right
    assert found.brier == pytest.approx(0.8 * 2 * 0.04 + 0.2 * 2 * 0.64)
    assert (found.accuracy, found.confidence) == pytest.approx((0.8, 0.8))
    sure_and_wrong = calibration(np.array([[1.0, 0.0]] * 10), [1] * 10)
    assert (sure_and_wrong.ece, sure_and_wrong.brier) == pytest.approx((1, 2))
    assert calibration(np.zeros((0, 3)), []) is None


def test_to_json_is_plain():
    probabilities, targets = random_probabilities(20)
    found = calibration(probabilities, targets).to_json()
    assert set(found) == {"ece", "brier", "confidence", "accuracy", "bins"}
    assert set(found["bins"][0]) == {"confidence", "accuracy", "count"}
