"""Measures of an accuracy matrix, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.continual.metrics import dependence, interval, summarise

MATRIX = np.array([[0.9, 0.2, 0.3], [0.6, 0.8, 0.4], [0.7, 0.5, 1.0]])


def test_measures_by_hand():
    found = summarise(MATRIX, [0.5, 0.1, 0.6], [0.1, 0.2, 0.65])
    assert found["accuracy"] == pytest.approx((0.7 + 0.5 + 1) / 3)
    assert found["incremental"] == pytest.approx((0.9 + 0.7 + 2.2 / 3) / 3)
    assert found["forgetting"] == pytest.approx((0.2 + 0.3) / 2)
    assert found["backward"] == pytest.approx((-0.2 - 0.3) / 2)
    assert found["forward"] == pytest.approx((0.2 - 0.1 + 0.4 - 0.6) / 2)
    assert found["never_tuned"] == pytest.approx(0.3)
    assert found["open"] == 0.65


def test_one_step_forgets_nothing_and_one_order_has_no_interval():
    assert np.isnan(summarise(MATRIX[:1, :1], [0.5], [0.9])["forgetting"])
    assert np.isnan(interval([0.5]).low)
    assert interval([0.4, 0.6]).value == pytest.approx(0.5) and interval([0.4, 0.6]).low < 0.4


def test_dependence_of_choice_on_label():
    targets = np.repeat([0, 1], 20)
    own = np.eye(4, dtype=bool)[targets]
    same = np.tile([True, True, False, False], (40, 1))
    assert dependence(own, targets)[1] < 0.01 and dependence(own, targets)[2] == pytest.approx(1)
    assert dependence(same, targets)[1] == 1
