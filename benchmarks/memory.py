"""Forecast memory beside CUDA's own count.

``python -m benchmarks.memory`` follows a training run of every trained method on ViT-B/32 with two batch sizes. Where
CUDA is at hand it then does the run's largest moments on random weights and prints the allocator's peak
(``torch.cuda.max_memory_allocated``) beside each forecast; ``--out docs/costs.md`` writes the table as Markdown.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.backbones import entries
from engine.backbones.base import FEATURES, PIXELS, Backbone
from engine.backbones.skeleton import meta_backbone
from engine.costs.forecast import forecast
from engine.costs.meters import MemoryMeter
from engine.costs.trace import IMAGES
from engine.tuning import loop, registry
from engine.tuning.tuner import TunerContext
from engine.types import Label

LABELS, SHOTS = 10, 16
MIB = 1 << 20
HEAD = ("backbone", "method", "batch", "forecast MiB", "measured MiB", "error")


def filled(backbone: Backbone, device: str) -> Backbone:
    """The backbone on a device, with random weights."""
    torch.manual_seed(0)
    model = copy.deepcopy(backbone.model).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for name, buffer in model.named_buffers():  # positions are counted up
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return backbone.replace_model(model)


def encode(backbone: Backbone, count: int, stage: int) -> torch.Tensor:
    """Values of random images at a stage, ``IMAGES`` at a time, as ``FeatureStore`` makes them."""
    side, rows = backbone.shape.image_size, []
    with torch.no_grad():
        for start in range(0, count, IMAGES):
            pixels = torch.randn(min(IMAGES, count - start), 3, side, side, device=backbone.device)
            rows += [row.clone() for row in backbone.vision.advance(pixels, PIXELS, stage)]
    return torch.stack(rows)


def measured(spec: registry.MethodSpec, config: Any, backbone: Backbone) -> int:
    """Bytes at the peak of a run with three steps: features, inputs, training, scoring."""
    support = LABELS * SHOTS
    labels = tuple(Label(f"class {k}", f"class {k}") for k in range(LABELS))
    with MemoryMeter(backbone.device) as meter:
        features = encode(backbone, 2 * support, FEATURES)
        with torch.no_grad():
            text = backbone.text_features([label.prompt for label in labels], ("a photo of a {}.",))
        targets = torch.arange(support, device=backbone.device) % LABELS
        setting = TunerContext(backbone, labels, ("a photo of a {}.",), text, text, features[:support], targets)
        tuner = spec.tuner()(config, setting)
        kept = [encode(backbone, support, tuner.stage) for _ in range(config.views)]  # as the cache holds them
        inputs = torch.stack(kept)
        steps = loop.fit(tuner, inputs, targets, config, 0)
        for _ in range(3):
            next(steps)
        steps.close()
        del inputs, steps
        with torch.no_grad():
            tuner.eval()(kept[0][:IMAGES])
    del tuner, kept, setting, features, text
    return meter.peak


def rows(names: list[str], batches: list[int], precision: str) -> Iterator[tuple[str, ...]]:
    """One row a backbone, method and batch size."""
    here = torch.cuda.is_available() and precision == "fp32"
    for name in names:
        sizes = meta_backbone(name)
        real = filled(sizes, "cuda") if here else None
        for spec in registry.methods():
            if not spec.tuner().trains:
                continue
            for batch in batches:
                config = spec.configure(settings={"batch_size": batch}, shots=SHOTS)
                images = 2 * LABELS * SHOTS
                expected = forecast(spec, config, sizes, LABELS, images // 2, images, 1, precision, device="cuda")
                needed = expected.total_bytes
                cells = [name, spec.id, str(batch), f"{needed / MIB:,.0f}"]
                if real is not None:
                    gc.collect()
                    torch.cuda.empty_cache()
                    peak = measured(spec, config, real)
                    cells += [f"{peak / MIB:,.0f}", f"{100 * (needed - peak) / peak:+.1f} %"]
                yield (*cells, *["-"] * (len(HEAD) - len(cells)))
        del real


def main() -> None:
    """Print the table; write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", action="append", help="repeatable (default: openai/clip-vit-base-patch32)")
    parser.add_argument("--batch", type=int, action="append", help="repeatable (default: 8 and 32)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    known = [entries.ENTRIES[1].id] if not options.backbone else options.backbone
    if not torch.cuda.is_available():
        print("There is no CUDA here, so these are forecasts for a card, not measured beside one.")
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    print("\n".join(lines))
    for row in rows(known, options.batch or [8, 32], options.precision):
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    if options.out:
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "forecasts only"
        task = f"{LABELS} labels x {SHOTS} shots, {options.precision}, random weights"
        text = f"# Memory: forecast and measured\n\n{where}, torch {torch.__version__}, {task}.\n\n"
        text += "\n".join(lines) + "\n"
        options.out.write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
