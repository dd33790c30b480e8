"""Finding a backbone by any kind of name, loading it once, and a sentence for all that can be wrong."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from pathlib import Path

import httpx
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.backbones import catalog
from engine.backbones.entries import ENTRIES
from engine.backbones.hub import explain, on_this_machine
from engine.errors import BackboneUnavailable
from tests.families import make_siglip, open_clip_config, open_clip_model, save_open_clip
from tests.tiny import picture

TEXTS = ["a photo of a cat.", "dog"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder in open_clip's layout."""
    return save_open_clip("vit", tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(autouse=True)
def forget():
    """No test sees what another one loaded."""
    yield
    catalog._loaded.clear()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache; ``hub(id, folder)`` puts a folder's files there as if downloaded."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(id: str, folder: Path) -> None:
        root = tmp_path / "hub" / f"models--{id.replace('/', '--')}"
        shutil.copytree(folder, root / "snapshots" / ("0" * 40))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)

    return put


def check_is_the_model(backbone, kind: str = "vit") -> None:
    """Its features are those of the library's model."""
    own = open_clip_model(kind)
    pixels = backbone.normalise(backbone.load_pixels([picture((200, 50, 50), 1, 50)]))
    with torch.no_grad():
        wanted = own.encode_image(pixels, normalize=True), own.encode_text(backbone.tokenizer(TEXTS), normalize=True)
        torch.testing.assert_close(backbone.encode_image(pixels), wanted[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.encode_text(backbone.tokenize(TEXTS)), wanted[1], atol=1e-5, rtol=0)


def test_folder_of_open_clip(saved):
    backbone = catalog.load(str(saved), "cpu")
    assert backbone.family == "open_clip" and backbone.id == str(saved)
    check_is_the_model(backbone)
    image = picture((90, 150, 30), 1, 70).resize((70, 50))
    grey = backbone.normalise(backbone.load_pixels([image]))
    levels = torch.tensor(json.loads((saved / "open_clip_config.json").read_text())["preprocess_cfg"]["mean"])
    expected = backbone.load_pixels([image]).float() / 255 - levels.view(3, 1, 1)
    torch.testing.assert_close(grey, expected / 0.5)
    assert catalog.load(str(saved), "cpu") is backbone


def test_hub_names_of_either_library(saved, hub, tmp_path):
    siglip = make_siglip(tmp_path)
    hub("org/siglip", tmp_path)
    hub("org/openclip", saved)
    assert catalog.load("org/siglip", "cpu").weight_hash == siglip.weight_hash
    for id in ("org/openclip", "hf-hub:org/openclip"):
        backbone = catalog.load(id, "cpu")
        assert backbone.family == "open_clip" and backbone.id == id
        check_is_the_model(backbone)


@pytest.mark.parametrize("layout", ["siglip", "open_clip"])
def test_a_half_downloaded_repository(layout, saved, hub, tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    if layout == "siglip":
        make_siglip(folder)
    else:
        shutil.copytree(saved, folder, dirs_exist_ok=True)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    hub("org/part", folder)
    with pytest.raises(BackboneUnavailable, match="org/part") as caught:
        catalog.load("org/part", "cpu")
    assert caught.value.key == "backbone_offline"


@pytest.mark.parametrize("missing", [False, True])
def test_weights_in_several_files(missing, hub, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    siglip = make_siglip(folder)
    (folder / "model.safetensors").unlink()
    siglip.model.save_pretrained(folder, max_shard_size="50KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    if missing:
        parts[-1].unlink()
        hub("org/parts", folder)
        with pytest.raises(BackboneUnavailable) as caught:
            catalog.load("org/parts", "cpu")
        assert caught.value.key == "backbone_offline"
    else:
        hub("org/parts", folder)
        assert catalog.load("org/parts", "cpu").weight_hash == siglip.weight_hash


@pytest.fixture
def built_in(monkeypatch):
    """A tiny architecture under open_clip's own names, with one published tag."""
    from open_clip import factory, pretrained

    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny-B-8", open_clip_config("vit"))
    monkeypatch.setitem(pretrained._PRETRAINED, "Tiny-B-8", {"meta": {"hf_hub": "org/openclip/", "quick_gelu": True}})


@pytest.mark.parametrize("id", ["Tiny-B-8", "open_clip:Tiny-B-8", "open_clip:Tiny-B-8@meta", "open_clip:Tiny-B-8@FILE"])
def test_names_of_open_clip(id, saved, hub, built_in):
    hub("org/openclip", saved)
    check_is_the_model(catalog.load(id.replace("FILE", str(saved / "open_clip_model.safetensors")), "cpu"))


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("no model", "backbone_no_model"),
        ("no json", "backbone_config"),
        ("no model_cfg", "backbone_config"),
        ("no weights", "backbone_no_weights"),
        ("truncated", "backbone_damaged"),
        ("nan", "backbone_not_finite"),
        ("other weights", "backbone_other_weights"),
        ("no tokenizer", "backbone_no_tokenizer"),
        ("other tokenizer", "backbone_other_tokenizer"),
        ("file", "backbone_file"),
    ],
)
def test_folders_that_cannot_be_used(damage, key, saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    config, weights = tmp_path / "open_clip_config.json", tmp_path / "open_clip_model.safetensors"
    if damage == "no model":
        config.unlink()
    if damage in ("no json", "no model_cfg"):
        config.write_text("{" if damage == "no json" else "{}")
    if damage == "no weights":
        weights.unlink()
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    if damage == "other tokenizer":  # the default one knows 49,408 tokens
        changed = json.loads(config.read_text())
        changed["model_cfg"]["text_cfg"]["vocab_size"] = 500
        config.write_text(json.dumps(changed))
        tensors = load_file(weights)
        tensors["token_embedding.weight"] = tensors["token_embedding.weight"][:500].clone()
        save_file(tensors, weights)
    if damage in ("nan", "other weights"):
        tensors = load_file(weights)
        tensors["visual.proj"][0, 0] = float("nan")
        if damage == "other weights":
            del tensors["visual.proj"]
        save_file(tensors, weights)
    if damage == "no tokenizer":
        changed = json.loads(config.read_text())
        changed["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "org/tokenizer"
        config.write_text(json.dumps(changed))
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(str(weights if damage == "file" else tmp_path), "cpu")
    assert caught.value.key == key
    assert "Choose" in str(caught.value)
    if key == "backbone_other_weights":
        assert "visual.proj" in str(caught.value)


@pytest.mark.parametrize(
    ("id", "key", "near"),
    [
        ("MobileCLIP2-SO", "backbone_unknown", "MobileCLIP2-S0"),
        ("open_clip:Vit-B-23", "backbone_unknown", "ViT-B-32"),
        ("nonsense", "backbone_unknown", ""),
        ("", "backbone_unknown", ""),
        ("../..", "backbone_no_model", ""),
        ("openai/clip-vit-base-patch23", "backbone_offline", "openai/clip-vit-base-patch32"),
        ("ViT-B-32@nothing", "backbone_no_tag", "laion2b_s34b_b79k"),
        ("MobileCLIP2-S0", "backbone_offline", ""),
        ("hf-hub:timm/nothing", "backbone_offline", ""),
        ("ViT-M-32-alt", "backbone_no_weights", ""),
    ],
)
def test_names_that_cannot_be_used(id, key, near, hub):
    with pytest.raises(BackboneUnavailable) as caught:
        catalog.load(id, "cpu")
    assert caught.value.key == key, str(caught.value)
    assert near in str(caught.value)


def refusal(cls, status: int) -> Exception:
    return cls("x", response=httpx.Response(status, request=httpx.Request("GET", "https://hub")))


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (refusal(errors.GatedRepoError, 403), "backbone_gated"),
        (refusal(errors.RepositoryNotFoundError, 404), "backbone_not_found"),
        (errors.LocalEntryNotFoundError("x"), "backbone_offline"),
        (ConnectionError("x"), "backbone_offline"),
        (OSError(errno.ENOSPC, "No space left on device"), "backbone_disk"),
        (SafetensorError("incomplete metadata"), "backbone_damaged"),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), "backbone_damaged"),
        (ValueError("something else.\nmore"), "backbone_missing"),
    ],
)
def test_what_libraries_raise_has_a_sentence(error, key):
    for raised in (error, RuntimeError("wrapped")):
        if raised is not error:
            raised.__cause__ = error
        found = explain(raised, "a/b")
        assert found.key == key or (key == "backbone_missing" and raised is not error)
        assert "a/b" in str(found)


def test_entries_say_what_the_library_says():
    """Sizes and repositories are open_clip's own; parameters are counted on one of each architecture kind."""
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP

    known = {entry.id: entry for entry in ENTRIES}
    assert len(known) == len(ENTRIES)
    for entry in ENTRIES:
        assert entry.licence and entry.languages in ("en", "many")
        name, _, tag = entry.id.partition("@")
        if "/" in name or name == "pocket":
            continue
        config = open_clip.get_model_config(name)
        assert entry.image_size == config["vision_cfg"]["image_size"]
        from engine.backbones.openclip import default_tag

        repo = open_clip.get_pretrained_cfg(name, tag or default_tag(name, name))["hf_hub"]
        assert repo == f"{entry.repo}/", entry.id
        assert entry.download_mb == pytest.approx(4 * entry.parameters, rel=0.01)
        if name in ("MobileCLIP2-S0", "PE-Core-T-16-384", "ViT-B-32"):
            custom = config.pop("custom_text", False)
            with torch.device("meta"):
                model = (CustomTextCLIP if custom else CLIP)(**config)
            assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == entry.parameters


def test_cached_entries_are_recognised(saved, hub):
    entry = next(entry for entry in ENTRIES if entry.id == "MobileCLIP2-S0")
    assert not on_this_machine(entry)
    hub(entry.repo, saved)
    assert on_this_machine(entry)
    assert on_this_machine(ENTRIES[0])


def test_only_those_who_want_the_same_wait(monkeypatch):
    started, go, calls = threading.Event(), threading.Event(), []

    def slow(id: str, device: str):
        calls.append(id)
        if id == "slow":
            started.set()
            assert go.wait(10)
        return object()

    monkeypatch.setattr(catalog, "_load", slow)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(catalog.load("slow", "cpu"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    assert not catalog.loaded("slow")
    catalog.load("quick", "cpu")  # returns while the other is still being loaded
    assert catalog.loaded("quick")
    go.set()
    for thread in threads:
        thread.join(10)
    assert calls.count("slow") == 1
    assert found[0] is found[1]
    assert catalog.loaded("slow")
    catalog.load("third", "cpu")
    assert len(catalog._loaded) == catalog.KEPT
    assert not catalog.loaded("quick")


def test_a_failed_load_can_be_tried_again(monkeypatch):
    answers = iter([BackboneUnavailable("backbone_disk", id="x"), "backbone"])

    def load(id: str, device: str):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(catalog, "_load", load)
    with pytest.raises(BackboneUnavailable):
        catalog.load("x", "cpu")
    assert catalog.load("x", "cpu") == "backbone"
