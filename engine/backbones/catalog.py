"""Which backbones there are, which can be used here, and loading them once."""

from __future__ import annotations

import difflib
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.backbones import download, loading
from engine.backbones.base import Backbone
from engine.backbones.loading import explained, here, hub_file
from engine.errors import BackboneUnavailable
from engine.shared import Shared

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "pocket-clip"
KEPT = 2
"""Backbones that stay in memory."""
HUB_NAME = r"[\w.-]+/[\w.-]+"
ASK = "see its card"
"""Licence that is not stated here."""
WEIGHTS = (*loading.WEIGHTS, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Entry:
    """A backbone that the menu offers."""

    id: str
    name: str
    parameters: float
    """Millions."""
    image_size: int
    """Pixels."""
    download_mb: int
    """Size of the weights in fp32."""
    licence: str
    languages: str = "en"
    """``en``, or ``many``."""
    repo: str = ""
    """Hub repository of the weights, where it is not the id."""

    @property
    def licence_known(self) -> bool:
        """Whether the licence is stated here."""
        return self.licence != ASK

    def cached(self) -> bool:
        """Whether its weights are on this machine."""
        if self.id == POCKET:
            return (POCKET_FOLDER / "model.safetensors").exists()
        return in_cache(self.repo or self.id)


def _apple(id: str, name: str, parameters: float, repo: str, image_size: int = 256) -> Entry:
    return Entry(id, name, parameters, image_size, round(4 * parameters), ASK, repo=f"{repo}-OpenCLIP")


ENTRIES = (
    Entry(POCKET, "Pocket CLIP", 4.9, 56, 0, "Apache-2.0"),
    Entry("openai/clip-vit-base-patch32", "OpenAI CLIP ViT-B/32", 151.3, 224, 605, "MIT"),
    Entry("openai/clip-vit-base-patch16", "OpenAI CLIP ViT-B/16", 149.6, 224, 599, "MIT"),
    Entry("openai/clip-vit-large-patch14", "OpenAI CLIP ViT-L/14", 427.6, 224, 1710, "MIT"),
    Entry("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "LAION CLIP ViT-B/32", 151.3, 224, 605, "MIT"),
    Entry("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "LAION CLIP ViT-B/16", 149.6, 224, 599, "MIT"),
    Entry("google/siglip-base-patch16-224", "SigLIP B/16", 203.2, 224, 813, "Apache-2.0"),
    Entry("google/siglip2-base-patch16-224", "SigLIP 2 B/16", 375.2, 224, 1501, "Apache-2.0", "many"),
    Entry(
        "ViT-B-16-SigLIP-i18n-256", "SigLIP i18n B/16", 370.6, 256, 1482, "Apache-2.0", "many",
        "timm/ViT-B-16-SigLIP-i18n-256",
    ),
    _apple("MobileCLIP-S1", "MobileCLIP-S1", 85.0, "apple/MobileCLIP-S1"),
    _apple("MobileCLIP-S2", "MobileCLIP-S2", 99.2, "apple/MobileCLIP-S2"),
    _apple("MobileCLIP-B", "MobileCLIP-B", 149.8, "apple/MobileCLIP-B", 224),
    _apple("MobileCLIP2-S0", "MobileCLIP2-S0", 74.8, "timm/MobileCLIP2-S0"),
    _apple("MobileCLIP2-S2", "MobileCLIP2-S2", 99.2, "timm/MobileCLIP2-S2"),
    _apple("MobileCLIP2-S3", "MobileCLIP2-S3", 248.9, "timm/MobileCLIP2-S3"),
    _apple("MobileCLIP2-S4", "MobileCLIP2-S4", 445.4, "timm/MobileCLIP2-S4"),
    _apple("MobileCLIP2-B", "MobileCLIP2-B", 149.8, "timm/MobileCLIP2-B", 224),
    Entry("ViT-B-32@datacomp_xl_s13b_b90k", "DataComp CLIP ViT-B/32", 151.3, 224, 605, "MIT",
          repo="laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"),
    Entry("ViT-B-16@datacomp_xl_s13b_b90k", "DataComp CLIP ViT-B/16", 149.6, 224, 599, "MIT",
          repo="laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
    Entry("PE-Core-T-16-384", "PE-Core T/16", 69.5, 384, 278, "Apache-2.0", repo="timm/PE-Core-T-16-384"),
    Entry("PE-Core-S-16-384", "PE-Core S/16", 87.2, 384, 349, "Apache-2.0", repo="timm/PE-Core-S-16-384"),
    Entry("PE-Core-B-16", "PE-Core B/16", 447.7, 224, 1791, "Apache-2.0", repo="timm/PE-Core-B-16"),
    Entry("PE-Core-L-14-336", "PE-Core L/14", 671.1, 336, 2684, "Apache-2.0", repo="timm/PE-Core-L-14-336"),
)  # fmt: skip

_loaded: Shared[Backbone] = Shared(KEPT)


def best_device() -> str:
    """What ``CTL_DEVICE`` says, otherwise ``cuda`` where there is one and ``cpu`` where there is none."""
    if wanted := os.environ.get("CTL_DEVICE"):
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def loaded(id: str) -> bool:
    """Whether a backbone is in memory, so that :func:`load` returns at once."""
    return _loaded.has(id)


def load(id: str = POCKET, device: str | None = None) -> Backbone:
    """A backbone, loaded once and shared; only those who ask for the same one wait for each other.

    Args:
        id: ``pocket``, a local folder, a hub name (``openai/clip-vit-base-patch32``), ``hf-hub:NAME``
            for its open_clip files, or ``open_clip:NAME@TAG``, where ``open_clip:`` and ``@TAG`` may
            be left out and TAG may be a file of weights.

    Raises BackboneUnavailable with the reason and what to do.
    """
    return _loaded.get((id, device or best_device()), _load)


def fetch(id: str, report: download.Report | None = None, stop: threading.Event | None = None) -> None:
    """Download what :func:`load` needs, where it is on the hub and not on this machine.

    ``report(done, total)`` is called in bytes; setting ``stop`` ends the download. Raises BackboneUnavailable.
    """
    entry = next((entry for entry in ENTRIES if entry.id == id), None)
    repo = (entry and entry.repo) or id.removeprefix("hf-hub:")
    on_hub = re.fullmatch(HUB_NAME, repo) and not Path(id).expanduser().exists()
    if on_hub and not in_cache(repo):
        download.fetch(repo, report, stop)


def in_cache(repo: str) -> bool:
    """Whether weights of a hub repository are on this machine."""
    return any(here(repo, file) for file in WEIGHTS)


def _load(id: str, device: str) -> Backbone:
    from engine.backbones import hf_clip, openclip

    if id == POCKET:
        return hf_clip.load(POCKET_FOLDER, POCKET, device)
    folder = Path(id).expanduser()
    if id.strip() and folder.is_dir():
        return _load_folder(folder, id, device)
    if folder.is_file():
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
    if other.is_file() and kind not in ("clip", "siglip"):
        if not isinstance(read_json(other, id).get("model_cfg"), dict):
            raise BackboneUnavailable("backbone_config", id=id, file=other.name, field="model_cfg")
        if not any(file.suffix in (".safetensors", ".bin", ".pth") for file in folder.iterdir()):
            raise BackboneUnavailable("backbone_no_weights", id=id, reason="there is no model.safetensors")
        return openclip.load(f"local-dir:{folder}", None, id, device)
    return _load_transformers(kind, folder, id, device)


def _load_hub(id: str, device: str) -> Backbone:
    """A hub name of either library: its configuration files tell which."""
    from engine.backbones import openclip

    with explained(id):
        other = here(id, "open_clip_config.json")
        config = here(id, "config.json") if other else hub_file(id, "config.json")
        kind = read_kind(config, id) if config else ""
        if kind not in ("clip", "siglip") and (other or hub_file(id, "open_clip_config.json")):
            return openclip.load(f"hf-hub:{id}", None, id, device)
    return _load_transformers(kind, id, id, device)


def _load_transformers(kind: str, source: Any, id: str, device: str) -> Backbone:
    from engine.backbones import hf_clip, hf_siglip

    if kind == "siglip2":
        raise BackboneUnavailable("backbone_naflex", id=id)
    if kind not in ("clip", "siglip"):
        raise BackboneUnavailable("backbone_not_clip", id=id, kind=kind or "?")
    return (hf_clip if kind == "clip" else hf_siglip).load(source, id, device)


def read_json(path: Path, id: str) -> dict[str, Any]:
    """A configuration file. Raises BackboneUnavailable."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BackboneUnavailable("backbone_config", id=id, file=path.name, field="its contents") from error
    if not isinstance(found, dict):
        raise BackboneUnavailable("backbone_config", id=id, file=path.name, field="its contents")
    return found


def read_kind(path: Path, id: str) -> str:
    """The ``model_type`` of a config.json; empty where it names none."""
    return str(read_json(path, id).get("model_type") or "")


def similar(id: str) -> str:
    """Up to four known names like this one, as a list in words; ``none`` where there are none."""
    import open_clip

    names = [*(entry.id for entry in ENTRIES), *open_clip.list_models()]
    by_lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(id.removeprefix("hf-hub:").lower(), by_lower, n=4, cutoff=0.6)
    return ", ".join(by_lower[name] for name in near if by_lower[name] != id) or "none"
