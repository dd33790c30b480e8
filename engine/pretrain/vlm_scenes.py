"""Pictures and what can be asked about them, made by rule from labelled photographs: for the pocket language model.

Set-of-Mark pictures are made of cut-outs: products on a white ground (their outline is where the white ends) pasted
on photographs, and labelled photographs pasted as they are. Every fifth product and every tenth photograph is held
out and never trained with.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.ask.prompts import STYLE
from engine.pretrain.corpus import read_parquet
from engine.regions.marks import draw
from engine.regions.types import Prompt, Region

SIDE = 224
"""Side in pixels of a picture as the model looks at it."""
PRODUCTS = "fashion-products"
KINDS = (
    "backpack",
    "belt",
    "cap",
    "dress",
    "flip-flops",
    "handbag",
    "high-heeled shoe",
    "jacket",
    "jeans",
    "necktie",
    "sandal",
    "shirt",
    "shorts",
    "socks",
    "sports shoe",
    "sunglasses",
    "t-shirt",
    "track pants",
    "wallet",
    "wristwatch",
)
"""Objects that are asked for in measurements."""
COLOURS = frozenset(
    [
        *("black", "blue", "brown", "cream", "gold", "green", "grey", "maroon", "orange", "pink", "purple", "red"),
        *("silver", "white", "yellow", "beige", "navy"),
    ]
)
OTHERS = ("popular-animals", "musical-instruments", "krish212-objects", "ai102-fruit", "pizza-icecream", "sports-type")
"""Sources whose photographs are pasted as they are."""
MOST = 4
"""Marked objects a picture."""


@dataclass(frozen=True)
class Thing:
    """Something to paste: ``rgba (H, W, 4)`` uint8, what it is called, and its colour where that is known."""

    rgba: np.ndarray
    kind: str
    colour: str | None = None


@dataclass(frozen=True)
class Placed:
    """A pasted thing under its mark."""

    mark: int
    kind: str
    colour: str | None
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Scene:
    """A picture without and with marks, RGB, and what stands under each of them, by number."""

    plain: Image.Image
    marked: Image.Image
    things: tuple[Placed, ...]


@dataclass(frozen=True)
class Asked:
    """A question about a picture, and the answer."""

    question: str
    answer: str
    hint: str = ""
    """What is told about the marks, as :func:`engine.ask.prompts.hint` writes it."""


def read_things(folder: Path) -> tuple[list[Thing], list[Thing]]:
    """Everything that can be pasted: to train with, held out (products of ``KINDS`` only)."""
    train: list[Thing] = []
    apart: list[Thing] = []
    seen: dict[str, int] = {}
    for row in _photos(folder):
        label, source = row["label"], row["source"]
        number = seen[label] = seen.get(label, -1) + 1
        held = number % 5 == 4
        if source == PRODUCTS and (rgba := cut_from_white(row["image"]["bytes"])) is not None:
            thing = Thing(rgba, label, _colour(row["captions"], label))
            if not held:
                train.append(thing)
            elif label in KINDS:
                apart.append(thing)
        elif source in OTHERS and number % 10 != 9:
            train.append(Thing(_square(row["image"]["bytes"]), row["captions"][0].lower()))
    return train, apart


def _photos(folder: Path) -> list[dict]:
    return [row for part in "ab" for row in read_parquet(folder / f"photos-224-{part}.parquet")]


def read_captioned(folder: Path) -> list[tuple[bytes, list[str]]]:
    """Photographs with sentences, encoded."""
    return [(row["image"]["bytes"], row["captions"]) for row in read_parquet(folder / "flickr8k-224.parquet")]


def read_labelled(folder: Path) -> list[tuple[bytes, list[str]]]:
    """Photographs with one label and its further names, encoded; every tenth of a label is left out."""
    seen: dict[str, int] = {}
    found = []
    for row in _photos(folder):
        seen[row["label"]] = seen.get(row["label"], -1) + 1
        if seen[row["label"]] % 10 != 9:
            found.append((row["image"]["bytes"], [text.lower() for text in row["captions"]]))
    return found


def cut_from_white(data: bytes) -> np.ndarray | None:
    """A product with its alpha, ``(H, W, 4)`` uint8; None where the ground is not white or too much or little is
    left."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) < 245:
        return None
    white = (pixels > 238).all(-1)
    named, count = ndimage.label(white)
    edge = np.unique(np.concatenate([named[0], named[-1], named[:, 0], named[:, -1]]))
    mask = ndimage.binary_opening(~np.isin(named, edge[edge > 0]), iterations=1)
    named, count = ndimage.label(mask)
    if not count:
        return None
    mask = named == 1 + int(np.argmax(ndimage.sum(mask, named, range(1, count + 1))))
    if not 0.05 < mask.mean() < 0.9:
        return None
    ys, xs = np.nonzero(mask)
    box = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
    return np.concatenate([pixels[box], (mask[box] * np.uint8(255))[..., None]], -1)


def _square(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.crop((left, top, left + side, top + side)).resize((128, 128), Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(small), np.full((128, 128, 1), 255, np.uint8)], -1)


def _colour(captions: Sequence[str], label: str) -> str | None:
    """The colour that a further caption puts before the label."""
    for caption in captions[1:]:
        before = caption.lower().removesuffix(label).split()
        if before and before[-1] in COLOURS:
            return before[-1]
    return None


def compose(background: Image.Image, things: Sequence[Thing], rng: np.random.Generator) -> Scene:
    """Paste things side by side on a photograph, and mark them in an order of chance."""
    canvas = background.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    cells = [(x, y) for y in range(2) for x in range(2)]
    places = [cells[k] for k in rng.permutation(len(cells))[: len(things)]]
    numbers = 1 + rng.permutation(len(things))
    regions, placed, half = [], [], SIDE // 2
    for thing, (x, y), number in zip(things, places, numbers, strict=True):
        image = Image.fromarray(thing.rgba, "RGBA")
        scale = half * rng.uniform(0.72, 0.98) / max(image.size)
        size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left = x * half + int(rng.integers(0, half - size[0] + 1))
        top = y * half + int(rng.integers(0, half - size[1] + 1))
        canvas.paste(image, (left, top), image)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top : top + size[1], left : left + size[0]] = np.asarray(image)[..., 3] > 127
        regions.append(_region(mask, int(number)))
        box = (left, top, left + size[0], top + size[1])
        placed.append(Placed(int(number), thing.kind, thing.colour, box))
    marked = draw(canvas, regions, STYLE).image
    return Scene(canvas, marked, tuple(sorted(placed, key=lambda thing: thing.mark)))


def _region(mask: np.ndarray, number: int) -> Region:
    return replace(Region.of(mask, (SIDE, SIDE), 1.0, 1.0, Prompt()), number=number)


def questions(scene: Scene, kinds: Sequence[str], rng: np.random.Generator) -> Iterator[Asked]:
    """Questions about a marked picture: one of each sort that it can answer."""
    one = scene.things[int(rng.integers(len(scene.things)))]
    yield Asked(f"what is in mark {one.mark}", one.kind)
    alone = [t for t in scene.things if sum(other.kind == t.kind for other in scene.things) == 1]
    if alone:
        wanted = alone[int(rng.integers(len(alone)))]
        yield Asked(f"which mark is the {wanted.kind}", str(wanted.mark))
    yield Asked("how many objects are marked", str(len(scene.things)))
    there = bool(rng.random() < 0.5)
    absent = [kind for kind in kinds if all(kind != thing.kind for thing in scene.things)]
    kind = one.kind if there else absent[int(rng.integers(len(absent)))]
    yield Asked(f"is there a {kind}", "yes" if there else "no")
    coloured = [thing for thing in scene.things if thing.colour]
    if coloured:
        shown = coloured[int(rng.integers(len(coloured)))]
        yield Asked(f"which colour is mark {shown.mark}", str(shown.colour))


def told(scene: Scene, kinds: Sequence[str], rng: np.random.Generator, right: float = 0.85) -> Mapping[int, str]:
    """Mark -> a label as a tuned classifier gives it: right in a share of the cases."""
    return {
        thing.mark: thing.kind if rng.random() < right else kinds[int(rng.integers(len(kinds)))]
        for thing in scene.things
    }
