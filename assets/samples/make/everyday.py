"""Cut the sample task *everyday* out of colour photographs that scikit-image and scikit-learn ship.

Run: ``python everyday.py --out ../everyday`` (needs ``numpy``, ``pillow``, ``scikit-image`` and ``scikit-learn``).
All pictures of a class show one photograph, each time another part, turned, mirrored and developed otherwise.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from pathlib import Path

import skimage.data
import sklearn.datasets
from jpeg import rng_for, save_jpeg
from PIL import Image, ImageEnhance

SIZE = 224
TURN = math.radians(14)
SKIMAGE = Path(skimage.data.__file__).parent
SKLEARN = Path(sklearn.datasets.__file__).parent / "images"


@dataclass(frozen=True)
class Source:
    """One photograph: where its subject is (centre, as shares of width and height) and the sides of the squares to cut,
    as shares of the shorter side."""

    file: Path
    centre: tuple[float, float]
    sides: tuple[float, float]


SOURCES = {
    "astronaut": Source(SKIMAGE / "astronaut.png", (0.47, 0.42), (0.62, 0.86)),
    "cat": Source(SKIMAGE / "chelsea.png", (0.42, 0.45), (0.7, 0.92)),
    "coffee": Source(SKIMAGE / "coffee.png", (0.5, 0.45), (0.62, 0.9)),
    "coins": Source(SKIMAGE / "coins.png", (0.5, 0.5), (0.45, 0.86)),
    "flower": Source(SKLEARN / "flower.jpg", (0.55, 0.5), (0.62, 0.92)),
    "rocket": Source(SKIMAGE / "rocket.jpg", (0.5, 0.45), (0.55, 0.85)),
    "temple": Source(SKLEARN / "china.jpg", (0.42, 0.5), (0.62, 0.92)),
}


def corners(source: Source, size: tuple[int, int], rng: random.Random) -> list[float]:
    """Corners of a turned square near the subject that lies inside the photograph: top left, bottom left, bottom right,
    top right, as a flat list of x and y."""
    width, height = size
    for attempt in range(1000):
        side = min(size) * rng.uniform(*source.sides) * 0.998**attempt
        angle = rng.uniform(-TURN, TURN)
        x = width * source.centre[0] + rng.uniform(-0.25, 0.25) * side
        y = height * source.centre[1] + rng.uniform(-0.2, 0.2) * side
        half, cos, sin = side / 2, math.cos(angle), math.sin(angle)
        square = [(-half, -half), (-half, half), (half, half), (half, -half)]
        turned = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in square]
        if all(0 <= a <= width and 0 <= b <= height for a, b in turned):
            return [value for corner in turned for value in corner]
    raise SystemExit(f"{source.file.name}: no room for a picture")


def develop(crop: Image.Image, rng: random.Random) -> Image.Image:
    """Change light, contrast and colour a little; mirror half of the pictures."""
    for kind, least, most in (
        (ImageEnhance.Brightness, 0.7, 1.25),
        (ImageEnhance.Contrast, 0.8, 1.2),
        (ImageEnhance.Color, 0.6, 1.3),
    ):
        crop = kind(crop).enhance(rng.uniform(least, most))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def main() -> None:
    """Cut every class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one sub-folder a class")
    parser.add_argument("--count", type=int, default=24, help="images a class")
    args = parser.parse_args()
    for label, source in SOURCES.items():
        photo = Image.open(source.file).convert("RGB")
        (args.out / label).mkdir(parents=True, exist_ok=True)
        for index in range(1, args.count + 1):
            rng = rng_for("everyday", label, index)
            quad = corners(source, photo.size, rng)
            crop = photo.transform((SIZE, SIZE), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
            save_jpeg(develop(crop, rng), args.out / label / f"{index:02d}.jpg", rng)
        print(f"everyday/{label}: {args.count} pictures from {source.file.name}")


if __name__ == "__main__":
    main()
