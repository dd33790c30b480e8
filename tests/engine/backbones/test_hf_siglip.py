"""SigLIP's towers against transformers' own forward, its texts, and loading."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from engine.backbones import catalog, hf_siglip
from engine.backbones.base import CAPABILITIES, FEATURES, PIXELS, POOLED, PROJECTION
from engine.errors import BackboneUnavailable
from engine.methods.prompt_tuning import place
from engine.tuning import registry
from engine.tuning.tuner import TunerContext
from engine.types import Label
from tests.families import make_siglip, sentencepiece_tokenizer
from tests.tiny import picture

TEXTS = ["a photo of a cat.", "Fire  TRUCK", "a very long sentence about nothing " * 20]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    return make_siglip(folder), folder


@pytest.fixture(scope="module")
def siglip(saved):
    return saved[0]


def test_towers_equal_the_library(siglip):
    pixels = siglip.normalise(siglip.load_pixels([picture((60 * k, 50, 50), k, 90) for k in range(3)]))
    ids = siglip.tokenize(TEXTS)
    assert ids.shape == (3, 20)
    with torch.no_grad():
        whole = siglip.model(input_ids=ids, pixel_values=pixels)
        image, text = siglip.encode_image(pixels), siglip.encode_text(ids)
        assert whole.image_embeds.std(0).max() > 1e-2 and whole.text_embeds.std(0).max() > 1e-2
        torch.testing.assert_close(image, whole.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(text, whole.text_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(siglip.logits(image, text), whole.logits_per_image, atol=1e-4, rtol=0)
        probabilities = siglip.probabilities(siglip.logits(image, text))
        torch.testing.assert_close(probabilities, torch.sigmoid(whole.logits_per_image), atol=1e-5, rtol=0)


def test_preprocessing_equals_the_processor(siglip):
    images = [picture((90, 150, 30), 1, 70).resize((70, 50)), picture((10, 20, 200), 2, 33)]
    expected = siglip.processor(images, return_tensors="pt").pixel_values
    torch.testing.assert_close(siglip.normalise(siglip.load_pixels(images)), expected, atol=1e-5, rtol=0)
    assert siglip.load_pixels(images).shape == (2, 3, 16, 16)
    assert siglip.load_pixels(images).dtype == torch.uint8


def test_any_stage_leads_to_the_same_features(siglip):
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        whole = siglip.vision.advance(pixels, PIXELS, FEATURES)
        for stage in (0, 1, 3, POOLED):
            part = siglip.vision.advance(pixels, PIXELS, stage)
            torch.testing.assert_close(siglip.vision.advance(part, stage, FEATURES), whole, atol=1e-6, rtol=1e-5)
        assert siglip.vision.embed(pixels).shape == (2, siglip.shape.vision_tokens, siglip.shape.vision_width)


def test_padding_belongs_to_the_text(siglip):
    ids = siglip.tokenize(["cat"])
    end = siglip.tokenizer.eos_token_id
    assert ids[0].tolist() == [ids[0, 0].item(), *[end] * 19]
    assert siglip.end_of(ids).item() == 19
    assert siglip.words_end(ids).item() == 1
    with torch.no_grad():
        shorter = siglip.text.encode_ids(ids[:, :8], torch.tensor([7]))
    assert (siglip.encode_text(ids) - shorter).abs().max() > 1e-3


def test_texts_leave_room_for_prompts(siglip):
    ids = siglip.tokenize([TEXTS[2], "cat"], reserve=4)
    assert ids.shape == (2, 16)
    assert ids[0, -1] == siglip.tokenizer.eos_token_id
    assert siglip.count_tokens("a red square!") == 4
    assert siglip.offers == set(CAPABILITIES) - {PROJECTION}


@pytest.mark.parametrize("where", ["end", "middle", "front"])
def test_prompt_tokens_stand_where_they_should(siglip, where):
    ids = siglip.tokenize(["fire truck."], reserve=4)
    tokens, context = ids[..., None].float(), -torch.arange(1.0, 5)[None, :, None]
    row = place(context, tokens, siglip.words_end(ids), where, siglip.start_tokens, 0)[0, :, 0].int().tolist()
    name, padding = ids[0, :2].tolist(), ids[0, 2:].tolist()
    order = {"end": [-1, -2, -3, -4, *name], "front": [*name, -1, -2, -3, -4], "middle": [-1, -2, *name, -3, -4]}
    assert row == [*order[where], *padding]
    assert len(row) == siglip.shape.context


def test_prompts_of_real_words_are_the_sentence(siglip):
    labels = (Label("cat", "cat"), Label("fire truck", "fire truck"))
    single = siglip.text_features([label.prompt for label in labels], ["a photo of a {}."])
    support = torch.nn.functional.normalize(torch.randn(4, 24), dim=-1)
    setting = TunerContext(siglip, labels, ("a photo of a {}.",), single, single, support, torch.arange(2).repeat(2))
    spec = registry.get("prompt_tuning")
    tuner = spec.tuner()(spec.configure(), setting)
    torch.testing.assert_close(tuner.text_features(), single, atol=1e-6, rtol=0)


def test_texts_are_cleaned_as_in_training():
    assert hf_siglip.canonical("A photo, of  a CAT!") == "a photo of a cat"
    assert hf_siglip.cleaning("SiglipTokenizer")("Hi, You") == "hi you"
    assert hf_siglip.cleaning("GemmaTokenizerFast")("Hi, You") == "hi, you"
    assert hf_siglip.cleaning("T5Tokenizer")("Hi, You") == "Hi, You"


def test_local_folder_loads(saved, tmp_path):
    siglip, folder = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    sentencepiece_tokenizer(tmp_path, 20, "SiglipTokenizer")  # whose class may need a library that is not there
    loaded = catalog.load(str(tmp_path), "cpu")
    assert loaded.family == "siglip"
    assert loaded.weight_hash == siglip.weight_hash
    assert torch.equal(loaded.tokenize(TEXTS), siglip.tokenize(TEXTS))


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("naflex", "backbone_naflex"),
        ("no tokenizer", "backbone_no_tokenizer"),
        ("no processor", "backbone_no_processor"),
        ("truncated", "backbone_damaged"),
        ("other weights", "backbone_other_weights"),
        ("other sizes", "backbone_other_weights"),
        ("nan", "backbone_not_finite"),
    ],
)
def test_folders_that_cannot_be_used_have_a_sentence(damage, key, saved, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved[1], tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    if damage == "naflex":
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "siglip2"}))
    if damage == "no tokenizer":
        for file in tmp_path.glob("tokenizer*"):
            file.unlink()
    if damage == "no processor":
        (tmp_path / "preprocessor_config.json").unlink()
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:2000])
    if damage in ("other weights", "other sizes", "nan"):
        tensors = load_file(weights)
        if damage == "nan":
            tensors["text_model.head.weight"][0, 0] = float("nan")
        elif damage == "other sizes":
            tensors["text_model.head.weight"] = torch.zeros(5, 5)
        else:
            tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(str(tmp_path), "cpu")
    assert caught.value.key == key
    assert "Choose" in str(caught.value)
