"""Configurations of strangers: what they may ask for is checked before it is done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.backbones import catalog
from engine.backbones.hub import explain
from engine.errors import BackboneUnavailable, Note, SegmenterUnavailable
from engine.regions import catalog as segmenters
from tests.tiny import make_tiny


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny = make_tiny()
    for part in (tiny.model, tiny.tokenizer, tiny.processor):
        part.save_pretrained(tmp_path)
    return tmp_path


def change(file: Path, part: str, **values) -> None:
    found = json.loads(file.read_text())
    (found[part] if part else found).update(values)
    file.write_text(json.dumps(found))


def refused(folder: Path | str) -> BackboneUnavailable:
    started = time.perf_counter()
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(str(folder), "cpu")
    assert time.perf_counter() - started < 20, "it was built first"
    return caught.value


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("vision_config", "num_hidden_layers", 1_000_000),
        ("text_config", "hidden_size", 10**30),
        ("vision_config", "image_size", 5600),
        ("vision_config", "patch_size", 0),
        ("text_config", "vocab_size", -1),
        ("text_config", "max_position_embeddings", "77"),
        ("text_config", "num_attention_heads", True),
        ("", "projection_dim", 1.5),
    ],
)
def test_a_size_beyond_reason_is_named(folder, part, field, value):
    change(folder / "config.json", part, **{field: value})
    error = refused(folder)
    assert (error.key, error.values["field"]) == ("backbone_size", field)


def test_a_model_that_its_weights_cannot_hold_is_not_built(folder):
    change(folder / "config.json", "vision_config", num_hidden_layers=100, hidden_size=8192, intermediate_size=32768)
    assert refused(folder).key == "backbone_larger"


def test_only_known_trunks_are_built(folder):
    change(folder / "config.json", "vision_config", conv_stem="vit_giant_patch14_224")
    assert refused(folder).key == "backbone_trunk"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"crop_size": {"height": 5600, "width": 5600}}, "backbone_crop"),
        ({"size": {"shortest_edge": 10**6}}, "backbone_crop"),
        ({"image_std": [0.5, 0, 0.5]}, "backbone_std"),
        ({"image_mean": [0.5]}, "backbone_std"),
        ({"image_std": [float("nan")] * 3}, "backbone_std"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(folder, values, key):
    change(folder / "preprocessor_config.json", "", **values)
    assert refused(folder).key == key


def test_a_tokenizer_that_gives_all_words_the_same_tokens_is_refused(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    kept = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer["model"]["vocab"] = {token: id for token, id in tokenizer["model"]["vocab"].items() if token in kept}
    tokenizer["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert refused(folder).key == "backbone_same_tokens"


@pytest.mark.parametrize("there", ["folder", "file", "nothing", "long", "user", "up"])
def test_where_paths_are_forbidden_all_of_them_have_one_answer(there, folder, monkeypatch):
    monkeypatch.setenv("CTL_LOCAL_PATHS", "no")
    paths = {
        "folder": str(folder),
        "file": str(folder / "config.json"),
        "nothing": str(folder / "nothing"),
        "long": "/x" * 400,
        "user": "~nobody-of-this-name/x/y",
        "up": "../../..",
    }
    error = refused(paths[there])
    assert (error.key, error.values["near"]) == ("backbone_unknown", Note("none"))
    with pytest.raises(SegmenterUnavailable) as caught:
        segmenters.load(paths[there], "cpu")
    assert caught.value.key == "segmenter_unknown"


@pytest.mark.parametrize("id", ["x" * 400, "/x" * 3000, "~nobody-of-this-name/x/y", "a\0b"])
def test_names_that_can_be_no_path_are_unknown(id):
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(id, "cpu")
    assert caught.value.key == "backbone_unknown"


def test_a_library_s_sentence_names_no_path_of_the_server(monkeypatch):
    error = OSError("Error no file named model.safetensors found in directory /srv/visitor/ab12/work.")
    assert "/srv" in str(explain(error, "org/model"))
    monkeypatch.setenv("CTL_LOCAL_PATHS", "no")
    assert "/srv" not in str(explain(error, "org/model"))
