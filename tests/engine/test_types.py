"""Similarities and probabilities of a backbone's logits."""

from __future__ import annotations

import numpy as np
import torch

from engine.types import SCORES, LogitScale


def test_softmax_without_a_bias_sigmoid_with_one():
    cosines = np.array([[0.3, 0.1, -0.2], [0.0, 0.0, 0.9]])
    plain, paired = LogitScale(25.0), LogitScale(100.0, -12.0)
    for scale in (plain, paired):
        logits = cosines * scale.factor + (scale.bias or 0)
        np.testing.assert_allclose(scale.similarity(logits), cosines)
    logits = torch.from_numpy(cosines)
    np.testing.assert_allclose(plain.probabilities(cosines * 25), (logits * 25).softmax(-1))
    np.testing.assert_allclose(paired.probabilities(cosines * 100 - 12), (logits * 100 - 12).sigmoid())
    assert plain.probabilities(cosines * 25).sum() == 2
    assert paired.probabilities(np.array([0.0])) == 0.5


def test_margin_is_the_distance_to_the_best_other_label():
    cosines = np.array([[0.3, 0.1, -0.2], [0.5, 0.5, 0.1], [0.0, 0.2, 0.9]])
    wanted = [[row[k] - max(other for j, other in enumerate(row) if j != k) for k in range(3)] for row in cosines]
    for scale in (LogitScale(25.0), LogitScale(100.0, -12.0)):
        logits = cosines * scale.factor + (scale.bias or 0)
        np.testing.assert_allclose(scale.margin(logits), wanted, atol=1e-12)
        np.testing.assert_allclose(scale.margin(logits[0]), wanted[0], atol=1e-12)
        assert scale.margin(logits[:, :1]).tolist() == [[0], [0], [0]]
        for kind in SCORES:
            assert scale.values(logits, kind).shape == logits.shape


def test_every_family_says_the_same_as_its_numbers(tiny):
    logits = torch.randn(2, 3)
    np.testing.assert_allclose(
        tiny.logit_scale.probabilities(logits.numpy()), tiny.probabilities(logits).numpy(), atol=1e-6
    )
