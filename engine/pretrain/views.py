"""What the student and its teacher see of a batch's crops: kept from an extraction, or cut anew."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.pretrain import live, patterns
from engine.pretrain.corpus import SOURCES, Source, read_rows
from engine.pretrain.mixer import Batch, processes
from engine.pretrain.teachers import Trunk, normalised
from engine.pretrain.trunk_features import TrunkFeatures

PATTERNS = Source("patterns", (), 0.04, 1, 0.5)


@dataclass(frozen=True)
class Views:
    """The crops of a batch, on the device."""

    seen: Tensor
    """What the student reads: the trunk's lower maps or normalised pixels."""
    pooled: Tensor
    """``(B, F)`` of the teacher."""
    logits: Tensor
    """``(B, 1000)`` of the teacher."""


class Pictures(Protocol):
    """All pictures of a training."""

    rows: dict[Source, list[dict]]

    def look(self, batch: Batch) -> Views:
        """Return a batch's crops."""

    def grid(self, stem: Any, seen: Tensor) -> Tensor:
        """Return the student's last map ``(B, F, 7, 7)`` of what :meth:`look` returned."""


class Extracted:
    """Crops that were cut once, with what the trunk's frozen lower stages see of them."""

    def __init__(self, data: Path, work: Path, trunk: Trunk):
        self.trunk = trunk
        self.rows = {source: read_rows(data, source) for source in SOURCES} | {PATTERNS: patterns.rows()}
        features, self.kept = TrunkFeatures(work / "features", trunk), list[dict[str, Tensor]]()
        for source, rows in self.rows.items():
            features.extract(rows, source)
            self.kept.append(features.read(rows, source))

    def look(self, batch: Batch) -> Views:
        """Return a batch's crops."""
        parts = [
            [kept[key][places] for key in ("map", "pooled", "logits")]
            for kept, places in zip(self.kept, batch.places, strict=True)
        ]
        maps, pooled, logits = (torch.cat(group) for group in zip(*parts, strict=True))
        maps[batch.mirrored] = maps[batch.mirrored].flip(-1)
        device = self.trunk.device
        return Views(self.trunk.restore(maps.to(device)), pooled.to(device), logits.to(device))

    def grid(self, stem: Any, seen: Tensor) -> Tensor:
        """Return the student's last map of lower maps."""
        return stem.upper(seen)


class Live:
    """All pictures on the device; a batch's crops are cut anew, and the teacher looks at each."""

    def __init__(self, data: Path, trunk: Trunk, workers: int, compiled: bool = False):
        self.trunk = trunk
        self._grid = torch.compile(_whole) if compiled else _whole
        self.rows = {source: read_rows(data, source) for source in SOURCES}
        with processes(workers) as pool:
            self.rows[PATTERNS] = patterns.rows(run=pool.map)
            self.stores = [self._store(source, rows, pool) for source, rows in self.rows.items()]

    def _store(self, source: Source, rows: list[dict], pool: Executor) -> live.Store:
        encoded = [row["image"]["bytes"] for row in rows]
        parts = [encoded[start : start + 500] for start in range(0, len(encoded), 500)]
        decode = partial(live.decode, alpha=source.name == "emoji")
        pictures = [picture for part in pool.map(decode, parts) for picture in part]
        return live.Store.of(source, pictures, self.trunk.device)

    def look(self, batch: Batch) -> Views:
        """Return a batch's crops."""
        with torch.no_grad():
            parts = [store.cut(places) for store, places in zip(self.stores, batch.places, strict=True)]
            pixels = torch.cat(parts)
            mirrored = batch.mirrored.to(pixels.device)[:, None, None, None]
            pixels = torch.where(mirrored, pixels.flip(-1), pixels)
            _, pooled, logits = self.trunk(pixels)
            return Views(normalised(pixels).contiguous(memory_format=torch.channels_last), pooled, logits)

    def grid(self, stem: Any, seen: Tensor) -> Tensor:
        """Return the student's last map of normalised pixels."""
        return self._grid(stem, seen)


def _whole(stem: Any, pixels: Tensor) -> Tensor:
    return stem.upper(stem.lower(pixels))


def sample(pictures: Pictures, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """Return the teacher's pooled features and logits of some batches, on the CPU, fp32."""
    views = [pictures.look(batch) for batch in batches]
    pooled, logits = torch.cat([v.pooled for v in views]), torch.cat([v.logits for v in views])
    return pooled.float().cpu(), logits.float().cpu()
