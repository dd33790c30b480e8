"""Which segmenters there are, which can be used here, and loading them once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from segment_anything import SamPredictor

from engine.backbones import download, hub
from engine.backbones.hub import in_cache
from engine.devices import device_of
from engine.errors import BackboneUnavailable, SegmenterUnavailable, messages
from engine.model_cache import Shared
from engine.paths import local_path
from engine.regions import checkpoints
from engine.regions.checkpoints import Checkpoint
from engine.regions.pocket_sam import POCKET_SAM, load_pocket_sam
from engine.regions.segmenter import Segmenter
from engine.regions.types import Level, Thresholds

POCKET = "pocket"
KEPT = 2
"""Segmenters that stay in memory."""

messages(
    segmenter_unknown="There is no segmenter {id}. Choose one of {known}, a .pth or .safetensors file of SAM, or a "
    "folder that a SamModel was saved to.",
    segmenter_absent="{name} is not on this machine yet: {megabytes} MB have to be downloaded first.",
    segmenter_offline="{id} is not on this machine and cannot be downloaded now (no connection). Choose Pocket SAM, "
    "which is here already, or connect and try again.",
    segmenter_stopped="The download of {id} was stopped. Choose Pocket SAM, or start it again.",
    segmenter_disk="There is not enough space left on the disk for {id}. Free some, or choose a smaller segmenter.",
    segmenter_damaged="The weights of {id} are damaged or cut short. Choose another segmenter, or copy or download "
    "them again.",
    segmenter_pickle="The weights of {id} hold more than tensors, or are cut short; such a file may run code and is "
    "not opened. Choose another file, or download it again.",
    segmenter_other_weights="The weights of {id} are not those of a SAM that is known here (for example {name}). "
    "Choose a SAM ViT-B, ViT-L or ViT-H checkpoint, or a SamModel of transformers.",
    segmenter_failed="The segmenter {id} cannot be loaded: {reason}. Choose another one; Pocket SAM is always here.",
    segmenter_refused="The segmenter {id} cannot be loaded. {reason}",
)

REASONS = {
    "backbone_offline": "segmenter_offline",
    "backbone_disk": "segmenter_disk",
    "download_disk": "segmenter_disk",
    "download_stopped": "segmenter_stopped",
    "backbone_damaged": "segmenter_damaged",
    "backbone_pickle": "segmenter_pickle",
}
"""Sentences about backbones, and what is said of a segmenter in their place."""

SURE = Thresholds(
    prompted_iou=0.5,
    levels=(Level(0.90, 0.95, 0.01, nested=False), Level(0.88, 0.95, 0.002), Level(0.80, 0.90, 0.0005)),
)
"""The full SAM and its distilled relatives: the middle level is the library's own setting."""
MODEST = Thresholds(
    prompted_iou=0.15,
    levels=(Level(0.60, 0.60, 0.02, nested=False), Level(0.45, 0.55, 0.005), Level(0.35, 0.45, 0.002)),
    points_per_side=16,
    stability_offset=0.5,
)
"""Pocket SAM, whose logits are small and whose embedding has 16 x 16 places. On 42 of the photographs that trained it,
masks above each level's estimate and stability overlap a true region by 0.84, 0.74 and 0.62 (mean IoU)."""


@dataclass(frozen=True)
class Entry:
    """A segmenter that the menu offers."""

    id: str
    name: str
    parameters: float
    """Millions."""
    image_size: int
    """Pixels of the longest side that the encoder sees."""
    download_mb: int
    licence: str
    source: str
    """Where it is described."""
    thresholds: Thresholds
    repo: str = ""
    """Hub repository of a SamModel of transformers."""
    checkpoint: Checkpoint | None = None
    """File of segment-anything's own."""

    def cached(self) -> bool:
        """Return whether its weights are on this machine."""
        if self.checkpoint:
            return self.checkpoint.cached()
        return in_cache(self.repo) if self.repo else (POCKET_SAM / "model.safetensors").exists()

    def obstacle(self) -> SegmenterUnavailable | None:
        """Return why it cannot be used at once; None where it can."""
        if self.cached():
            return None
        if self.id == POCKET:
            return SegmenterUnavailable("sam_missing", folder=POCKET_SAM.name)
        return SegmenterUnavailable("segmenter_absent", name=self.name, megabytes=self.download_mb)


SAM = "arxiv.org/abs/2304.02643"
SLIM = "arxiv.org/abs/2312.05284"
ENTRIES = (
    Entry(POCKET, "Pocket SAM", 3.8, 256, 0, "Apache-2.0", "assets/pocket-sam", MODEST),
    Entry("slimsam-77", "SlimSAM-77", 9.7, 1024, 39, "Apache-2.0", SLIM, SURE, repo="Zigeng/SlimSAM-uniform-77"),
    Entry("slimsam-50", "SlimSAM-50", 28.0, 1024, 112, "Apache-2.0", SLIM, SURE, repo="Zigeng/SlimSAM-uniform-50"),
    *(
        Entry(
            kind,
            f"SAM ViT-{kind[-1].upper()}",
            parameters,
            1024,
            checkpoints.OFFICIAL[kind].bytes // 10**6,
            "Apache-2.0",
            SAM,
            SURE,
            checkpoint=checkpoints.OFFICIAL[kind],
        )
        for kind, parameters in (("vit_b", 93.7), ("vit_l", 312.3), ("vit_h", 641.1))
    ),
)

_loaded: Shared[Segmenter] = Shared(KEPT)


def get(id: str) -> Entry | None:
    """Return a catalogue entry by id; None for files and folders."""
    return next((entry for entry in ENTRIES if entry.id == id), None)


def loaded(id: str) -> bool:
    """Return whether a segmenter is in memory, so that :func:`load` returns at once."""
    return _loaded.has(id)


def fetch(id: str, report: download.Report | None = None, stop: threading.Event | None = None) -> None:
    """Download what :func:`load` needs, where it is not on this machine.

    ``report(done, total)`` is called in bytes; setting ``stop`` ends the download. Raises SegmenterUnavailable.
    """
    entry = get(id)
    if entry is None or entry.cached():
        return
    with explained(id):
        if entry.checkpoint:
            checkpoints.fetch(entry.checkpoint, id, report, stop)
        elif entry.repo:
            download.fetch(entry.repo, report, stop)


def load(id: str = POCKET, device: str | None = None) -> Segmenter:
    """Return a segmenter, loaded once and shared; only those who ask for the same one wait for each other.

    Args:
        id: of the catalogue, a ``.pth`` or ``.safetensors`` file of SAM, or a folder that a SamModel was saved to.
            The file's name does not matter: the weights tell which SAM they are.

    Raises SegmenterUnavailable with the reason and what to do; those that are here already are not touched.
    """
    return _loaded.get((id, device_of(device)), _load)


def _load(id: str, device: str) -> Segmenter:
    entry, path = get(id), local_path(id)
    if entry and (obstacle := entry.obstacle()):
        raise obstacle
    with explained(id):
        if entry:
            return Segmenter(id, entry.name, entry.thresholds, _predictors(entry, device))
        if path and path.is_file():
            sam = checkpoints.read(path, path.name).to(device)
            return Segmenter(id, path.name, SURE, lambda: SamPredictor(sam))
        if path and (path / "config.json").is_file():
            from engine.regions import hf_sam

            return Segmenter(id, path.name, SURE, hf_sam.load(path, path.name, device))
    raise SegmenterUnavailable("segmenter_unknown", id=id, known=", ".join(entry.id for entry in ENTRIES))


def _predictors(entry: Entry, device: str) -> Callable[[], SamPredictor]:
    from engine.regions import hf_sam

    if entry.repo:
        return hf_sam.load(entry.repo, entry.id, device)
    sam = checkpoints.read(entry.checkpoint.path, entry.id) if entry.checkpoint else load_pocket_sam()
    sam = sam.to(device)
    return lambda: SamPredictor(sam)


@contextmanager
def explained(id: str) -> Iterator[None]:
    """Turn what libraries raise while a segmenter is fetched or loaded into SegmenterUnavailable."""
    try:
        with hub.explained(id):
            yield
    except (BackboneUnavailable, EOFError, httpx.HTTPError) as error:
        found = error if isinstance(error, BackboneUnavailable) else hub.explain(error, id)
        if found.key == "backbone_other_weights":
            raise SegmenterUnavailable("segmenter_other_weights", id=id, name=found.values["name"]) from error
        if key := REASONS.get(found.key):
            raise SegmenterUnavailable(key, id=id) from error
        if reason := found.values.get("reason"):
            raise SegmenterUnavailable("segmenter_failed", id=id, reason=reason) from error
        raise SegmenterUnavailable("segmenter_refused", id=id, reason=found) from error
