"""What a run costs, measured: memory, time, and how quick this machine is."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch


class MemoryMeter:
    """Peak memory while it is open.

    On CUDA the allocator's own peak; otherwise the largest resident set of this process, sampled
    every 10 ms, so that visitors who share a process share the figure.
    """

    def __init__(self, device: torch.device | str):
        self.kind = "cuda" if torch.device(device).type == "cuda" else "process"
        self.peak = 0
        self._process, self._done = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryMeter:
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self.peak = self._process.memory_info().rss
            self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self.kind == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self._thread.join()
            self.peak = max(self.peak, self._process.memory_info().rss)


class Stopwatch:
    """Seconds by part of a run."""

    def __init__(self) -> None:
        self.seconds = {"features": 0.0, "train": 0.0, "evaluate": 0.0}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


def versions() -> dict[str, str]:
    """Versions that decide the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"python": platform.python_version()}
    for package in ("torch", "transformers", "peft", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
