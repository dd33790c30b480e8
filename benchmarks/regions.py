"""Regions on photographs that Pocket SAM never saw: pictures to look at, times, and whether labels survive its masks.

``python -m benchmarks.regions --data DIR --out DIR`` reads ``masks.parquet`` in ``--data``, takes ``--images`` of its
held-out photographs (the same number of each source where there are enough), finds everything in each, writes the
marked pictures side by side with the true masks, and prints

- seconds to encode, to answer a click, to find everything (median);
- how often the region under one click has the zero-shot label of the true region, seen the same way;
- the clicks that found nothing.

``--segmenter`` takes what ``python -m engine regions`` takes; ``--random vit_b`` times a full SAM with random weights,
since time does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry

from engine.backbones import catalog as backbones
from engine.data import episode
from engine.errors import BadRegion
from engine.pretrain.measure_sam import SMALL_SHARE, iou, middle
from engine.pretrain.scenes import Photo, read_photos
from engine.regions import catalog, marks, scores
from engine.regions.segmenter import Scene, Segmenter
from engine.regions.types import Prompt, Region, numbered

LABELS = "cat, dog, person, face, hair, shirt, dress, trousers, shoes, bag, car, chair, ball, bottle, tree, sky"
VIEW = "cut"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it; None where it raised BadRegion."""
    started = time.perf_counter()
    try:
        result = work()
    except BadRegion:
        result = None
    return time.perf_counter() - started, result


def pick(photos: list[Photo], count: int) -> list[Photo]:
    """``count`` photographs, sources in turn."""
    by_source = [[p for p in photos if p.source == name] for name in sorted({p.source for p in photos})]
    turns = [group[k] for k in range(max(map(len, by_source))) for group in by_source if k < len(group)]
    return turns[:count]


def true_regions(photo: Photo) -> list[np.ndarray]:
    """The masks of a photograph that are not small."""
    masks = (photo.ids == i for i in np.unique(photo.ids) if i)
    return [mask for mask in masks if mask.mean() >= SMALL_SHARE]


def beside_truth(photo: Photo, overlay: Image.Image) -> Image.Image:
    """The marked picture and, right of it, the true regions marked the same way."""
    truth = numbered(Region.of(mask, photo.size[::-1], 1.0, 1.0, Prompt()) for mask in true_regions(photo))
    image = Image.fromarray(photo.pixels.transpose(1, 2, 0))
    both = Image.new("RGB", (2 * image.width, image.height))
    both.paste(overlay, (0, 0))
    both.paste(marks.draw(image, truth).image, (image.width, 0))
    return both


def clicked(scene: Scene, photo: Photo, scorer: scores.Scorer) -> list[tuple[float, bool, float]]:
    """For each true region: seconds of a click in its middle, whether the labels agree, the masks' IoU.

    A click that found nothing has an IoU of nought and no agreement."""
    rows = []
    for mask in true_regions(photo):
        seconds, found = timed(lambda mask=mask: scene.click([middle(mask).tolist()]))
        if not found:
            rows.append((seconds, False, 0.0))
            continue
        pair = numbered([Region.of(mask, scene.size, 1.0, 1.0, Prompt()), found[0]])
        labels = [row.zero_shot.label for row in scores.score(scene.picture, pair, scorer, VIEW)]
        rows.append((seconds, labels[0] == labels[1], iou(found[0].mask, mask)))
    return rows


def random_segmenter(kind: str) -> Segmenter:
    """A full SAM with random weights."""
    sam = sam_model_registry[kind]()
    return Segmenter(kind, f"SAM {kind} (random weights)", catalog.SURE, lambda: SamPredictor(sam))


def run(segmenter: Segmenter, photos: list[Photo], out: Path, granularity: str, search: bool) -> None:
    """Measure, print, and write the pictures."""
    backbone = backbones.load("pocket")
    labels = episode.parse_labels(LABELS)
    scorer = scores.Scorer.zero_shot(backbone, labels)
    out.mkdir(parents=True, exist_ok=True)
    encode, everything, clicks, counts = [], [], [], []
    for k, photo in enumerate(photos):
        image = Image.fromarray(photo.pixels.transpose(1, 2, 0))
        seconds, scene = timed(lambda image=image: segmenter.set_image(image))
        encode.append(seconds)
        rows = clicked(scene, photo, scorer)
        clicks += rows
        line = f"{k:2} {photo.source:20} {image.width}x{image.height}"
        if search:
            seconds, regions = timed(lambda scene=scene: scene.everything(granularity))
            everything.append(seconds)
            counts.append(len(regions or ()))
            overlay = marks.draw(image, regions or ()).image
            beside_truth(photo, overlay).save(out / f"{k:02}-{photo.source}.png")
            line += f" {counts[-1]} regions in {seconds:.1f} s"
        print(line + f", clicks' mean IoU {statistics.mean(row[2] for row in rows):.2f}" if rows else line, flush=True)
    print(f"{segmenter.name}: encode {statistics.median(encode):.3f} s", end="")
    if clicks:
        print(f", click {statistics.median(row[0] for row in clicks):.3f} s", end="")
        print(f", same label {statistics.mean(row[1] for row in clicks):.0%} of {len(clicks)}", end="")
        print(f", found nothing {statistics.mean(row[2] == 0 for row in clicks):.0%}", end="")
    if search:
        print(f", everything {statistics.median(everything):.2f} s, {statistics.mean(counts):.1f} regions", end="")
    print()


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", type=Path, required=True, help="folder with masks.parquet")
    parser.add_argument("--out", type=Path, default=Path("runs/regions"), help="where the pictures go")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--segmenter", default="pocket")
    parser.add_argument("--random", choices=["vit_b", "vit_l", "vit_h"], help="time this SAM with random weights")
    parser.add_argument("--granularity", default="parts")
    parser.add_argument("--no-search", action="store_true", help="leave the search for everything out")
    options = parser.parse_args(arguments)
    _, held = read_photos(options.data)
    segmenter = random_segmenter(options.random) if options.random else catalog.load(options.segmenter)
    run(segmenter, pick(held, options.images), options.out, options.granularity, not options.no_search)


if __name__ == "__main__":
    main()
