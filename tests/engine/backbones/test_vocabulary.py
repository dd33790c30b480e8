"""Which words a backbone hardly saw."""

from __future__ import annotations

import json

import pytest

from engine.backbones import vocabulary
from engine.types import Label


def labels(*prompts: str) -> list[Label]:
    return [Label(prompt, prompt) for prompt in prompts]


def test_counts_are_of_images_and_most_frequent_first(tmp_path):
    counts = vocabulary.count([["A dog runs.", "a dog"], ["a cat, a DOG"], ["2 cats"]])
    assert counts == {"a": 2, "dog": 2, "cat": 1, "cats": 1, "runs": 1}
    assert next(iter(counts)) == "a"
    vocabulary.write(counts, tmp_path)
    assert json.loads((tmp_path / vocabulary.FILE).read_text()) == counts


@pytest.mark.parametrize(
    ("prompt", "unseen"),
    [
        ("dogs", ()),
        ("a dog and a cat", ()),
        ("butterfly", ()),
        ("leaves", ()),
        ("boxes", ()),
        ("zebu dog", ("zebu",)),
        ("고양이", ("고양이",)),
        ("ghosts", ("ghosts",)),
        ("dog 7", ()),
        ("😀", ()),
    ],
)
def test_plurals_are_one_word_and_rare_words_are_named(tmp_path, prompt, unseen):
    counts = dict.fromkeys(("a", "and", "dog", "cat", "butterflies", "leaf", "box"), vocabulary.FAMILIAR)
    vocabulary.write({**counts, "ghost": vocabulary.FAMILIAR - 1}, tmp_path)
    assert vocabulary.unfamiliar(str(tmp_path), labels(prompt)) == unseen


def test_nothing_is_said_of_other_backbones(tmp_path):
    assert vocabulary.unfamiliar(str(tmp_path), labels("zebu")) == ()
    assert vocabulary.unfamiliar("openai/clip-vit-base-patch32", labels("zebu")) == ()


def test_the_bundled_backbone_knows_everyday_words():
    assert vocabulary.unfamiliar("pocket", labels("a photo of a cat", "two men on a beach", "tulips", "t-shirt")) == ()
    assert vocabulary.unfamiliar("pocket", labels("gasket", "annual crop", "gasket")) == (
        "gasket",
        "annual",
        "crop",
    )
