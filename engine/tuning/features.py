"""Everything that is computed once and kept: pixels and activations of the frozen prefix.

A result belongs to a picture's bytes and a backbone's weights, not to a visitor or a run: it is
found again by content hash. Memory is bounded; the least recently used goes to disk first, which is
bounded too. Tokens between the tower's blocks are kept in half precision.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engine import temporary
from engine.backbones.base import FEATURES, PATCHES, PIXELS, POOLED, Backbone
from engine.data.images import ImageFile, read_checked
from engine.lru import LruStore
from engine.types import Label

CACHE_BYTES = 1 << 30
"""Most memory for kept rows, over all visitors."""
DISK_BYTES = 4 << 30
"""Most disk for rows that memory has no room for."""


class Cache:
    """Rows by key, least recently used out first: from memory to disk, from disk to nowhere. Safe for threads.

    Args:
        limit: most bytes in memory.
        disk_limit: most bytes on disk, in a temporary folder that goes with the process; 0 = no disk.
    """

    def __init__(self, limit: int = CACHE_BYTES, disk_limit: int = DISK_BYTES):
        self._rows: LruStore[tuple, Tensor] = LruStore(limit, lambda row: row.nbytes)
        self._disk = DiskRows(disk_limit)

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self._rows.weight

    def get(self, key: tuple) -> Tensor | None:
        """Return the row, or None."""
        row = self._rows.get(key)
        return self._disk.get(key) if row is None else row

    def put(self, key: tuple, row: Tensor) -> None:
        """Keep a row; the least recently used ones make room."""
        for old, leaving in self._rows.put(key, row):
            self._disk.put(old, leaving)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._disk.clear()


@dataclass(frozen=True)
class RowFile:
    """A row on disk."""

    path: Path
    bytes: int


class DiskRows:
    """Rows as files of a temporary folder, within a limit; the least recently used go first."""

    def __init__(self, limit: int):
        self.limit = limit
        self._files: LruStore[tuple, RowFile] = LruStore(limit, lambda file: file.bytes)
        self._lock = threading.Lock()  # no file is deleted while it is read
        self._folder: tempfile.TemporaryDirectory | None = None
        self._numbers = itertools.count()

    def get(self, key: tuple) -> Tensor | None:
        """Return the row read back, or None."""
        with self._lock:
            found = self._files.get(key)
            if found is None:
                return None
            try:
                return torch.from_numpy(np.load(found.path))
            except (OSError, ValueError):  # the folder was emptied from outside
                self._files.pop(key)
                found.path.unlink(missing_ok=True)
                return None

    def put(self, key: tuple, row: Tensor) -> None:
        """Write a row; a full disk only means that the row will be computed again."""
        if row.nbytes > self.limit:
            return
        with self._lock:
            if self._files.get(key) is not None:
                return
            self._folder = self._folder or temporary.folder()
            path = Path(self._folder.name) / f"{next(self._numbers)}.npy"
            try:
                np.save(path, row.detach().cpu().numpy())
            except OSError:
                path.unlink(missing_ok=True)
                return
            _delete(self._files.put(key, RowFile(path, row.nbytes)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            _delete(self._files.clear())


def _delete(files: list[tuple[tuple, RowFile]]) -> None:
    for _, file in files:
        file.path.unlink(missing_ok=True)


SHARED = Cache()
"""The process's cache."""


@dataclass(frozen=True)
class Views:
    """Which versions of an image there are: view 0 is the image, the others random crops and flips."""

    count: int = 1
    min_crop: float = 0.5
    """Smallest crop as a share of the area."""
    seed: int = 0


def augmented(image: Image.Image, digest: str, view: int, views: Views) -> Image.Image:
    """View number ``view`` of an RGB image; depends on the picture, the view and the seed alone."""
    if view == 0:
        return image
    rng = np.random.default_rng([int(digest[:8], 16), view, views.seed])
    area = rng.uniform(views.min_crop, 1) * image.width * image.height
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = int(np.clip(round(np.sqrt(area * ratio)), 1, image.width))
    height = int(np.clip(round(np.sqrt(area / ratio)), 1, image.height))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


class FeatureStore:
    """Stage values of a fixed list of images on one backbone.

    Args:
        backbone: frozen.
        images: the episode's images, in order.
        cache: where rows are kept; the process's own by default.
        check: called before every batch; raises to stop.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: Sequence[ImageFile],
        cache: Cache = SHARED,
        check: Callable[[], None] | None = None,
        batch: int = 32,
    ):
        self.backbone, self.images, self.cache, self.batch = backbone, tuple(images), cache, batch
        self.check = check

    def __len__(self) -> int:
        return len(self.images)

    def features(self, indices: Sequence[int] | None = None) -> Tensor:
        """Normalised features ``(N, P)`` of the images themselves."""
        return self.stage(FEATURES, indices)

    def fill(self, values: Tensor) -> None:
        """Keep features ``(N, P)`` of all images that were computed elsewhere."""
        for i, row in enumerate(values):
            self.cache.put(self._key(FEATURES, i, 0, Views()), row.clone())

    def cached(self) -> int:
        """Return the number of images whose features are kept already."""
        return sum(self.cache.get(self._key(FEATURES, i, 0, Views())) is not None for i in range(len(self.images)))

    def stage(
        self, stage: int, indices: Sequence[int] | None = None, view: int = 0, views: Views | None = None
    ) -> Tensor:
        """Return values at a stage, one row an image: ``(N, ...)`` on the backbone's device."""
        chosen = range(len(self.images)) if indices is None else indices
        views = views or Views()
        rows: dict[int, Tensor] = {}
        missing = []
        for i in dict.fromkeys(chosen):
            row = self.cache.get(self._key(stage, i, view, views))
            if row is None:
                missing.append(i)
            else:
                rows[i] = row
        for batch, values in self._compute(stage, missing, view, views):
            rows.update(zip(batch, values, strict=True))
        values = torch.stack([rows[i] for i in chosen]).to(self.backbone.device)
        return values.float() if values.dtype == torch.float16 else values

    def prefetch(
        self, stage: int, indices: Sequence[int], view: int = 0, views: Views | None = None
    ) -> Iterator[tuple[int, int]]:
        """Fill the cache, yielding (images done, images missing) batch by batch."""
        views = views or Views()
        missing = [i for i in dict.fromkeys(indices) if self.cache.get(self._key(stage, i, view, views)) is None]
        done = 0
        for batch, _ in self._compute(stage, missing, view, views):
            done += len(batch)
            yield done, len(missing)

    def fresh(self, stage: int, indices: Sequence[int]) -> Tensor:
        """Like :meth:`stage`, without keeping the result (pixels are kept, and what a trunk makes of them)."""
        if self.check:
            self.check()
        chosen = list(indices)
        return self._advance(chosen, *self._load(stage, chosen, 0, Views()), stage, 0, Views())

    def _compute(self, stage: int, missing: list[int], view: int, views: Views) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (indices, rows) batch by batch; the next batch is decoded while one is encoded."""
        batches = [missing[k : k + self.batch] for k in range(0, len(missing), self.batch)]
        # One thread, one batch ahead: PIL releases the interpreter's lock while it decodes, so reading costs no time of
        # the encoder's; more threads would only hold more pixels in memory.
        with ThreadPoolExecutor(1) as ahead:
            futures = [ahead.submit(self._load, stage, batch, view, views) for batch in batches[:1]]
            for number, batch in enumerate(batches):
                if self.check:
                    self.check()
                loaded = futures.pop().result()
                if number + 1 < len(batches):
                    futures.append(ahead.submit(self._load, stage, batches[number + 1], view, views))
                values = self._advance(batch, *loaded, stage, view, views)
                if 0 <= stage < POOLED:  # rounded at once, so that a second run sees what the first one saw
                    values = values.half()
                for i, row in zip(batch, values, strict=True):  # a copy: a view would keep its whole batch alive
                    self.cache.put(self._key(stage, i, view, views), row.clone())
                yield batch, values

    def _load(self, stage: int, batch: list[int], view: int, views: Views) -> tuple[Tensor, int]:
        """Return what a stage is computed from, and its stage: a trunk's patches where those of the whole batch are
        kept, or else uint8 pixels."""
        if self._has_trunk(stage):
            rows = [self.cache.get(self._key(PATCHES, i, view, views)) for i in batch]
            found = [row for row in rows if row is not None]
            if len(found) == len(batch):
                return torch.stack(found), PATCHES
        return self._pixels(batch, view, views), PIXELS

    def _has_trunk(self, stage: int) -> bool:
        """Whether a trunk stands between the pixels and a stage; what it makes of an image is kept for all others."""
        return stage >= PATCHES == self.backbone.vision.first_trainable

    @torch.no_grad()
    def _advance(self, batch: list[int], x: Tensor, start: int, stage: int, view: int, views: Views) -> Tensor:
        """Return values at ``stage`` of what :meth:`_load` found."""
        tower, device = self.backbone.vision, self.backbone.device
        if start == PIXELS:
            x = self.backbone.normalise(x.to(device)).contiguous(memory_format=tower.memory_format)
            if self._has_trunk(stage):
                x, start = tower.advance(x, PIXELS, PATCHES), PATCHES
                for i, row in zip(batch, x, strict=True):
                    self.cache.put(self._key(PATCHES, i, view, views), row.clone())
        # Rows are kept in the usual order: tuning on maps with channels last has corrupted memory in torch 2.15.
        return tower.advance(x.to(device), start, stage).contiguous()

    def _pixels(self, batch: list[int], view: int, views: Views) -> Tensor:
        """uint8 ``(B, 3, S, S)``, from the cache where possible."""
        keys = [("pixels", *self._identity(i, view, views)) for i in batch]
        rows = [self.cache.get(key) for key in keys]
        for j in [j for j, row in enumerate(rows) if row is None]:
            # One at a time: a batch of decoded photographs would take gigabytes.
            (pixels,) = self.backbone.load_pixels([self._read(batch[j], view, views)])
            rows[j] = pixels
            self.cache.put(keys[j], pixels)
        return torch.stack([row for row in rows if row is not None])

    def _read(self, i: int, view: int, views: Views) -> Image.Image:
        image = self.images[i]
        return augmented(read_checked(image), image.digest, view, views)

    def _identity(self, i: int, view: int, views: Views) -> tuple:
        which = () if view == 0 else (view, views.min_crop, views.seed)
        return (self.backbone.id, self.backbone.weight_hash, self.images[i].digest, which)

    def _key(self, stage: int, i: int, view: int, views: Views) -> tuple:
        return (stage, *self._identity(i, view, views))


def text_key(backbone: Backbone, prompts: Sequence[str], templates: Sequence[str]) -> tuple:
    """Cache key of text features."""
    digest = hashlib.sha256("\x00".join([*prompts, "\x01", *templates]).encode()).hexdigest()
    return ("text", backbone.id, backbone.weight_hash, digest)


def text_features(
    backbone: Backbone, prompts: Sequence[str], templates: Sequence[str], cache: Cache = SHARED
) -> Tensor:
    """Prompt-ensembled text features ``(K, P)``, kept by content."""
    key = text_key(backbone, prompts, templates)
    found = cache.get(key)
    if found is None:
        found = backbone.text_features(prompts, templates)
        cache.put(key, found)
    return found


def label_features(
    backbone: Backbone, labels: Sequence[Label], templates: Sequence[str], cache: Cache = SHARED
) -> tuple[Tensor, Tensor]:
    """Text features ``(K, P)`` of the first template alone, and of all templates and the labels' descriptions."""
    single = text_features(backbone, [label.phrase for label in labels], templates[:1], cache)
    return single, text_features(backbone, [label.prompt for label in labels], templates, cache)
