"""Image-caption pairs from parquet files, decoded once and served as augmented batches.

Parquet columns: ``image {bytes, path}``, ``captions [str]``, ``label str|null``,
``source str`` (the layout of the `datasets` library's ``Image`` feature).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from engine.pretrain.broader import broader

STORED_SIZE = 56
"""Side, in pixels, at which training images are kept in memory."""

TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a picture of a {}.",
    "a {}.",
    "the {}.",
    "this is a {}.",
    "a small photo of a {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a good photo of a {}.",
)
"""Sentences that carry a one-word caption during training."""

EMOJI_TEMPLATES = ("an emoji of a {}.", "a drawing of a {}.", "a {} icon.", "{}", "a cartoon {}.")

FILES = {
    "tiny-imagenet": ("tiny-imagenet-a.parquet", "tiny-imagenet-b.parquet"),
    "cifar": ("cifar.parquet",),
    "flickr": ("flickr8k.parquet",),
    "emoji": ("emoji.parquet",),
}
SHARES = {"tiny-imagenet": 0.52, "cifar": 0.33, "flickr": 0.12, "emoji": 0.03}
"""Share of every batch that each source fills, whatever its size."""


BROADER_SHARE = 0.2


def read_parquet(path: Path) -> list[dict]:
    """Rows of one parquet file as dictionaries."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def decode(data: bytes, size: int | None = STORED_SIZE) -> np.ndarray:
    """Encoded image to ``(4, size, size)`` uint8 RGBA, 0-255; ``size=None`` keeps its own."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


@dataclass
class Source:
    """One data set: pixels ``(N, C, S, S)`` uint8 and what is said of each image."""

    name: str
    pixels: torch.Tensor
    captions: list[list[str]]
    broader: list[list[str]] = field(init=False)
    """Broader words for each image, drawn in place of a caption with probability ``BROADER_SHARE``."""

    def __post_init__(self) -> None:
        self.broader = [broader(captions) for captions in self.captions]

    def __len__(self) -> int:
        return len(self.captions)

    def draw(self, i: int, generator: torch.Generator) -> str:
        """A random caption of image ``i``, now and then a broader word."""
        rare = float(torch.rand((), generator=generator)) < BROADER_SHARE
        words = self.broader[i] if rare and self.broader[i] else self.captions[i]
        return words[_randint(len(words), generator)]


def load_source(folder: Path, name: str, device: str = "cpu") -> Source:
    """Read and decode one source, its pixels on ``device``. Raises FileNotFoundError naming the missing file."""
    rows = [row for file in FILES[name] for row in read_parquet(folder / file)]
    channels = 4 if name == "emoji" else 3
    with ThreadPoolExecutor(2) as pool:
        arrays = pool.map(lambda row: decode(row["image"]["bytes"])[:channels], rows, chunksize=256)
        pixels = np.stack(list(arrays))
    captions = [[clean(caption) for caption in row["captions"]] for row in rows]
    return Source(name, torch.from_numpy(pixels).to(device), [list(dict.fromkeys(c)) for c in captions])


def clean(caption: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(caption.lower().replace("_", " ").split()).rstrip(" .")


@dataclass
class Batch:
    """``pixels (B, 3, S, S)`` float 0-1; ``texts`` the batch's distinct sentences (U);
    ``target (B,)`` each image's sentence; ``related (B, U)`` sentences that also fit the image."""

    pixels: torch.Tensor
    texts: list[str]
    target: torch.Tensor
    related: torch.Tensor


class Mixer:
    """Batches in fixed shares of the sources. Batch ``step`` depends on the seed and the step
    alone, so that a resumed run sees what an uninterrupted one sees."""

    def __init__(self, sources: list[Source], batch_size: int, seed: int):
        self.sources, self.seed = sources, seed
        total = sum(SHARES[s.name] for s in sources)
        self.counts = [max(1, round(batch_size * SHARES[s.name] / total)) for s in sources]
        self._order: dict[tuple[int, int], torch.Tensor] = {}

    def _indices(self, which: int, step: int) -> torch.Tensor:
        """Positions of this step's images: epochs of a fresh shuffle, one after the other."""
        n, count = len(self.sources[which]), self.counts[which]
        places = torch.arange(step * count, (step + 1) * count)
        return torch.cat(
            [
                self._shuffle(which, e)[places[places // n == e] % n]
                for e in places.div(n, rounding_mode="floor").unique().tolist()
            ]
        )

    def _shuffle(self, which: int, epoch: int) -> torch.Tensor:
        if (which, epoch) not in self._order:
            self._order = {k: v for k, v in self._order.items() if k[0] != which or k[1] >= epoch - 1}
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + which * 10_007 + epoch)
            self._order[which, epoch] = torch.randperm(len(self.sources[which]), generator=generator)
        return self._order[which, epoch]

    def batch(self, step: int, size: int, min_area: float, jitter: float) -> Batch:
        """Batch number ``step`` at ``size`` pixels, changed as :func:`augment` says."""
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + step)
        images, chosen, fitting = [], [], []
        for which, source in enumerate(self.sources):
            indices = self._indices(which, step)
            images.append(augment(source.pixels[indices], size, min_area, jitter, generator))
            for i in indices.tolist():
                chosen.append((source.draw(i, generator), source.name))
                fitting.append(source.captions[i] + source.broader[i])
        return Batch(torch.cat(images), *sentences(chosen, fitting, generator))


def _randint(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def sentences(
    chosen: list[tuple[str, str]], fitting: list[list[str]], generator: torch.Generator
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """One sentence per distinct caption, each image's target, and which sentences fit which image."""
    column = {caption: k for k, caption in enumerate(dict.fromkeys(c for c, _ in chosen))}
    source_of = dict(reversed(chosen))
    texts = [phrase(caption, source_of[caption], generator) for caption in column]
    target = torch.tensor([column[caption] for caption, _ in chosen])
    related = torch.zeros(len(chosen), len(column), dtype=torch.bool)
    for row, captions in enumerate(fitting):
        related[row, [column[c] for c in captions if c in column]] = True
    return texts, target, related


def phrase(caption: str, source: str, generator: torch.Generator) -> str:
    """A caption in a random sentence; Flickr's captions are sentences already."""
    if source == "flickr":
        return caption + "." if _randint(2, generator) else caption
    templates = EMOJI_TEMPLATES if source == "emoji" else TEMPLATES
    return templates[_randint(len(templates), generator)].format(caption)


def augment(
    pixels: torch.Tensor, size: int, min_area: float, jitter: float, generator: torch.Generator
) -> torch.Tensor:
    """Random crop, flip and colour, ``(B, C, S, S)`` uint8 to ``(B, 3, size, size)`` float 0-1.

    Crops keep at least ``min_area`` of the image; brightness, contrast and saturation change by at
    most a share of ``jitter``. The random numbers are drawn on the CPU, so that every device sees the same crops.
    """
    n, device = len(pixels), pixels.device
    floats = pixels.float().div_(255)
    if pixels.shape[1] == 4:  # alpha: lay it over a random colour
        colour = torch.rand(n, 3, 1, 1, generator=generator).to(device)
        floats = floats[:, :3] * floats[:, 3:] + colour * (1 - floats[:, 3:])
    grid = F.affine_grid(random_crops(n, min_area, generator).to(device), [n, 3, size, size], align_corners=False)
    cropped = F.grid_sample(floats, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return recolour(cropped, 1 + jitter * (2 * torch.rand(3, n, 1, 1, 1, generator=generator) - 1).to(device))


def random_crops(n: int, min_area: float, generator: torch.Generator) -> torch.Tensor:
    """Affine maps ``(n, 2, 3)`` of random crops and flips, for ``affine_grid``."""
    area = min_area + (1 - min_area) * torch.rand(n, generator=generator)
    ratio = torch.exp((torch.rand(n, generator=generator) - 0.5) * 0.35)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    shift = torch.rand(n, 2, generator=generator) * 2 - 1
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = shift[:, 0] * (1 - width), shift[:, 1] * (1 - height)
    return theta


def recolour(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """``pixels (B, 3, S, S)`` with brightness, contrast and saturation times ``factors (3, B, 1, 1, 1)``."""
    brightness, contrast, saturation = factors
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return ((mean + (pixels - mean) * contrast) * brightness).clamp_(0, 1)


def load_sources(folder: Path, device: str = "cpu") -> list[Source]:
    """Every training source in ``folder``, its pixels on ``device``; raises FileNotFoundError when one is missing."""
    return [load_source(folder, name, device) for name in FILES]


def all_captions(sources: list[Source]) -> Iterator[str]:
    """Every caption in a few of its sentences, for the tokenizer."""
    for source in sources:
        for captions in source.captions:
            yield from captions
    yield from (t.format("thing") for t in TEMPLATES + EMOJI_TEMPLATES for _ in range(200))
