"""The lesson on a step of training computes what it shows."""

from __future__ import annotations

import re

import pytest
import torch

from demo.screens.learn import step
from demo.words import LANGUAGES, Translator


@pytest.mark.parametrize("rate", [step.GOOD, step.HIGH])
def test_the_numbers_are_those_of_torch(rate):
    weight = torch.tensor(step.FIRST, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=rate)
    for found in step.descent(rate):
        optimizer.zero_grad()
        loss = (weight * step.GIVEN - step.WANTED) ** 2
        loss.backward()
        wanted = (weight.item(), loss.item(), weight.grad.item())
        assert (found.weight, found.loss, found.gradient) == pytest.approx(wanted, rel=1e-5)
        optimizer.step()


def test_one_rate_arrives_and_the_other_climbs():
    good, high = ([one.loss for one in step.descent(rate)] for rate in (step.GOOD, step.HIGH))
    assert good == sorted(good, reverse=True) and high == sorted(high)


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_stands_inside_the_picture(language):
    page = step.lesson(Translator(language))
    for x, y in re.findall(r'c?x="([\d.-]+)" c?y="([\d.-]+)"', page):
        assert 0 <= float(x) <= step.WIDTH and 0 <= float(y) <= step.HEIGHT
    assert "0.5 − 0.05 × (−8) = 0.9" in page and "<td>−4.8</td>" in page
