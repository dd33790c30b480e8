"""What trains and what tests."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.data import episode
from engine.data.labels import parse_labels
from engine.errors import BadConfig, BadLabels
from engine.types import Label


def names(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


def labels(*words: str) -> tuple[Label, ...]:
    return tuple(Label(word, word) for word in words)


def test_split_takes_shots_and_tests_the_rest():
    built = episode.build(labels("a", "b"), names(a=30, b=20), shots=8)
    (fold,) = built.folds
    assert not set(fold.support) & set(fold.test)
    assert Counter(built.targets[i] for i in fold.support) == {0: 8, 1: 8}
    assert Counter(built.targets[i] for i in fold.test) == {0: 22, 1: 12}
    assert built.final_support == fold.support


def test_seed_decides_the_draw():
    first, again, other = (episode.build(labels("a", "b"), names(a=30, b=30), 4, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.folds != other.folds


def test_more_shots_keep_the_images_of_fewer():
    few, more = (episode.build(labels("a", "b"), names(a=30, b=30), shots).folds[0].support for shots in (2, 8))
    assert set(few) < set(more)


def test_few_images_are_cross_validated_and_all_tested():
    built = episode.build(labels("a", "b", "c"), names(a=5, b=4, c=6), shots=8)
    assert built.cross_validated
    assert {i for fold in built.folds for i in fold.test} == set(range(15))
    for fold in built.folds:
        assert not set(fold.support) & set(fold.test)
        assert {built.targets[i] for i in fold.support} == {0, 1, 2}
    assert built.final_support == tuple(range(15))
    assert [note.key for note in built.notes] == ["cross_validated"]


def test_one_small_class_does_not_force_cross_validation():
    built = episode.build(labels("a", "b"), names(a=60, b=5), shots=8)
    assert not built.cross_validated
    assert Counter(built.targets[i] for i in built.folds[0].support) == {0: 8, 1: 4}
    assert [note.key for note in built.notes] == ["shots_capped"]


def test_single_image_class_trains_and_never_tests():
    built = episode.build(labels("a", "b"), names(a=4, b=1), shots=4)
    assert all(4 in fold.support and 4 not in fold.test for fold in built.folds)
    assert "one_image_labels" in [note.key for note in built.notes]


def test_images_without_label_and_labels_without_image_are_named():
    built = episode.build(labels("a", "b", "c"), [*names(a=30, b=30), None], 4)
    assert built.targets[-1] == -1
    assert {note.key: dict(note.values) for note in built.notes} == {
        "label_without_images": {"labels": "c"},
        "images_without_label": {"count": 1},
    }
    assert 60 not in built.labelled


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ((), "no_labels"),
        (labels("a"), "one_label"),
        (labels("a", "A"), "labels_by_case"),
        (labels("a", " "), "empty_label"),
        (labels("a", "b" * 500), "long_label"),
        (labels(*(f"l{i}" for i in range(201))), "too_many_labels"),
    ],
)
def test_bad_labels_have_their_sentence(given, key):
    with pytest.raises(BadLabels) as caught:
        episode.build(given, ["a"] * 10)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("image_labels", "shots", "key"),
    [
        ([None, None], 4, "no_images"),
        (["a", "b"], 4, "nothing_to_test"),
        (["a", "z"], 4, "unknown_image_label"),
        (names(a=9, b=9), 0, "bad_shots"),
    ],
)
def test_bad_images_have_their_sentence(image_labels, shots, key):
    with pytest.raises(BadLabels) as caught:
        episode.build(labels("a", "b"), image_labels, shots)
    assert caught.value.key == key


def test_typed_labels():
    typed = parse_labels("red_panda,\n고양이 = cat\n 😀 ,")
    assert typed == (Label("red_panda", "red panda"), Label("고양이", "cat"), Label("😀", "😀"))
    with pytest.raises(BadLabels, match="Label 2 is empty"):
        parse_labels("a,,b")


def test_unknown_template_set():
    with pytest.raises(BadConfig, match="general"):
        episode.build(labels("a", "b"), names(a=9, b=9), template_set="nope")
