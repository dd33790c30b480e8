"""Our towers against the library's own forward, and loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine.backbones import catalog, hf_clip
from engine.backbones.base import FEATURES, PATCHES, PIXELS, POOLED, named_biases
from engine.data.images import central
from engine.errors import BackboneUnavailable
from tests.tiny import TRUNK, make_tiny, picture

TEXTS = ["a photo of a cat.", "dog", "a very long sentence about nothing " * 20, "고양이 😀"]


@pytest.fixture(scope="module", params=["tiny", "trunk", "pocket"])
def backbone(request):
    return make_tiny(**TRUNK) if request.param == "trunk" else request.getfixturevalue(request.param)


def test_towers_equal_the_library(backbone):
    pixels = backbone.normalise(backbone.load_pixels([picture((200, 50, 50), k, 90) for k in range(3)]))
    ids = backbone.tokenize(TEXTS)
    with torch.no_grad():
        image = backbone.model.get_image_features(pixel_values=pixels).pooler_output
        text = backbone.model.get_text_features(input_ids=ids).pooler_output
        norm = torch.nn.functional.normalize
        torch.testing.assert_close(backbone.encode_image(pixels), norm(image, dim=-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.encode_text(ids), norm(text, dim=-1), atol=1e-5, rtol=0)
        whole = backbone.model(input_ids=ids, pixel_values=pixels)
        ours = backbone.logits(backbone.encode_image(pixels), backbone.encode_text(ids))
        torch.testing.assert_close(ours, whole.logits_per_image, atol=1e-3, rtol=1e-4)


def test_preprocessing_equals_the_processor(backbone):
    images = [picture((90, 150, 30), 1, 70).resize((70, 50)), picture((10, 20, 200), 2, 33)]
    expected = backbone.processor(images, return_tensors="pt").pixel_values
    torch.testing.assert_close(backbone.normalise(backbone.load_pixels(images)), expected, atol=1e-5, rtol=0)
    assert backbone.load_pixels(images).dtype == torch.uint8


def test_a_strip_of_a_million_pixels_costs_no_more_than_its_middle(backbone):
    strip = picture((90, 150, 30), 1, 8).resize((1_000_000, 8))
    assert torch.equal(backbone.load_pixels([strip]), backbone.load_pixels([central(strip)]))


def test_any_stage_leads_to_the_same_features(backbone):
    side = backbone.shape.image_size
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        whole = backbone.vision.advance(pixels, PIXELS, FEATURES)
        for stage in (PIXELS, PATCHES, 0, 1, 2, 3, POOLED):
            part = backbone.vision.advance(pixels, PIXELS, stage)
            torch.testing.assert_close(backbone.vision.advance(part, stage, FEATURES), whole, atol=1e-5, rtol=1e-5)


def test_a_trunk_is_no_part_of_the_biases_and_lies_before_what_is_tuned():
    backbone = make_tiny(**TRUNK)
    assert backbone.vision.first_trainable == PATCHES
    assert not [name for name, _, _ in named_biases(backbone.model) if "patch_embedding" in name]
    counted = sum(p.numel() for n, p in backbone.model.named_parameters() if n.endswith("bias") and ".trunk." not in n)
    projection = backbone.vision.trunk.projection.bias.numel()
    assert backbone.shape.bias_parameters == counted - projection


def test_padding_after_the_end_changes_nothing(backbone):
    ids = backbone.tokenize(["a cat"])
    padded = torch.cat([ids, torch.full((1, 9), backbone.tokenizer.pad_token_id)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_text(ids), backbone.encode_text(padded), atol=1e-5, rtol=0)


def test_long_texts_are_cut_and_keep_their_end(backbone):
    ids = backbone.tokenize([TEXTS[2]], reserve=4)
    assert ids.shape[1] == backbone.shape.context - 4
    assert backbone.end_of(ids).item() == ids.shape[1] - 1
    assert backbone.count_tokens(TEXTS[2]) > backbone.shape.context


def test_twins_share_or_copy(tiny):
    shared, copied = tiny.twin(), tiny.twin(share=False)
    for name, parameter in tiny.model.named_parameters():
        assert shared.model.get_parameter(name) is parameter
        assert copied.model.get_parameter(name) is not parameter
        assert torch.equal(copied.model.get_parameter(name), parameter)
    assert shared.model is not tiny.model
    assert shared.vision.blocks is not tiny.vision.blocks


def test_weight_hash_sees_one_changed_number(tiny):
    other = tiny.twin(share=False).model
    assert hf_clip.hash_weights(other) == tiny.weight_hash
    with torch.no_grad():
        other.visual_projection.weight[0, 0] += 0.5
    assert hf_clip.hash_weights(other) != tiny.weight_hash


def test_local_folder_loads_and_keeps_its_hash(tiny, tmp_path):
    for part in (tiny.model, tiny.tokenizer, tiny.processor):
        part.save_pretrained(tmp_path)
    loaded = catalog.load(str(tmp_path), "cpu")
    assert loaded.weight_hash == tiny.weight_hash
    assert torch.equal(loaded.tokenize(TEXTS), tiny.tokenize(TEXTS))
    assert catalog.load(str(tmp_path), "cpu") is loaded


@pytest.mark.parametrize("damage", ["empty", "no weights", "truncated", "other model"])
def test_folders_that_cannot_be_used_have_a_sentence(damage, tiny, tmp_path):
    if damage != "empty":
        for part in (tiny.model, tiny.tokenizer, tiny.processor):
            part.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    if damage == "other model":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(str(tmp_path), "cpu")
    assert "Choose" in str(caught.value)
    shutil.rmtree(tmp_path)


def test_hub_name_without_network_has_a_sentence():
    with pytest.raises(BackboneUnavailable, match="nobody/no-such-clip"):
        catalog.load("nobody/no-such-clip", "cpu")


def save_as_bin(backbone, folder, weights) -> None:
    for part in (backbone.model, backbone.tokenizer, backbone.processor):
        part.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def test_older_checkpoints_without_safetensors_load(tiny, tmp_path):
    save_as_bin(tiny, tmp_path, tiny.model.state_dict())
    assert catalog.load(str(tmp_path), "cpu").weight_hash == tiny.weight_hash


def test_code_in_a_bin_file_is_never_run(tiny, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    save_as_bin(tiny, tmp_path, {"logit_scale": Trap()})
    with pytest.raises(BackboneUnavailable):
        catalog.load(str(tmp_path), "cpu")
    assert not (tmp_path / "trapped").exists()
