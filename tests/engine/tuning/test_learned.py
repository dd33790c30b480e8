"""Nearest words and places of trained vectors, against a few independent lines and on every kind of tokenizer."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from engine.tuning import registry
from engine.tuning.learned import nearest_words
from engine.tuning.tuner import TunerContext
from engine.types import Label

LABELS = (Label("truck", "fire truck"), Label("cat", "cat"))


def setting_of(backbone) -> TunerContext:
    features = normalize(torch.randn(2, backbone.shape.embedding), dim=-1)
    return TunerContext(backbone, LABELS, ("a photo of a {}.",), features, features, features, torch.arange(2))


def build(method: str, backbone, **settings):
    spec = registry.get(method)
    return spec.tuner()(spec.configure(settings=settings), setting_of(backbone)).eval()


def test_nearest_words_are_those_of_the_table(tiny, monkeypatch):
    """In chunks as at once, and as the plain distances to the library's own table say."""
    table = tiny.model.text_model.embeddings.token_embedding.weight
    ids = tiny.tokenizer("photo truck", add_special_tokens=False).input_ids
    vectors = table[ids] + 0.01 * torch.randn(2, table.shape[1])
    found = nearest_words(tiny, vectors)
    for vector, (near, *others) in zip(vectors, found, strict=True):
        plain = (table - vector).square().sum(1).sqrt()
        assert near[0] == tiny.tokenizer.decode([int(plain.argmin())]).strip()
        assert near[1] == pytest.approx(plain.min().item(), rel=1e-4)
        assert all(near[1] < distance for _, distance in others)
        assert len({word for word, _ in [near, *others]}) == 3
    monkeypatch.setattr("engine.tuning.learned.CHUNK", 100)
    assert [[word for word, _ in row] for row in nearest_words(tiny, vectors)] == [[w for w, _ in row] for row in found]


def test_special_tokens_are_no_words(tiny):
    table = tiny.model.text_model.embeddings.token_embedding.weight
    words = [word for row in nearest_words(tiny, table[[tiny.tokenizer.eos_token_id]]) for word, _ in row]
    assert len(words) == 3 and not any("<|" in word for word in words)


@pytest.mark.parametrize(
    ("method", "settings", "layout"),
    [
        ("prompt_tuning", {"tokens": 3}, "[v1] [v2] [v3] fire truck"),
        ("prompt_tuning", {"tokens": 3, "class_token": "middle"}, "[v1] fire truck [v2] [v3]"),
        ("prompt_tuning", {"tokens": 2, "class_token": "front"}, "fire truck [v1] [v2]"),
        ("p_tuning", {"front": 1, "back": 2, "anchor": "photo of"}, "[v1] photo of fire truck [v2] [v3]"),
        ("p_tuning", {"front": 2, "back": 0}, "[v1] [v2] fire truck"),
        ("context_prompt", {"context": "a photo\nof thing"}, "[v1] [v2] [v3] [v4] fire truck"),
    ],
)
def test_where_vectors_stand_on_every_tokenizer(family, method, settings, layout):
    """CLIP's and SentencePiece's marks are gone; a full stop that the tokenizer knows ends the text."""
    (part,) = build(method, family, **settings).learned()
    said = " ".join(part.to_json()["layout"])
    assert said.removesuffix(".").strip() == layout
    for token in part.tokens:
        assert all(word and not set(word) & set("▁Ġ") and "</w>" not in word for word, _ in token.nearest)


def test_start_words_and_how_far_they_went(tiny):
    tuner = build("prompt_tuning", tiny, tokens=6)
    with torch.no_grad():
        tuner.context[1] += 0.5
    (part,) = tuner.learned()
    assert part.shared and part.label == "truck"
    assert [token.start for token in part.tokens] == ["a", "photo", "of", "a", "", ""]
    assert part.tokens[1].moved == pytest.approx(0.5 * tiny.shape.text_width**0.5, rel=1e-4)
    assert part.tokens[5].moved is None
    assert [token.start for token in build("prompt_tuning", tiny, init="noise").learned()[0].tokens] == [""] * 4


def test_each_label_has_its_own_vectors_and_many_labels_are_cut(tiny, monkeypatch):
    tuner = build("prompt_tuning", tiny, per_class=True)
    with torch.no_grad():
        tuner.context[1, 0] += 3
    first, second = tuner.learned()
    assert (first.label, second.label) == ("truck", "cat") and not first.shared
    assert (first.tokens[0].moved, second.tokens[0].moved) == (0, pytest.approx(3 * 32**0.5, rel=1e-4))
    assert first.about.values == (("count", 4), ("label", "truck"))
    monkeypatch.setattr("engine.methods.prompt_tuning.MOST_LABELS", 1)
    assert len(tuner.learned()) == 1


def test_the_conditional_prompt_tells_the_mean_shift(tiny):
    tuner = build("conditional_prompt", tiny)
    tuner.mean_shift += 1
    assert tuner.learned()[0].tokens[0].moved == pytest.approx(32**0.5, rel=1e-4)
