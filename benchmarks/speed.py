"""What the caches save: a plain training loop against ours, in one process, with the same result.

``python -m benchmarks.speed`` builds a ViT-B/32 with random weights (time does not depend on them),
10 classes x 16 pictures of noise, and prints for every method the seconds of one training step

- plain: from the pixels of 32 images through both towers, every text padded to the full context;
- ours: from what is kept, texts cut to the longest one,

their ratio, the largest difference of a probability between the two, and our step's memory, all in
fp32. Where a run would take bf16 here, that step's seconds, ratio and difference stand beside it. Then
how features, text prompts and heads grow with images, labels and shots. With ``--backbone pocket``
it does the same for a backbone of the catalogue.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.backbones import catalog, entries, hf_clip
from engine.backbones.base import PIXELS, Backbone, fill
from engine.costs.meters import MemoryMeter
from engine.data import episode, uploads
from engine.data.images import ImageFile
from engine.tuning import registry
from engine.tuning.features import Cache, FeatureStore
from engine.tuning.precision import choose_precision
from engine.tuning.tuner import Tuner, TunerContext
from engine.types import Label

BATCH = 32
HEAD = (
    "method",
    "plain step s",
    "our step s",
    "ratio",
    "largest difference",
    "our memory MiB",
    "bf16 step s",
    "ratio",
    "largest difference",
)
EXTRA = {"lora, last 4 blocks": ("lora", {"last_blocks": 4})}
"""Rows besides each method's budget preset."""


def vit_b32() -> Backbone:
    """CLIP ViT-B/32 with random weights; it reads Pocket CLIP's tokens."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig())
    tokenizer = AutoTokenizer.from_pretrained(entries.POCKET_FOLDER, model_max_length=77)
    return hf_clip.HFClip(model, tokenizer, CLIPImageProcessor(), "random ViT-B/32", "random")


def make_task(folder: Path, classes: int, images: int) -> tuple[ImageFile, ...]:
    """Pictures of noise."""
    rng = np.random.default_rng(0)
    for k in range(classes):
        (folder / f"class {k}").mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {k}" / f"{i}.jpg", quality=85)
    return uploads.collect([folder], folder).images


def padded(backbone: Backbone) -> Backbone:
    """The same backbone, whose texts are padded to the full context as plain loops do."""
    other = copy.copy(backbone)

    def tokenize(texts: Any, reserve: int = 0) -> torch.Tensor:
        ids = backbone.tokenize(texts, reserve)
        missing = backbone.shape.context - reserve - ids.shape[1]
        return torch.nn.functional.pad(ids, (0, missing), value=int(ids[0, backbone.end_of(ids)[0]]))

    other.tokenize = tokenize  # type: ignore[method-assign]
    return other


def setting_of(backbone: Backbone, store: FeatureStore, targets: torch.Tensor, classes: int) -> TunerContext:
    """A setting on the first ``len(targets)`` images."""
    labels = tuple(Label(f"class {k}", f"class {k}") for k in range(classes))
    sentences = episode.templates("single")
    text = backbone.text_features([label.prompt for label in labels], sentences)
    return TunerContext(backbone, labels, sentences, text, text, store.features(range(len(targets))), targets)


def build(method: str, settings: dict[str, Any], setting: TunerContext) -> Tuner:
    """The method's tuner, budget preset."""
    torch.manual_seed(0)
    spec = registry.get(method)
    return spec.tuner()(spec.configure("budget", settings, 16), setting).train()


def plain_logits(tuner: Tuner, pixels: torch.Tensor) -> torch.Tensor:
    """Logits of a loop that encodes everything in every step."""
    backbone, labels = tuner.backbone, [f"class {k}" for k in range(len(tuner.frozen_text))]
    with torch.no_grad():
        ids = backbone.tokenize([fill(episode.templates("single")[0], label) for label in labels])
        tuner.frozen_text.copy_(backbone.encode_text(ids))
        x = backbone.vision.advance(pixels, PIXELS, tuner.stage)
    return tuner(x)


def timed_step(logits: Callable[[], torch.Tensor], targets: torch.Tensor, precision: str) -> tuple[float, torch.Tensor]:
    """Seconds of forward and backward pass, and the probabilities."""
    started = time.perf_counter()
    with torch.autocast(targets.device.type, torch.bfloat16, enabled=precision == "bf16"):
        values = logits()
    torch.nn.functional.cross_entropy(values, targets).backward()
    return time.perf_counter() - started, values.detach().softmax(-1)


def quickest(
    logits: Callable[[], torch.Tensor], targets: torch.Tensor, rounds: int, precision: str = "fp32"
) -> tuple[float, torch.Tensor]:
    """Quickest of some steps, after one that is not counted: other programs only ever slow a step down."""
    timed_step(logits, targets, precision)
    results = [timed_step(logits, targets, precision) for _ in range(rounds)]
    return min(seconds for seconds, _ in results), results[-1][1]


def compare_steps(
    backbone: Backbone, images: tuple[ImageFile, ...], classes: int, methods: list[str]
) -> Iterator[list[str]]:
    """One row a method: plain, ours, ratio, difference, memory."""
    store = FeatureStore(backbone, images, Cache())
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(images), generator=rng)[:BATCH].tolist()
    per_class = len(images) // classes
    targets = torch.tensor([k // per_class for k in range(len(images))])
    ours, plain = (setting_of(b, store, targets, classes) for b in (backbone, padded(backbone)))
    pixels, wanted = store.fresh(PIXELS, chosen), targets[chosen]
    rows: dict[str, tuple[str, dict[str, Any]]] = {method: (method, {}) for method in methods}
    rows |= {name: row for name, row in EXTRA.items() if row[0] in methods}
    for name, (method, settings) in rows.items():
        tuner, twin = build(method, settings, ours).eval(), build(method, settings, plain).eval()
        kept = store.stage(tuner.stage, chosen)
        slow, expected = quickest(lambda twin=twin: plain_logits(twin, pixels), wanted, rounds=2)
        del twin
        with MemoryMeter(backbone.device) as meter:
            before = meter.peak
            fast, found = quickest(lambda tuner=tuner, kept=kept: tuner(kept), wanted, rounds=5)
        memory = (meter.peak - before) / 2**20
        row = [name, f"{slow:.3f}", *against(slow, expected, fast, found), f"{memory:.0f}"]
        if choose_precision("auto", registry.get(method).runs_on, backbone) == "bf16":
            half = quickest(lambda tuner=tuner, kept=kept: tuner(kept), wanted, 5, "bf16")
            row += against(slow, expected, *half)
        yield [*row, *"---"][: len(HEAD)]


def against(slow: float, expected: torch.Tensor, fast: float, found: torch.Tensor) -> list[str]:
    """Our seconds, how many times as quick as the plain loop that is, largest difference of a probability."""
    return [f"{fast:.4f}", f"{slow / fast:.1f}", f"{(found - expected).abs().max().item():.0e}"]


def growth(backbone: Backbone, images: tuple[ImageFile, ...]) -> Iterator[list[str]]:
    """Seconds as images, labels and shots grow."""
    for count in (40, 80, 160):
        started = time.perf_counter()
        FeatureStore(backbone, images[:count], Cache()).features()
        yield ["features", f"{count} images", f"{time.perf_counter() - started:.2f}"]
    store = FeatureStore(backbone, images, Cache())
    for classes in (10, 50, 200):
        targets = torch.arange(len(images)) % min(classes, len(images))
        tuner = build("prompt_tuning", {}, setting_of(backbone, store, targets, classes))
        seconds, _ = quickest(lambda tuner=tuner: tuner(store.features(range(BATCH))), targets[:BATCH], rounds=2)
        yield ["prompt_tuning, a step", f"{classes} labels", f"{seconds:.3f}"]
    for shots in (1, 4, 16):
        targets = torch.arange(min(10 * shots, len(images))) % 10
        tuner = build("tip_adapter_f", {}, setting_of(backbone, store, targets, 10))
        x = store.features(range(len(targets)))
        seconds, _ = quickest(lambda tuner=tuner, x=x: tuner(x), targets, rounds=5)
        yield ["tip_adapter_f, a step", f"{shots} shots", f"{seconds:.4f}"]


def show(head: Sequence[str], rows: Iterator[list[str]]) -> None:
    """Print a markdown table row by row."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--backbone", help="catalogue id, folder or hub name (default: ViT-B/32 with random weights)")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=16)
    trained = [spec.id for spec in registry.methods() if spec.tuner().trains]
    parser.add_argument("--methods", default=",".join(trained), help="ids by comma (default: all that are trained)")
    options = parser.parse_args()
    backbone = catalog.load(options.backbone) if options.backbone else vit_b32()
    print(f"{backbone.id}, {options.classes} classes x {options.shots} shots, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        images = make_task(Path(folder) / "task", options.classes, options.shots)
        show(HEAD, compare_steps(backbone, images, options.classes, options.methods.split(",")))
        print()
        show(("what", "size", "seconds"), growth(backbone, images))


if __name__ == "__main__":
    main()
