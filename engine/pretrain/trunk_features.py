"""What the frozen lower part of the trunk sees of each crop, computed once and kept on disk.

A crop's map after the trunk's lower stages is kept as int8 (one scale a channel), with the pooled feature and the
ImageNet logits of the network the trunk comes from. An interrupted extraction goes on where it stopped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.pretrain.corpus import Source, crop
from engine.pretrain.teachers import Trunk

SHARD, BATCH = 2048, 64
"""Crops a file and a batch."""


class TrunkFeatures:
    """A folder of extracted crops, one sub-folder a source."""

    def __init__(self, folder: Path, trunk: Trunk):
        self.folder, self.trunk = folder, trunk

    def extract(self, rows: list[dict], source: Source) -> None:
        """Extract every crop of a source's rows that is not there yet.

        Crop ``c`` of picture ``i`` of N is number ``c * N + i``.
        """
        total, folder = len(rows) * source.crops, self._folder(source, len(rows))
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, total, SHARD):
            path = folder / f"{start:07d}.safetensors"
            if path.exists():
                continue
            numbers = range(start, min(start + SHARD, total))
            parts = [self._encode(pixels) for pixels in self._crops(source, rows, numbers)]
            merged = {key: torch.cat([part[key] for part in parts])[: len(numbers)].contiguous() for key in parts[0]}
            save_file(merged, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            print(f"{source.name} {numbers.stop}/{total}", flush=True)

    def _crops(self, source: Source, rows: list[dict], numbers: range) -> Iterator[Tensor]:
        """Batches of crops ``(BATCH, 3, SIDE, SIDE)`` uint8, the next one cut while one is used; the last one is
        filled up with copies, so that all have one size."""

        def make(start: int) -> Tensor:
            part = numbers[start : start + BATCH]
            crops = [self._crop(source, rows, number) for number in part]
            return torch.from_numpy(np.stack(crops + crops[-1:] * (BATCH - len(crops))))

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(make, 0)
            for start in range(0, len(numbers), BATCH):
                pixels = ahead.result()
                ahead = pool.submit(make, start + BATCH if start + BATCH < len(numbers) else start)
                yield pixels

    def _crop(self, source: Source, rows: list[dict], number: int) -> np.ndarray:
        which, i = divmod(number, len(rows))
        seed = (zlib.crc32(source.name.encode()), number)
        return crop(rows[i]["image"]["bytes"], source, which, np.random.default_rng(seed))

    def _encode(self, pixels: Tensor) -> dict[str, Tensor]:
        hidden, pooled, logits = self.trunk(pixels)
        return {"map": self.trunk.quantise(hidden).cpu(), "pooled": pooled.half().cpu(), "logits": logits.half().cpu()}

    def _folder(self, source: Source, rows: int) -> Path:
        """Return where a source's crops lie; other pictures or crops of the same source lie elsewhere."""
        return self.folder / f"{source.name}-{rows}x{source.crops}-{source.area:g}"

    def read(self, rows: list[dict], source: Source) -> dict[str, Tensor]:
        """Return all crops of a source: ``map (n, C, 14, 14)`` int8, ``pooled (n, F)``, ``logits (n, 1000)`` fp16."""
        files = sorted(self._folder(source, len(rows)).glob("*.safetensors"))
        shards: list[dict[str, Any]] = [load_file(path) for path in files]
        return {key: torch.cat([shard.pop(key) for shard in shards]) for key in ("map", "pooled", "logits")}
