"""Fetching a backbone from the Hugging Face hub, with progress, and stopping at once.

Files that were fetched completely are kept and not fetched again.
"""

from __future__ import annotations

import fnmatch
import io
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from engine.backbones.hub import explain
from engine.errors import BackboneUnavailable, messages

Report = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

SMALL_FILES = ("*.json", "*.txt", "*.model", "README.md")
"""Configuration, tokenizer, card: everything but weights and code."""
WEIGHTS = (
    ("open_clip_model.safetensors",),
    ("model.safetensors",),
    ("model-*-of-*.safetensors",),
    ("open_clip_pytorch_model.bin",),
    ("pytorch_model.bin",),
)
"""Weight files, most wanted first; .bin files are read as tensors alone, never as code."""

messages(
    download_disk="{id} needs {need} MB, but only {free} MB of disk are free. Make room, or choose a smaller backbone.",
    download_no_weights="{id} has no weights that can be read safely (model.safetensors or pytorch_model.bin).",
    download_stopped="The download of {id} was stopped. Files that are complete are kept.",
)


def choose_files(sizes: dict[str, int]) -> dict[str, int]:
    """Return the files of a repository that loading needs: small ones and one set of weights."""
    top = {name: size for name, size in sizes.items() if "/" not in name}
    for patterns in WEIGHTS:
        weights = [name for name in top if any(fnmatch.fnmatch(name, p) for p in patterns)]
        if weights:
            small = [name for name in top if any(fnmatch.fnmatch(name, p) for p in SMALL_FILES)]
            return {name: top[name] for name in dict.fromkeys([*small, *weights])}
    return {}


def plan(id: str) -> dict[str, int]:
    """Return the files to fetch from a repository of the hub, with their bytes. Raises BackboneUnavailable."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(id, files_metadata=True)
    except Exception as error:
        raise explain(error, id) from error
    chosen = choose_files({file.rfilename: file.size or 0 for file in info.siblings or ()})
    if not chosen:
        raise BackboneUnavailable("download_no_weights", id=id)
    return chosen


def fetch(id: str, report: Report | None = None, stop: threading.Event | None = None) -> Path:
    """Fetch a repository's configuration, tokenizer and weights; returns its folder in the hub's cache.

    ``report`` is called as bytes arrive; setting ``stop`` ends the download at the next one. Raises
    BackboneUnavailable: offline, unknown, gated, no weights, disk full, stopped, broken off.
    """
    from huggingface_hub import constants, hf_hub_download

    sizes = plan(id)
    total = sum(sizes.values())
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < total:
        raise BackboneUnavailable("download_disk", id=id, need=total // 10**6, free=free // 10**6)
    stop, done, path = stop or threading.Event(), 0, Path()
    for name, size in sizes.items():
        bar = watching(partial(_tell, report, done, total), stop)
        try:
            path = Path(hf_hub_download(id, name, tqdm_class=bar))
        except Stop as error:
            raise BackboneUnavailable("download_stopped", id=id) from error
        except Exception as error:
            raise explain(error, id) from error
        done += size
        _tell(report, done, total, 0)
    return path.parent


def _tell(report: Report | None, before: int, total: int, fetched: int) -> None:
    if report:
        report(before + fetched, total)


class Stop(Exception):
    """The download was stopped."""


def watching(report: Callable[[int], None], stop: threading.Event) -> type:
    """Return a silent progress bar class that reports bytes and raises :class:`Stop`."""
    from tqdm.auto import tqdm

    class Watching(tqdm):
        def __init__(self, *args: Any, **options: Any):
            options.pop("name", None)
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise Stop
            shown = super().update(n)
            report(int(self.n))
            return shown

    return Watching
