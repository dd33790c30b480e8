"""How quick this machine is, measured once."""

from __future__ import annotations

import io
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from engine import plain_json
from engine.paths import cache_folder

if TYPE_CHECKING:
    from engine.costs.op_counter import OpCost


@dataclass(frozen=True)
class Speed:
    """How quick this machine is."""

    flops: float
    """Floating-point operations a second in a transformer block, forward and backward, in fp32."""
    half: float
    """How many times as many under bf16 autocast."""
    written: float
    """Bytes a second that elementwise operations write."""
    operation: float
    """Seconds that an operation takes however small it is, Python included."""
    step: float
    """Seconds that a training step takes besides its operations: choosing images, schedule, reading the loss."""
    image: float
    """Seconds to decode, resize and normalise a photo."""

    def seconds(self, work: OpCost, precision: str = "fp32") -> float:
        """Return seconds of some work, with products in ``fp32`` or, under autocast, in ``bf16`` or ``fp16``."""
        flops = self.flops * (1 if precision == "fp32" else self.half)
        return work.flops / flops + work.written / self.written + work.operations * self.operation


_measuring = threading.Lock()


def speed(device: str) -> Speed:
    """This machine's speed, measured once (some seconds) and kept in :func:`cache_folder` by processor, torch version
    and number of threads. Delete the file to measure again. Who asks meanwhile waits: measurements at the same time
    would slow each other down."""
    with _measuring:
        return kept_speed(device)


@cache
def kept_speed(device: str) -> Speed:
    """See :func:`speed`; for one thread at a time."""
    file, key = cache_folder() / "speed.json", machine(device)
    try:
        kept = plain_json.read(file)
    except (OSError, ValueError):
        kept = {}
    try:
        return Speed(**{f.name: float(kept[key][f.name]) for f in fields(Speed)})
    except (KeyError, TypeError, ValueError):
        measured = measure(device)
    kept = {**(kept if isinstance(kept, dict) else {}), key: asdict(measured)}
    with suppress(OSError):  # a folder that cannot be written to costs three seconds at each start
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(kept, indent=1), encoding="utf8")
        fresh.replace(file)
    return measured


def machine(device: str) -> str:
    """Name what decides the speed: processor, torch version, threads."""
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
    y = torch.randn(2048, 1024, device=device)  # 8 MB: more than fits a core's own cache
    written = 3 * y.nbytes / quickest(lambda: (y + y, y * y, y.sigmoid()), device)
    step = small_step(device)
    operation = quickest(step, device) / counted(step).operations
    block = block_step(device, 256)
    work = counted(block)
    spent = quickest(block, device, 0.5)
    products = max(spent / 2, spent - work.written / written - work.operations * operation)
    wide = block_step(device, 768, images=4)  # few: processors without bf16 take a second and more for each
    full = quickest(wide, device)
    with torch.autocast(device, torch.bfloat16):
        half = full / quickest(wide, device)
    turn, inner = smallest_training(device)
    rest = max(0.0, quickest(turn, device) - inner.operations * operation)
    return Speed(work.flops / products, half, written, operation, rest, quickest(photo_reader(), "cpu"))


def quickest(work: Callable[[], Any], device: str, seconds: float = 0.2) -> float:
    """Return seconds of the quickest of the rounds that fit into ``seconds``, at least two."""
    best, rounds, started = float("inf"), 0, time.perf_counter()
    while rounds < 2 or time.perf_counter() - started < seconds:
        round_started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best, rounds = min(best, time.perf_counter() - round_started), rounds + 1
    return best


def counted(work: Callable[[], Any]) -> OpCost:
    """Return what some work does, the second time it is done."""
    from engine.costs.op_counter import OpCounter

    work()
    with OpCounter() as meter:
        work()
    return meter.work()


def block_step(device: str, width: int, images: int = 32) -> Callable[[], Any]:
    """Return a transformer block on 32 tokens an image, forward and backward: products of the shapes of training."""
    heads = width // 64
    block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    block.to(device)
    x = torch.randn(images, 32, width, device=device, requires_grad=True)
    return lambda: block(x).sum().backward()


def small_step(device: str) -> Callable[[], Any]:
    """Return a training step so small that only the number of its operations counts."""
    layers = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(4)]
    model = nn.Sequential(*layers).to(device)
    optimizer, x = torch.optim.AdamW(model.parameters()), torch.randn(4, 8, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    return step


def smallest_training(device: str) -> tuple[Callable[[], Any], OpCost]:
    """Return one turn of the training loop on a tuner of a single weight, and the work of the step in it."""
    from engine.tuning import loop
    from engine.tuning.losses import classification
    from engine.tuning.tuner import TrainConfig

    class Smallest(nn.Module):
        full_batch, lr_factor = False, 1.0

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8, 2))

        def trained(self) -> dict[str, nn.Parameter]:
            return {"weight": self.weight}

        def set_batch(self, views: torch.Tensor, chosen: torch.Tensor) -> None:
            pass

        def objective(self, x: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = x @ self.weight
            return classification(logits, targets), logits

        def after_step(self) -> None:
            pass

    tuner: Any = Smallest().to(device)
    inputs, targets = torch.randn(1, 64, 8, device=device), torch.zeros(64, dtype=torch.long, device=device)
    optimizer = loop.make_optimizer(list(tuner.parameters()), TrainConfig())
    scheduler = loop.make_scheduler(optimizer, TrainConfig(), 1, 2)
    work = counted(lambda: loop.step(tuner, inputs[0], targets, optimizer, scheduler))
    turns = loop.fit(tuner, inputs, targets, TrainConfig(epochs=2000, batch_size=1), 0)
    return lambda: next(turns), work


def photo_reader() -> Callable[[], Any]:
    """Return a function that reads one JPEG of 500 x 375 pixels as the backbones' preprocessing does."""
    rng, data = np.random.default_rng(0), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
    small.resize((500, 375), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)

    def read() -> np.ndarray:
        with Image.open(io.BytesIO(data.getvalue())) as image:
            scaled = image.convert("RGB").resize((299, 224), Image.Resampling.BICUBIC)
        return (np.asarray(scaled, np.float32) / 255 - 0.5) / 0.25

    return read
