"""Splitting labels into steps, and every sentence where that cannot be."""

from __future__ import annotations

import pytest

from engine.continual.tasks import build_stream, check_steps, parse_steps, shuffled, split_labels
from engine.errors import BadConfig, BadLabels
from engine.types import Label

LABELS = [Label(name, name) for name in "abcd"]
OF_IMAGES = [name for name in "abcd" for _ in range(6)] + [None]


def test_sizes_differ_by_one_at_most():
    assert split_labels("abcde", 2) == [("a", "b", "c"), ("d", "e")]
    assert shuffled("abcd", 0) == tuple("abcd")
    assert sorted(shuffled("abcd", 1)) == list("abcd") and shuffled("abcd", 1) == shuffled("abcd", 1)
    assert parse_steps(" a ,b;c ") == [("a", "b"), ("c",)]


def test_an_image_trains_or_tests_and_its_draw_does_not_depend_on_the_steps():
    one = build_stream(LABELS, OF_IMAGES, [tuple("abcd")], 4)
    four = build_stream(LABELS, OF_IMAGES, split_labels("abcd", 4), 4)
    assert sorted(i for step in four.steps for i in step.train) == list(one.steps[0].train)
    for step in four.steps:
        assert not set(step.train) & set(step.test) and len(step.train) == 4 and len(step.test) == 2
    assert build_stream(LABELS, OF_IMAGES, [tuple("ba")], 4, most_tests=1).classes_until(0) == (0, 1)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([("a",), ("a", "b")], "label a is in step 1 and in step 2"),
        ([("a",), ("x",)], "Step 2 names the label x"),
        ([("a",), ()], "Step 2 names no label"),
    ],
)
def test_steps_by_hand_that_cannot_be(groups, words):
    with pytest.raises(BadLabels, match=words):
        check_steps(groups, tuple("abcd"))


def test_more_steps_than_labels_one_label_and_a_step_without_images():
    with pytest.raises(BadConfig, match="5 steps and only 4 labels"):
        split_labels("abcd", 5)
    with pytest.raises(BadConfig, match="at least 1"):
        split_labels("abcd", 0)
    with pytest.raises(BadLabels, match="there is only a"):
        build_stream(LABELS[:1], OF_IMAGES, [("a",)])
    with pytest.raises(BadLabels, match=r"Step 1 .* label b has 1"):
        build_stream(LABELS, ["a", "a", "b"], [("a", "b")])
