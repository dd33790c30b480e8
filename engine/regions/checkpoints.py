"""Weights of segment-anything's own models: fetched from their publisher, checked, and read as tensors alone."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from engine.backbones import loading
from engine.backbones.download import Report
from engine.errors import SegmenterUnavailable
from engine.paths import cache_folder

WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
"""Width of the image encoder's tokens, by which a file is told apart."""
WIDTH_OF = "image_encoder.patch_embed.proj.weight"
"""Tensor ``(D, 3, p, p)`` that has it."""
SITE = "https://dl.fbaipublicfiles.com/segment_anything/"
HOLDERS = ("model", "state_dict", "model_state_dict", "sam", "sam_model")
"""Names under which a training run keeps the weights in its file."""
CHUNK = 1 << 20
"""Bytes between two looks at the stop signal."""


@dataclass(frozen=True)
class Checkpoint:
    """A file on the net, and how it is known to be whole."""

    url: str
    bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies on this machine once it is fetched."""
        return cache_folder() / "segmenters" / self.url.rpartition("/")[2]

    def cached(self) -> bool:
        """Return whether it is here, whole as far as its size tells."""
        return self.path.is_file() and self.path.stat().st_size == self.bytes


OFFICIAL = {
    "vit_b": Checkpoint(
        SITE + "sam_vit_b_01ec64.pth", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
    "vit_l": Checkpoint(
        SITE + "sam_vit_l_0b3195.pth", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_h": Checkpoint(
        SITE + "sam_vit_h_4b8939.pth", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
}
"""Meta's checkpoints, Apache-2.0."""


def fetch(checkpoint: Checkpoint, id: str, report: Report | None = None, stop: threading.Event | None = None) -> Path:
    """Download a checkpoint and compare its size and SHA-256; an unfinished or wrong file is not left behind.

    ``report(done, total)`` is called in bytes; setting ``stop`` ends the download. Raises SegmenterUnavailable, and
    what httpx and the file system raise.
    """
    target = checkpoint.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < checkpoint.bytes:
        raise SegmenterUnavailable("segmenter_disk", id=id)
    unfinished = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    digest, done = hashlib.sha256(), 0
    try:
        with (
            unfinished.open("wb") as file,
            httpx.stream("GET", checkpoint.url, follow_redirects=True, timeout=30) as answer,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes(CHUNK):
                if stop and stop.is_set():
                    raise SegmenterUnavailable("segmenter_stopped", id=id)
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if report:
                    report(done, checkpoint.bytes)
        if (done, digest.hexdigest()) != (checkpoint.bytes, checkpoint.sha256):
            raise SegmenterUnavailable("segmenter_damaged", id=id)
        os.replace(unfinished, target)  # nobody ever sees half a file
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def unwrapped(content: object) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by SAM's own names: from a training run's ``{"model": ...}``, and without what
    wrappers such as data parallelism put before each name (``module.``)."""
    while isinstance(content, dict) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        content = next((content[name] for name in HOLDERS if isinstance(content.get(name), dict)), None)
    if not isinstance(content, dict):
        return {}
    first = next((str(name) for name in content if str(name).endswith(WIDTH_OF)), WIDTH_OF)
    before = first.removesuffix(WIDTH_OF)
    return {str(name).removeprefix(before): value for name, value in content.items() if str(name).startswith(before)}


def _of_pickle(path: Path) -> object:
    """Return the tensors of a ``.pth`` file. Raises UnpicklingError where it holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:  # torch's reader on other bytes
        raise pickle.UnpicklingError(str(error)) from error


def read(path: Path, id: str) -> Sam:
    """Return the SAM whose weights are in a ``.pth`` or ``.safetensors`` file, fp32, in evaluation mode.

    ``id`` is what messages call it. Raises SegmenterUnavailable, and what the libraries raise on a damaged file.
    """
    tensors = unwrapped(load_file(path) if path.suffix == ".safetensors" else _of_pickle(path))
    width = tensors.get(WIDTH_OF)
    kind = WIDTHS.get(len(width)) if isinstance(width, torch.Tensor) else None
    if kind is None:
        raise SegmenterUnavailable("segmenter_other_weights", id=id, name=WIDTH_OF)
    sam = sam_model_registry[kind]()
    sam.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    loading.check_finite(sam, id)
    return sam.eval()
