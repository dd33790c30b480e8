"""Labelled pictures from parquet files, as crops of the size that the image tower reads.

Parquet columns: ``image {bytes, path}``, ``captions [str]``, ``label str|null``,
``source str`` (the layout of the `datasets` library's ``Image`` feature).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

SIDE = 224
"""Side in pixels of a crop."""


@dataclass(frozen=True)
class Source:
    """One set of pictures and how it is used."""

    name: str
    files: tuple[str, ...]
    share: float
    """Share of every batch."""
    crops: int
    """Crops taken of each picture."""
    area: float
    """Smallest crop, as a share of the picture's area."""
    drawn: tuple[int, ...] = ()
    """Numbers of the crops that are redrawn as a sketch or a cartoon."""


SOURCES = (
    Source("photos", ("photos-224-a.parquet", "photos-224-b.parquet"), 0.31, 5, 0.35, drawn=(4,)),
    Source("flickr", ("flickr8k-224.parquet",), 0.17, 4, 0.4),
    Source("emoji", ("emoji.parquet",), 0.03, 3, 0.7),
    Source("tiny-imagenet", ("tiny-imagenet-a.parquet", "tiny-imagenet-b.parquet"), 0.28, 1, 0.6),
    Source("cifar", ("cifar.parquet",), 0.30, 1, 0.7),
)


def read_rows(folder: Path, source: Source) -> list[dict]:
    """Rows of a source as dictionaries; raises FileNotFoundError where a file is missing."""
    return [row for file in source.files for row in read_parquet(folder / file)]


def read_parquet(path: Path) -> list[dict]:
    """Rows of one parquet file as dictionaries."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def captions_of(row: dict) -> list[str]:
    """A row's captions without their full stop, each once."""
    return list(dict.fromkeys(clean(caption) for caption in row["captions"]))


def clean(caption: str) -> str:
    """A caption in lower case without outer space and full stop."""
    return " ".join(caption.lower().split()).removesuffix(".").strip()


def plain(data: bytes, side: int = SIDE) -> Image.Image:
    """Encoded picture to its middle, ``side`` pixels square, as the product's image processor does it."""
    return ImageOps.fit(opaque(data), (side, side), Image.Resampling.BICUBIC)


def opaque(data: bytes, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Encoded picture to RGB; what is transparent lies on a colour."""
    image = Image.open(io.BytesIO(data))
    if image.mode != "RGBA":
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(under, image).convert("RGB")


def crop(data: bytes, source: Source, number: int, random: np.random.Generator) -> np.ndarray:
    """Crop ``number`` of a picture, ``(3, SIDE, SIDE)`` uint8 0-255; number 0 of a photograph is its plain middle."""
    if number == 0 and source.crops > 1 and source.name != "emoji":
        return np.asarray(plain(data)).transpose(2, 0, 1)
    red, green, blue = random.integers(0, 256, 3)
    image = opaque(data, (int(red), int(green), int(blue)))
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=random_box(image.size, source.area, random))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    if number in source.drawn:
        return np.asarray(redraw(image, random)).transpose(2, 0, 1)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(0.7, 1.3))
    return np.asarray(image).transpose(2, 0, 1)


def random_box(size: tuple[int, int], area: float, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box inside ``size`` of at least ``area`` of the square it holds, sides 3:4 to 4:3, as XYXY in pixels."""
    width, height = size
    side = min(size) * np.sqrt(random.uniform(area, 1))
    stretch = np.exp(random.uniform(-0.14, 0.14))
    w, h = min(side * stretch, width), min(side / stretch, height)
    x, y = random.uniform(0, width - w), random.uniform(0, height - h)
    return x, y, x + w, y + h


def redraw(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A photograph as a pencil sketch (its grey divided by its blurred grey) or a flat cartoon."""
    if random.random() < 0.5:
        flat = image.filter(ImageFilter.MedianFilter(5))
        return ImageEnhance.Color(ImageOps.posterize(flat, int(random.integers(2, 4)))).enhance(1.6)
    grey = image.convert("L")
    soft = np.asarray(grey.filter(ImageFilter.GaussianBlur(float(random.uniform(3, 8)))), np.float32)
    sketch = np.clip(255 * np.asarray(grey, np.float32) / np.maximum(soft, 1), 0, 255)
    dark = ImageChops.multiply(*[Image.fromarray(sketch.astype(np.uint8))] * 2)
    return Image.merge("RGB", [dark] * 3)
