"""Which models answer, which can be used here, and loading them once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.ask.answerer import Answerer
from engine.backbones import catalog as backbones
from engine.backbones import download, hub
from engine.backbones.hub import in_cache
from engine.devices import device_of
from engine.errors import AnswererUnavailable, BackboneUnavailable, messages, reason_of
from engine.model_cache import Shared
from engine.paths import local_path

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "pocket-vlm"

messages(
    ask_unknown="There is no model {id} that answers. Choose one of {known}, or a folder that an image-text model of "
    "transformers was saved to.",
    ask_absent="{name} is not on this machine yet: {megabytes:,} MB have to be downloaded first.",
    ask_missing="The files of {name} are missing in {folder}. Get the project's assets again, or choose another model.",
    ask_other_kind="{id} is a {kind}, which does not answer questions about pictures. Choose a vision-language model "
    "such as SmolVLM.",
    ask_no_template="{id} does not say how it is to be asked: its chat template is missing. Choose a checkpoint that "
    "was tuned for conversations.",
    ask_failed="The model {id} cannot be loaded: {reason}",
)


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue."""

    id: str
    name: str
    parameters: float
    """Millions, image tower included."""
    download_mb: int
    licence: str
    languages: tuple[str, ...] = ("en",)
    repo: str = ""
    """On the hub; empty for the bundled one."""

    def cached(self) -> bool:
        """Whether it is on this machine."""
        return in_cache(self.repo) if self.repo else POCKET_FOLDER.joinpath("model.safetensors").is_file()


ENTRIES = (
    Entry(POCKET, "Pocket VLM", 11.4, 0, "Apache-2.0"),
    Entry("smolvlm-256m", "SmolVLM 256M", 256.5, 513, "Apache-2.0", repo="HuggingFaceTB/SmolVLM-256M-Instruct"),
    Entry("smolvlm-500m", "SmolVLM 500M", 507.5, 1015, "Apache-2.0", repo="HuggingFaceTB/SmolVLM-500M-Instruct"),
    Entry(
        "llava-onevision-0.5b",
        "LLaVA-OneVision 0.5B",
        893.6,
        1787,
        "Apache-2.0",
        ("en", "zh"),
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    ),
    Entry(
        "qwen2-vl-2b",
        "Qwen2-VL 2B",
        2209.0,
        4418,
        "Apache-2.0",
        ("en", "zh", "ko", "ja", "es", "fr", "de", "ar", "vi"),
        "Qwen/Qwen2-VL-2B-Instruct",
    ),
)
"""Sizes: of the checkpoints' safetensors on the hub. Moondream is not here: its checkpoints bring code of their own,
which is never run."""

_loaded: Shared[Answerer] = Shared(1)


def get(id: str) -> Entry | None:
    """Return a catalogue entry by id; None for hub names and folders."""
    return next((entry for entry in ENTRIES if entry.id == id), None)


def loaded(id: str) -> bool:
    """Return whether a model is in memory, so that :func:`load` returns at once."""
    return _loaded.has(id)


def fetch(id: str, report: download.Report | None = None, stop: threading.Event | None = None) -> None:
    """Download what :func:`load` needs, where it is not on this machine. ``report(done, total)`` is called in bytes;
    setting ``stop`` ends the download. Raises AnswererUnavailable."""
    entry = get(id)
    if entry and entry.repo and not entry.cached():
        with explained(id):
            download.fetch(entry.repo, report, stop)


def load(id: str = POCKET, device: str | None = None) -> Answerer:
    """Return a model, loaded once and shared.

    Args:
        id: of the catalogue, or a folder that an image-text model of transformers was saved to.

    Raises AnswererUnavailable with the reason and what to do, or BadConfig where there is no such device.
    """
    return _loaded.get((id, device_of(device)), _load)


def _load(id: str, device: str) -> Answerer:
    from engine.ask import hf_vlm

    entry, path = get(id), local_path(id)
    with explained(id):
        if entry and not entry.cached():
            raise obstacle(entry)
        if entry and not entry.repo:
            return _pocket(device)
        if entry:
            return hf_vlm.load(entry.repo, id, entry.name, entry.languages, device)
        if path and (path / "config.json").is_file():
            return hf_vlm.load(str(path), id, path.name, ("en",), device)
    raise AnswererUnavailable("ask_unknown", id=id, known=tuple(entry.id for entry in ENTRIES))


def obstacle(entry: Entry) -> AnswererUnavailable:
    """Return what to say of a model that is not on this machine."""
    if entry.repo:
        return AnswererUnavailable("ask_absent", name=entry.name, megabytes=entry.download_mb)
    return AnswererUnavailable("ask_missing", name=entry.name, folder=POCKET_FOLDER.name)


def _pocket(device: str) -> Answerer:
    from engine.ask.pocket import PocketAnswerer
    from engine.backbones.hf_clip import HFClip

    backbone = backbones.load(backbones.POCKET, device)
    assert isinstance(backbone, HFClip)
    return PocketAnswerer.of(POCKET_FOLDER, backbone)


@contextmanager
def explained(id: str) -> Iterator[None]:
    """Turn what libraries raise while a model is fetched or loaded into AnswererUnavailable."""
    try:
        with hub.explained(id):
            yield
    except (BackboneUnavailable, TypeError, KeyError) as error:
        raise AnswererUnavailable("ask_failed", id=id, reason=reason_of(error)) from error
