"""Segmenters by name, file and folder; a sentence for all that can be wrong with them."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry

from engine.errors import SegmenterUnavailable
from engine.regions import catalog, checkpoints
from engine.regions.catalog import ENTRIES
from engine.regions.checkpoints import Checkpoint
from engine.regions.pocket_sam import PocketSamConfig, build_pocket_sam, save_pocket_sam
from engine.regions.types import GRANULARITIES
from tests.engine.regions.colour_sam import shapes

SMALL = PocketSamConfig(width=48, depth=1, heads=2)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """An empty cache, nothing loaded, and a small model in the place of ViT-B."""
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "_loaded", type(catalog._loaded)())
    monkeypatch.setitem(sam_model_registry, "vit_b", partial(build_pocket_sam, SMALL))
    monkeypatch.setitem(checkpoints.WIDTHS, 48, "vit_b")


@pytest.fixture
def sam():
    torch.manual_seed(1)
    return build_pocket_sam(SMALL)


def refused(id: str) -> str:
    with pytest.raises(SegmenterUnavailable) as caught:
        catalog.load(id, "cpu")
    return caught.value.key


def test_the_catalogue_is_whole():
    assert [entry.id for entry in ENTRIES] == ["pocket", "slimsam-77", "slimsam-50", "vit_b", "vit_l", "vit_h"]
    for entry in ENTRIES:
        assert len(entry.thresholds.levels) == len(GRANULARITIES)
        for coarse, fine in zip(entry.thresholds.levels, entry.thresholds.levels[1:], strict=False):
            assert (coarse.predicted_iou, coarse.stability, coarse.least_area) >= (
                fine.predicted_iou,
                fine.stability,
                fine.least_area,
            )
        assert entry.id == "pocket" or bool(entry.repo) != bool(entry.checkpoint)
        assert entry.id == "pocket" or entry.obstacle().key == "segmenter_absent"
    assert sam_model_registry["vit_l"] and {"vit_b", "vit_l", "vit_h"} == set(checkpoints.OFFICIAL)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_is_told_by_its_weights(sam, tmp_path, ending):
    path = tmp_path / f"mine{ending}"
    save_file(sam.state_dict(), path) if ending == ".safetensors" else torch.save(sam.state_dict(), path)
    segmenter = catalog.load(str(path), "cpu")
    assert segmenter is catalog.load(str(path), "cpu")
    assert segmenter.name == path.name
    image = shapes()
    plain = SamPredictor(sam)
    plain.set_image(np.asarray(image))
    scene = segmenter.set_image(image)
    assert torch.equal(segmenter.predictor(scene).get_image_embedding(), plain.get_image_embedding())


def test_bad_files_are_refused_with_a_sentence(sam, tmp_path):
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save(sam.state_dict(), good)
    bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert refused(str(bad)) == "segmenter_damaged"
    bad.write_bytes(b"")
    assert refused(str(bad)) == "segmenter_damaged"
    torch.save({"a": threading.Thread}, bad)
    assert refused(str(bad)) == "segmenter_pickle"
    torch.save({"a": torch.zeros(2)}, bad)
    assert refused(str(bad)) == "segmenter_other_weights"
    tensors = sam.state_dict()
    del tensors["mask_decoder.iou_token.weight"]
    torch.save(tensors, bad)
    with pytest.raises(SegmenterUnavailable, match=r"mask_decoder\.iou_token\.weight"):
        catalog.load(str(bad), "cpu")
    torch.save({**sam.state_dict(), "mask_decoder.iou_token.weight": torch.full((1, 128), torch.nan)}, bad)
    assert refused(str(bad)) == "segmenter_refused"
    cut = tmp_path / "cut.safetensors"
    save_file(sam.state_dict(), cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    assert refused(str(cut)) == "segmenter_damaged"
    assert refused("vit_x") == refused("") == "segmenter_unknown"
    assert refused("vit_l") == refused("slimsam-77") == "segmenter_absent"


def test_pocket_sam_stays_when_another_one_is_broken(tmp_path, monkeypatch):
    save_pocket_sam(build_pocket_sam(SMALL), SMALL, tmp_path / "pocket-sam")
    monkeypatch.setattr(catalog, "POCKET_SAM", tmp_path / "pocket-sam")
    monkeypatch.setattr(catalog, "load_pocket_sam", partial(catalog.load_pocket_sam, tmp_path / "pocket-sam"))
    pocket = catalog.load("pocket", "cpu")
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    assert refused(str(tmp_path / "bad.pth")).startswith("segmenter_")
    assert catalog.load("pocket", "cpu") is pocket
    assert catalog.loaded("pocket")
    catalog._loaded.clear()
    weights = tmp_path / "pocket-sam" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert refused("pocket") == "sam_broken"
    weights.unlink()
    assert refused("pocket") == "sam_missing"


def test_a_folder_of_transformers_is_loaded_and_checked(tmp_path):
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    small = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = SamModel(
        SamConfig(
            vision_config={**small, "image_size": 64, "mlp_dim": 32, "global_attn_indexes": [0], "num_pos_feats": 16},
            prompt_encoder_config={"hidden_size": 32, "image_size": 64, "image_embedding_size": 4},
            mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 32, "num_attention_heads": 2},
        )
    )
    model.save_pretrained(tmp_path)
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    SamProcessor(processor).save_pretrained(tmp_path)
    segmenter = catalog.load(str(tmp_path), "cpu")
    embedding = segmenter.predictor(segmenter.set_image(shapes())).get_image_embedding()
    assert embedding.shape == (1, 32, 4, 4)
    catalog._loaded.clear()
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert refused(str(tmp_path)) == "segmenter_damaged"
    weights.unlink()
    assert refused(str(tmp_path)) == "segmenter_failed"


@pytest.fixture
def publisher():
    """A site with one file; yields its address."""
    content = bytes(range(256)) * 20_000

    class Site(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            known = self.path == "/sam.pth"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content) if known else 0))
            self.end_headers()
            if known:
                with suppress(ConnectionError):  # a stopped download hangs up
                    self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", content
    server.shutdown()


def test_a_checkpoint_is_fetched_with_progress_and_checked(publisher):
    site, content = publisher
    good = Checkpoint(site + "sam.pth", len(content), hashlib.sha256(content).hexdigest())
    heard = []
    with catalog.explained("vit_b"):
        path = checkpoints.fetch(good, "vit_b", lambda done, total: heard.append((done, total)))
    assert path.read_bytes() == content
    assert good.cached()
    assert heard[-1] == (len(content), len(content))
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    path.unlink()
    stop = threading.Event()
    cases = [
        (Checkpoint(good.url, good.bytes, "0" * 64), None, "segmenter_damaged"),
        (Checkpoint(good.url, good.bytes + 1, good.sha256), None, "segmenter_damaged"),
        (Checkpoint(site + "gone.pth", 1, ""), None, "segmenter_failed"),
        (Checkpoint("http://127.0.0.1:9/sam.pth", 1, ""), None, "segmenter_offline"),
        (Checkpoint(good.url, 1 << 60, ""), None, "segmenter_disk"),
        (good, stop, "segmenter_stopped"),
    ]
    stop.set()
    for checkpoint, halt, key in cases:
        with pytest.raises(SegmenterUnavailable) as caught, catalog.explained("vit_b"):
            checkpoints.fetch(checkpoint, "vit_b", None, halt)
        assert caught.value.key == key, (checkpoint, caught.value)
        assert list(path.parent.iterdir()) == []


def test_offline_is_said_before_anything_is_downloaded():
    with pytest.raises(SegmenterUnavailable) as caught:
        catalog.fetch("slimsam-77")
    assert caught.value.key == "segmenter_offline"
    catalog.fetch("/no/such/file.pth")  # nothing to fetch; loading says what is wrong
