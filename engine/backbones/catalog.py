"""Which backbones there are, which can be used here, and loading them once."""

from __future__ import annotations

import importlib
import re
import threading
from pathlib import Path
from typing import Any

import torch

from engine.backbones import download
from engine.backbones.base import Backbone
from engine.backbones.entries import ENTRIES, HUB_NAME, POCKET, POCKET_FOLDER, similar
from engine.backbones.hub import explained, here, hub_file, in_cache
from engine.backbones.loading import read_json
from engine.devices import device_of
from engine.errors import BackboneUnavailable, Note
from engine.model_cache import Shared
from engine.paths import local_path

KEPT = 2
"""Backbones that stay in memory."""
FAMILIES = {"clip": "hf_clip", "siglip": "hf_siglip"}
"""transformers' ``model_type`` -> the module here that loads it; all others are open_clip's."""


_loaded: Shared[Backbone] = Shared(KEPT)


def loaded(id: str) -> bool:
    """Return whether a backbone is in memory, so that :func:`load` returns at once."""
    return _loaded.has(id)


def with_weights(weight_hash: str, device: str | None = None) -> Backbone | None:
    """Return the backbone in memory that has these weights, whatever it was loaded by; None where there is none."""
    kind = torch.device(device_of(device)).type
    found = (b for b in _loaded.values() if b.weight_hash == weight_hash and b.device.type == kind)
    return next(found, None)


def load(id: str = POCKET, device: str | None = None) -> Backbone:
    """Return a backbone, loaded once and shared; only those who ask for the same one wait for each other.

    Args:
        id: ``pocket``, a local folder, a hub name (``openai/clip-vit-base-patch32``), ``hf-hub:NAME``
            for its open_clip files, or ``open_clip:NAME@TAG``, where ``open_clip:`` and ``@TAG`` may
            be left out and TAG may be a file of weights.

    Raises BackboneUnavailable with the reason and what to do, or BadConfig where there is no such device.
    """
    return _loaded.get((id, device_of(device)), _load)


def fetch(id: str, report: download.Report | None = None, stop: threading.Event | None = None) -> None:
    """Download what :func:`load` needs, where it is on the hub and not on this machine.

    ``report(done, total)`` is called in bytes; setting ``stop`` ends the download. Raises BackboneUnavailable.
    """
    entry = next((entry for entry in ENTRIES if entry.id == id), None)
    repo = (entry and entry.repo) or id.removeprefix("hf-hub:")
    on_hub = re.fullmatch(HUB_NAME, repo) and not local_path(id)
    if on_hub and not in_cache(repo):
        download.fetch(repo, report, stop)


def _load(id: str, device: str) -> Backbone:
    from engine.backbones import hf_clip, openclip

    if id == POCKET:
        return hf_clip.load(POCKET_FOLDER, POCKET, device)
    path = local_path(id)
    if path and path.is_dir():
        return _load_folder(path, id, device)
    if path and path.is_file():
        raise BackboneUnavailable("backbone_file", id=id)
    if re.fullmatch("hf-hub:" + HUB_NAME, id):
        return openclip.load(id, None, id, device)
    if re.fullmatch(HUB_NAME, id):
        return _load_hub(id, device)
    import open_clip

    name, _, tag = id.removeprefix("open_clip:").partition("@")
    if name not in open_clip.list_models():
        raise BackboneUnavailable("backbone_unknown", id=id, near=similar(name))
    return openclip.load(name, tag or None, id, device)


def _load_folder(folder: Path, id: str, device: str) -> Backbone:
    """A folder that a model was saved to, in either library's layout."""
    from engine.backbones import openclip

    config, other = folder / "config.json", folder / "open_clip_config.json"
    if not config.is_file() and not other.is_file():
        raise BackboneUnavailable("backbone_no_model", id=id)
    kind = read_kind(config, id) if config.is_file() else ""
    if other.is_file() and kind not in FAMILIES:
        if not isinstance(read_json(other, id).get("model_cfg"), dict):
            raise BackboneUnavailable("backbone_config", id=id, file=other.name, field="model_cfg")
        if not any(file.suffix in (".safetensors", ".bin", ".pth") for file in folder.iterdir()):
            raise BackboneUnavailable("backbone_no_weights", id=id, reason=Note("no_safetensors"))
        return openclip.load(f"local-dir:{folder}", None, id, device)
    return _load_transformers(kind, folder, id, device)


def _load_hub(id: str, device: str) -> Backbone:
    """A hub name of either library: its configuration files tell which."""
    from engine.backbones import openclip

    with explained(id):
        other = here(id, "open_clip_config.json")
        config = here(id, "config.json") if other else hub_file(id, "config.json")
        kind = read_kind(config, id) if config else ""
        if kind not in FAMILIES and (other or hub_file(id, "open_clip_config.json")):
            return openclip.load(f"hf-hub:{id}", None, id, device)
    return _load_transformers(kind, id, id, device)


def _load_transformers(kind: str, source: Any, id: str, device: str) -> Backbone:
    if kind == "siglip2":
        raise BackboneUnavailable("backbone_naflex", id=id)
    if kind not in FAMILIES:
        raise BackboneUnavailable("backbone_not_clip", id=id, kind=kind or "?")
    return importlib.import_module(f"engine.backbones.{FAMILIES[kind]}").load(source, id, device)


def read_kind(path: Path, id: str) -> str:
    """Return the ``model_type`` of a config.json; empty where it names none."""
    return str(read_json(path, id).get("model_type") or "")
