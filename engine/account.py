"""What a run costs, measured: memory, time, and how quick this machine is."""

from __future__ import annotations

import io
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import nn


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


@dataclass(frozen=True)
class Speed:
    """How quick this machine is."""

    flops: float
    """Floating-point operations a second in a matrix product."""
    written: float
    """Bytes a second that elementwise operations write."""
    operation: float
    """Seconds that an operation takes however small it is, Python included."""
    image: float
    """Seconds to decode, resize and normalise a photo."""

    def seconds(self, flops: float, written: float, operations: float) -> float:
        """Seconds of some work."""
        return flops / self.flops + written / self.written + operations * self.operation


@cache
def speed(device: str) -> Speed:
    """This machine's speed, measured once (about a second) and kept in :func:`cache_folder` by processor, torch
    version and number of threads. Delete the file to measure again."""
    file, key = cache_folder() / "speed.json", machine(device)
    try:
        kept = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        kept = {}
    try:
        return Speed(**{f.name: float(kept[key][f.name]) for f in fields(Speed)})
    except (KeyError, TypeError, ValueError):
        measured = measure(device)
    kept = {**(kept if isinstance(kept, dict) else {}), key: asdict(measured)}
    with suppress(OSError):  # a folder that cannot be written to costs a second at each start
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(kept, indent=1), encoding="utf8")
        fresh.replace(file)
    return measured


def cache_folder() -> Path:
    """``CTL_CACHE``, or the user's own cache folder."""
    chosen = os.environ.get("CTL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(usual) / "clip-tuning-lab"


def machine(device: str) -> str:
    """Names what decides the speed: processor, torch version, threads."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def measure(device: str) -> Speed:
    """Time small pieces of work. The quickest round of each counts: other programs only ever slow one down."""
    x, w = torch.randn(1024, 256, device=device), torch.randn(256, 1024, device=device)
    y = torch.randn(2048, 1024, device=device)  # 8 MB: more than fits a core's own cache
    product = quickest(lambda: x @ w, device)
    elementwise = quickest(lambda: (y + y, y * y, y.sigmoid()), device)
    step, operations = small_step(device)
    return Speed(
        2 * x.numel() * w.shape[1] / product, 3 * y.nbytes / elementwise,
        quickest(step, device) / operations, quickest(photo_reader(), "cpu"),
    )  # fmt: skip


def quickest(work: Callable[[], Any], device: str, seconds: float = 0.2) -> float:
    """Seconds of the quickest of the rounds that fit into ``seconds``, at least two."""
    best, rounds, started = float("inf"), 0, time.perf_counter()
    while rounds < 2 or time.perf_counter() - started < seconds:
        round_started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best, rounds = min(best, time.perf_counter() - round_started), rounds + 1
    return best


def small_step(device: str) -> tuple[Callable[[], Any], int]:
    """A training step so small that only the number of its operations counts, and that number."""
    from engine.follow import Meter

    layers = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(4)]
    model = nn.Sequential(*layers).to(device)
    optimizer, x = torch.optim.AdamW(model.parameters()), torch.randn(4, 8, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    step()
    with Meter() as meter:
        step()
    return step, meter.operations


def photo_reader() -> Callable[[], Any]:
    """Reads one JPEG of 500 x 375 pixels as the backbones' preprocessing does."""
    rng, data = np.random.default_rng(0), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
    small.resize((500, 375), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)

    def read() -> np.ndarray:
        with Image.open(io.BytesIO(data.getvalue())) as image:
            scaled = image.convert("RGB").resize((299, 224), Image.Resampling.BICUBIC)
        return (np.asarray(scaled, np.float32) / 255 - 0.5) / 0.25

    return read


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
