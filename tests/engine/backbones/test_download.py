"""Downloading from a hub that the test runs itself."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.backbones import download
from engine.backbones.hub import in_cache
from engine.errors import BackboneUnavailable

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "clip"}',
    "model.safetensors": b"w" * 25_000_000,
    "pytorch_model.bin": b"p" * 100,
    "onnx/model.onnx": b"o" * 100,
    "tokenizer.json": b"{}",
    "README.md": b"card",
    "code.py": b"import os",
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs."""

    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if path == "/api/models/me/gated":
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if path == "/api/models/me/empty":
            return self.send(200, self.listing(["config.json"]), {}, body)
        if path == "/api/models/me/clip":
            return self.send(200, self.listing(FILES), {}, body)
        if path.startswith("/me/clip/resolve/"):
            name = path.split("/", 5)[5]
            if body:
                self.asked.append(name)
            return self.send(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}, body)
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def listing(self, names) -> bytes:
        files = [{"rfilename": name, "size": len(FILES[name])} for name in names]
        return json.dumps({"id": "me/clip", "sha": COMMIT, "siblings": files}).encode()

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine and an empty cache; yields the names of the files that were fetched."""
    from huggingface_hub import constants

    handler = type("Own", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield handler.asked
    server.shutdown()


def refused(id: str, **options) -> str:
    with pytest.raises(BackboneUnavailable) as caught:
        download.fetch(id, **options)
    assert id in str(caught.value)
    return caught.value.key


def test_only_what_loading_needs_is_fetched_once(hub):
    seen: list[tuple[int, int]] = []
    folder = download.fetch("me/clip", report=lambda done, total: seen.append((done, total)))
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    total = sum(len(FILES[path.name]) for path in folder.iterdir())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    fetched = len(hub)
    assert in_cache("me/clip")  # found by its name from now on, without the network too
    assert download.fetch("me/clip") == folder
    assert len(hub) == fetched


def test_stopping_keeps_complete_files(hub):
    stop = threading.Event()
    assert refused("me/clip", report=lambda done, total: done > 1000 and stop.set(), stop=stop) == "download_stopped"
    first = list(hub)
    folder = download.fetch("me/clip")
    assert (folder / "model.safetensors").stat().st_size == len(FILES["model.safetensors"])
    again = hub[len(first) :]
    assert "config.json" not in again
    assert "model.safetensors" in again


def test_each_refusal_has_its_sentence(hub, monkeypatch):
    assert refused("me/missing") == "backbone_not_found"
    assert refused("me/gated") == "backbone_gated"
    assert refused("me/empty") == "download_no_weights"
    assert refused("not a name") == "backbone_not_found"
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    assert refused("me/clip") == "download_disk"


def test_offline_is_said(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert refused("me/clip") == "backbone_offline"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused("me/clip") == "backbone_offline"


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["config.json", "pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (
            ["config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", "pytorch_model.bin"],
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
        ),
        (
            ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
            ["open_clip_model.safetensors"],
        ),
    ],
)
def test_one_set_of_weights_is_chosen(names, weights):
    chosen = download.choose_files(dict.fromkeys(names, 1))
    assert [name for name in chosen if not name.endswith(".json")] == weights
