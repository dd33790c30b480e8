"""Does marking help this model on these photos? Sheets of four labelled photos with a mark each are asked about, and
the answers counted in each way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from engine.ask.answerer import Answerer
from engine.ask.ask import pictures_of
from engine.ask.prompts import LABELLED, WAYS, Prompt, hint
from engine.data.images import ImageFile, read_checked
from engine.errors import BadTask, messages
from engine.metrics.statistics import wilson
from engine.regions.scores import Scorer
from engine.regions.types import Prompt as RegionPrompt
from engine.regions.types import Region
from engine.types import Interval, Label

SIDE, GAP = 448, 12
"""Pixels of a sheet, and between its photos."""
TILES = 4

messages(
    ask_few_photos="It takes photos of at least two labels to find out whether marks help. Add some, or choose a "
    "sample task.",
)


@dataclass(frozen=True)
class Sheet:
    """Photos side by side under marks 1 to n, and which one is asked for."""

    picture: Image.Image
    regions: tuple[Region, ...]
    truth: tuple[Label, ...]
    """By position; the mark of position k is k + 1."""
    photos: tuple[Image.Image, ...]
    asked: int
    """Position."""


@dataclass(frozen=True)
class WaysChecked:
    """How many answers were right so far."""

    done: int
    total: int
    right: dict[str, int]
    """By way, and ``clip`` for CLIP's own label of the mark."""

    def rates(self) -> dict[str, Interval]:
        """Shares with their 95 % intervals (Wilson)."""
        return {way: wilson(count, self.done) for way, count in self.right.items()} if self.done else {}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rates = {way: {"value": r.value, "low": r.low, "high": r.high} for way, r in self.rates().items()}
        return {"sheets": self.done, "right": self.right, "accuracy": rates}


def sheets(images: Sequence[ImageFile], labels: Sequence[Label], count: int, seed: int = 0) -> Iterator[Sheet]:
    """Yield sheets of photos of different labels. Raises BadTask where fewer than two labels have photos."""
    by_label = {label: [image for image in images if image.label == label.name] for label in labels}
    there = [label for label in labels if by_label[label]]
    if len(there) < 2:
        raise BadTask("ask_few_photos")
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        kinds = [there[int(k)] for k in rng.permutation(len(there))[: min(TILES, len(there))]]
        files = [by_label[kind][int(rng.integers(len(by_label[kind])))] for kind in kinds]
        yield sheet_of([read_checked(file) for file in files], kinds, int(rng.integers(len(kinds))))


def sheet_of(photos: Sequence[Image.Image], truth: Sequence[Label], asked: int) -> Sheet:
    """Put photos into the corners of a grey square, each under its mark."""
    side = (SIDE - 3 * GAP) // 2
    canvas, regions, squares = Image.new("RGB", (SIDE, SIDE), (128, 128, 128)), [], []
    for k, photo in enumerate(photos):
        least = min(photo.size)
        left, top = (photo.width - least) // 2, (photo.height - least) // 2
        square = photo.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.BICUBIC)
        x, y = GAP + (k % 2) * (side + GAP), GAP + (k // 2) * (side + GAP)
        canvas.paste(square, (x, y))
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y : y + side, x : x + side] = True
        regions.append(replace(Region.of(mask, (SIDE, SIDE), 1.0, 1.0, RegionPrompt()), number=k + 1))
        squares.append(square)
    return Sheet(canvas, tuple(regions), tuple(truth), tuple(squares), asked)


def names(label: Label, text: str) -> bool:
    """Whether an answer names a label: its name or prompt as whole words, whatever stands around them."""

    def words(part: str) -> str:
        return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in part.casefold()).split())} "

    return any(words(name) in words(text) for name in (label.name, label.phrase) if name.strip())


def check(
    answerer: Answerer,
    scorer: Scorer,
    images: Sequence[ImageFile],
    count: int = 20,
    seed: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[WaysChecked]:
    """Ask of each sheet "What is in mark n?" in the three ways.

    Args:
        scorer: whose label of each photo is told in the third way: the tuned model's where it has one.
        images: of the task, with labels.
        count: sheets.

    Raises BadTask where there are too few photos.
    """
    stop, right = stop or threading.Event(), dict.fromkeys((*WAYS, "clip"), 0)
    for done, sheet in enumerate(sheets(images, scorer.labels, count, seed), 1):
        sides = scorer.probabilities(sheet.photos)
        best = (sides.get("tuned", sides["zero_shot"])).argmax(1)
        told = {k + 1: scorer.labels[int(best[k])].phrase for k in range(len(sheet.photos))}
        truth, mark, shown = sheet.truth[sheet.asked], sheet.asked + 1, pictures_of(sheet.picture, sheet.regions)
        right["clip"] += told[mark] == truth.phrase
        for way in WAYS:
            prompt = Prompt(f"What is in mark {mark}?", hint(told) if way == LABELLED else "")
            *_, reply = answerer.stream(shown[way], prompt, stop)
            if stop.is_set():
                return
            right[way] += names(truth, reply.text)
        yield WaysChecked(done, count, dict(right))
