"""Drawn patterns for words that name a texture: stripes, dots, checks and the like, in any colours and sizes."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage, spatial

SIDE = 224
Random = np.random.Generator
Field = np.ndarray
"""``(SIDE, SIDE)`` float, 0 = first colour, 1 = second colour."""


def _grid(random: Random, turn: bool = True) -> tuple[Field, Field, float]:
    """Coordinates in pixels, turned by a random angle, and a random period."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle = random.uniform(0, np.pi) if turn else random.choice([0.0, np.pi / 2])
    period = float(np.exp(random.uniform(np.log(12), np.log(60))))
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle), period


def _noise(random: Random, size: float) -> Field:
    field = ndimage.gaussian_filter(random.standard_normal((SIDE, SIDE)), size, mode="wrap")
    return (field - field.min()) / np.ptp(field)


def _cells(random: Random, count: int) -> tuple[Field, Field, np.ndarray]:
    """Distance to the nearest and the second nearest of random points, and the nearest one's number."""
    points = random.uniform(0, SIDE, (count, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    distance, which = spatial.cKDTree(points).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    return distance[:, 0].reshape(SIDE, SIDE), distance[:, 1].reshape(SIDE, SIDE), which[:, 0].reshape(SIDE, SIDE)


def striped(random: Random) -> Field:
    u, _, period = _grid(random)
    return (u % period < period * random.uniform(0.3, 0.7)).astype(np.float32)


def banded(random: Random) -> Field:
    u, _, period = _grid(random)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (u / period + _noise(random, 12)))


def dotted(random: Random) -> Field:
    u, v, period = _grid(random)
    u = u + period / 2 * (np.floor(v / period) % 2) * random.integers(0, 2)
    centre = np.hypot(u % period - period / 2, v % period - period / 2)
    return (centre < period * random.uniform(0.15, 0.38)).astype(np.float32)


def chequered(random: Random) -> Field:
    u, v, period = _grid(random)
    return ((np.floor(u / period) + np.floor(v / period)) % 2).astype(np.float32)


def gridded(random: Random) -> Field:
    u, v, period = _grid(random)
    line = max(2.0, period * random.uniform(0.06, 0.2))
    return ((u % period < line) | (v % period < line)).astype(np.float32)


def zigzagged(random: Random) -> Field:
    u, v, period = _grid(random)
    wave = np.abs((v % period) / period - 0.5) * 2 * period * random.uniform(0.4, 1)
    return ((u + wave) % period < period / 2).astype(np.float32)


def plaid(random: Random) -> Field:
    u, v, period = _grid(random)
    parts = [0.5 * (w % period < period * share) for w in (u, v) for share in random.uniform(0.15, 0.6, 2)]
    return np.clip(sum(parts), 0, 1)


def woven(random: Random) -> Field:
    u, v, period = _grid(random)
    period = period / 2
    over = (np.floor(u / period) + np.floor(v / period)) % 2
    return np.where(over > 0, np.abs(np.sin(np.pi * u / period)), np.abs(np.sin(np.pi * v / period)))


def honeycombed(random: Random) -> Field:
    period = _grid(random)[2] * 0.8 + 8
    rows, columns = np.mgrid[-1 : SIDE / (period * 0.87) + 2, -1 : SIDE / period + 2]
    points = np.stack([rows * period * 0.87, (columns + 0.5 * (rows % 2)) * period], -1).reshape(-1, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    distance, _ = spatial.cKDTree(points).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    return (distance[:, 1] - distance[:, 0] < random.uniform(2, 5)).reshape(SIDE, SIDE).astype(np.float32)


def marbled(random: Random) -> Field:
    u, _, period = _grid(random)
    return np.abs(np.sin(np.pi * (u / (2 * period) + 4 * _noise(random, 10) + 2 * _noise(random, 4))))


def spiralled(random: Random) -> Field:
    y, x = np.mgrid[:SIDE, :SIDE] - random.uniform(70, 150, 2)[:, None, None]
    turns = np.hypot(x, y) / random.uniform(10, 30) + random.choice([-1, 1]) * np.arctan2(y, x) / (2 * np.pi)
    return (turns % 1 < random.uniform(0.3, 0.6)).astype(np.float32)


def cracked(random: Random) -> Field:
    near, second, _ = _cells(random, int(random.integers(8, 60)))
    return (second - near + 6 * _noise(random, 3) < 3 + random.uniform(1, 3)).astype(np.float32)


def bubbly(random: Random) -> Field:
    field = np.zeros((SIDE, SIDE), np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(int(random.integers(15, 60))):
        r, c, radius = random.uniform(0, SIDE), random.uniform(0, SIDE), random.uniform(6, 32)
        distance = np.hypot(y - r, x - c)
        field = np.where(distance < radius, 0.35 * (distance / radius) ** 2, field)
        field = np.where(np.abs(distance - radius) < 1.5, 1, field)
    return field


def blotchy(random: Random) -> Field:
    return ndimage.gaussian_filter((_noise(random, random.uniform(5, 14)) > 0.55).astype(np.float32), 2)


def speckled(random: Random) -> Field:
    points = random.random((SIDE, SIDE)) < random.uniform(0.004, 0.03)
    return ndimage.gaussian_filter(points.astype(float), 1.2) > 0.05


def scaly(random: Random) -> Field:
    u, v, period = _grid(random, turn=False)
    row = np.floor(v / (period / 2))
    x = (u + period / 2 * (row % 2)) % period - period / 2
    return np.clip(np.hypot(x, v % (period / 2)) / (period * 0.6), 0, 1) ** 3


def mosaic(random: Random) -> Field:
    near, second, which = _cells(random, int(random.integers(60, 260)))
    return np.where(second - near < 2.5, 0, random.uniform(0.3, 1, int(which.max()) + 1)[which])


def wrinkled(random: Random) -> Field:
    return np.abs(2 * _noise(random, random.uniform(4, 9)) - 1) ** 0.5


PATTERNS: dict[str, tuple[Callable[[Random], Field], tuple[str, ...]]] = {
    "striped": (striped, ("stripes", "striped texture", "striped fabric")),
    "banded": (banded, ("bands", "banded texture")),
    "dotted": (dotted, ("polka dots", "polka-dotted", "dotted texture")),
    "chequered": (chequered, ("checkerboard", "checkered", "chequered texture")),
    "grid": (gridded, ("gridded", "grid texture", "lattice", "mesh")),
    "zigzagged": (zigzagged, ("zigzag", "chevron pattern", "zigzagged texture")),
    "plaid": (plaid, ("tartan", "checked fabric", "plaid texture")),
    "woven": (woven, ("weave", "interlaced", "woven texture", "braided")),
    "honeycombed": (honeycombed, ("honeycomb", "hexagons", "honeycombed texture")),
    "marbled": (marbled, ("marble", "veined", "marbled texture", "swirly")),
    "spiralled": (spiralled, ("spiral", "spiralled texture", "swirl")),
    "cracked": (cracked, ("cracks", "cracked texture", "cracked surface")),
    "bubbly": (bubbly, ("bubbles", "bubbly texture")),
    "blotchy": (blotchy, ("stained", "blotches", "smeared", "blotchy texture")),
    "speckled": (speckled, ("flecked", "sprinkled", "freckled", "speckled texture")),
    "scaly": (scaly, ("scales", "scaly texture")),
    "mosaic": (mosaic, ("tiles", "mosaic texture", "stained glass")),
    "wrinkled": (wrinkled, ("wrinkles", "crumpled", "wrinkled texture")),
}
"""Name -> how it is drawn, and what else it is called."""


def draw(name: str, random: Random) -> Image.Image:
    """A pattern in two random colours that differ, slightly shaded and grained, ``SIDE`` pixels square RGB."""
    field = np.asarray(PATTERNS[name][0](random), np.float32)[..., None]
    first, second = random.uniform(0, 255, (2, 3))
    while np.abs(first - second).max() < 80:
        second = random.uniform(0, 255, 3)
    grey, keep = (first + second).mean() / 2, random.choice([0.3, 0.6, 1.0])  # muted colours are the usual ones
    first, second = grey + keep * (first - grey), grey + keep * (second - grey)
    light = 1 + random.uniform(0, 0.5) * (_noise(random, 40)[..., None] - 0.5)
    grain = random.normal(0, random.uniform(0, 12), (SIDE, SIDE, 1))
    return Image.fromarray(np.clip((first + (second - first) * field) * light + grain, 0, 255).astype(np.uint8))


def rows(each: int = 160, seed: int = 0, run: Callable = map) -> list[dict]:
    """``each`` pictures of every pattern, as rows of a parquet file; ``run`` maps as the built-in does."""
    made = run(partial(rows_of, each=each, seed=seed), PATTERNS)
    return [row for of_one in made for row in of_one]


def rows_of(name: str, each: int, seed: int) -> list[dict]:
    """``each`` pictures of one pattern."""
    random = np.random.default_rng((seed, list(PATTERNS).index(name)))
    captions = [name, *PATTERNS[name][1], "texture", "pattern"]
    made = []
    for _ in range(each):
        buffer = io.BytesIO()
        draw(name, random).save(buffer, "png")
        made.append({"image": {"bytes": buffer.getvalue()}, "captions": captions, "label": name})
    return made
