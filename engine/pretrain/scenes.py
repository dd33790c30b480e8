"""Pictures with known regions, made anew for every batch: photographs with masks, and objects pasted on photographs.

``masks.parquet`` has ``image {bytes, path}``, ``mask {bytes, path}`` (PNG, pixel = region id, 0 = none)
and ``source``; ``emoji.parquet`` holds RGBA pictures whose alpha is the mask; ``flickr8k-224.parquet`` gives
further backgrounds. Every tenth row of each source is held out and never drawn from.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from engine.pretrain.corpus import read_parquet

CANVAS = 320
"""Side in pixels at which photographs are kept; they lie in its upper left corner."""
CUTOUT = 128
"""Side in pixels at which objects to paste are kept, with alpha."""
HELD_OUT = 10
"""One row in so many of each source is for measuring only."""
PASTED = 200
"""Ids from here on are pasted objects."""
WHOLE = 199
"""Id that stands for all annotated parts of a dressed person together."""
PARTS_SOURCE = "clothing-co-parsing"
PHOTO_SHARES = {"clothing-co-parsing": 0.35, "oxford-pets": 0.35, "coco": 0.3}


def decode(data: bytes, size: int | None) -> np.ndarray:
    """Encoded picture to ``(4, H, W)`` uint8 RGBA, 0-255, squashed to a square of side ``size`` if given."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


@dataclass(frozen=True)
class Photo:
    """One annotated photograph: ``pixels (3, H, W)`` and ``ids (H, W)``, both uint8."""

    pixels: np.ndarray
    ids: np.ndarray
    source: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.ids.shape[0], self.ids.shape[1]


@dataclass
class Batch:
    """``pixels (B, 3, S, S)`` float 0-255, ``inside (B, 1, S, S)`` True where not padding,
    ``masks (B, N, S, S)`` bool: N regions of each picture, empty ones where it has none."""

    pixels: torch.Tensor
    inside: torch.Tensor
    masks: torch.Tensor


def held_out(index: int) -> bool:
    """Whether a row of a source (its place among the rows of that source) is for measuring only."""
    return index % HELD_OUT == HELD_OUT - 1


def read_photos(folder: Path) -> tuple[list[Photo], list[Photo]]:
    """Annotated photographs of ``masks.parquet``: to train on, held out."""
    parts: tuple[list[Photo], list[Photo]] = ([], [])
    seen: dict[str, int] = {}
    for row in read_parquet(folder / "masks.parquet"):
        index = seen.get(row["source"], 0)
        seen[row["source"]] = index + 1
        pixels = decode(row["image"]["bytes"], None)[:3]
        data = row["mask"]["bytes"] if isinstance(row["mask"], dict) else row["mask"]
        ids = np.asarray(Image.open(io.BytesIO(data)))
        parts[held_out(index)].append(Photo(np.ascontiguousarray(pixels), ids.astype(np.uint8), row["source"]))
    return parts


def read_emoji(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Emoji ``(4, H, W)`` uint8 RGBA: to train on, held out."""
    pictures = [decode(row["image"]["bytes"], None) for row in read_parquet(folder / "emoji.parquet")]
    return (
        [picture for i, picture in enumerate(pictures) if not held_out(i)],
        [picture for i, picture in enumerate(pictures) if held_out(i)],
    )


def read_backgrounds(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Square photographs without masks ``(N, 3, S, S)`` uint8: to train on, held out."""
    rows = read_parquet(folder / "flickr8k-224.parquet")
    pixels = torch.from_numpy(np.stack([decode(row["image"]["bytes"], 96)[:3] for row in rows]))
    apart = torch.tensor([held_out(i) for i in range(len(rows))])
    return pixels[~apart], pixels[apart]


def cut_out(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An object with its alpha, ``(4, CUTOUT, CUTOUT)`` uint8, filling the square's longer side."""
    ys, xs = np.nonzero(mask)
    box = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
    rgba = np.concatenate([pixels[:, box[0], box[1]], mask[None, box[0], box[1]] * np.uint8(255)])
    return fit(rgba)


def fit(rgba: np.ndarray) -> np.ndarray:
    """An RGBA picture ``(4, H, W)`` in the middle of a transparent square of side ``CUTOUT``."""
    image = Image.fromarray(rgba.transpose(1, 2, 0), "RGBA")
    scale = CUTOUT / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGBA", (CUTOUT, CUTOUT))
    square.paste(image.resize(size, Image.Resampling.BICUBIC), ((CUTOUT - size[0]) // 2, (CUTOUT - size[1]) // 2))
    return np.asarray(square).transpose(2, 0, 1)


def collect_cutouts(photos: list[Photo], emoji: list[np.ndarray], min_share: float = 0.03) -> list[np.ndarray]:
    """Everything that can be pasted: emoji, pets, people and objects that fill enough of their photograph."""
    cutouts = [fit(picture) for picture in emoji]
    for photo in photos:
        whole = photo.source == PARTS_SOURCE  # a person, not each garment
        masks = [photo.ids > 0] if whole else [photo.ids == i for i in np.unique(photo.ids) if i]
        cutouts += [cut_out(photo.pixels, mask) for mask in masks if mask.mean() >= min_share]
    return cutouts


class Studio:
    """Makes batches: crops, flips, turns and recolours photographs and pastes objects on them.

    ``size`` is the side of a picture in pixels, ``regions`` how many masks each picture comes with.
    """

    def __init__(self, folder: Path, size: int, batch_size: int, regions: int, seed: int, device: str = "cpu"):
        photos, _ = read_photos(folder)
        emoji, _ = read_emoji(folder)
        self.backgrounds, _ = read_backgrounds(folder)
        self.photos = photos
        self.by_source = {
            name: [i for i, photo in enumerate(photos) if photo.source == name]
            for name in PHOTO_SHARES
            if any(photo.source == name for photo in photos)
        }
        self.cutouts = torch.from_numpy(np.stack(collect_cutouts(photos, emoji)))
        self.size, self.batch_size, self.regions, self.seed, self.device = size, batch_size, regions, seed, device

    def batch(self, step: int) -> Batch:
        """The batch of one step; the same step and seed give the same batch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        made = [self._scene(generator) for _ in range(self.batch_size)]
        pixels, ids = (torch.stack(list(part)) for part in zip(*[(p, i) for p, i, _, _ in made], strict=True))
        pixels, ids, inside = self._place(pixels, ids, made, generator)
        pixels, ids = self._paste(pixels, ids, [paste for _, _, _, paste in made], generator)
        pixels = recolour(pixels, generator)
        masks = torch.stack([self._choose(ids[b] * inside[b, 0], generator) for b in range(len(ids))])
        return Batch(pixels.to(self.device), inside.to(self.device), masks.to(self.device))

    def _scene(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], int]:
        """Canvas, ids, size and how many objects to paste."""
        canvas = torch.zeros(3, CANVAS, CANVAS, dtype=torch.uint8)
        ids = torch.zeros(CANVAS, CANVAS, dtype=torch.uint8)
        if uniform(generator) < 0.35:
            k = integer(len(self.backgrounds), generator)
            big = F.interpolate(self.backgrounds[k][None].float(), size=(CANVAS, CANVAS), mode="bilinear")
            return big[0].round().to(torch.uint8), ids, (CANVAS, CANVAS), 2 + integer(4, generator)
        names = list(self.by_source)
        weights = torch.tensor([PHOTO_SHARES[name] for name in names])
        rows = self.by_source[names[int(torch.multinomial(weights, 1, generator=generator))]]
        photo = self.photos[rows[integer(len(rows), generator)]]
        height, width = photo.size
        canvas[:, :height, :width] = torch.from_numpy(photo.pixels)
        ids[:height, :width] = torch.from_numpy(photo.ids)
        if photo.source == PARTS_SOURCE and uniform(generator) < 0.25:
            ids = (ids > 0).to(torch.uint8) * WHOLE
        pasted = integer(3, generator) if uniform(generator) < 0.4 else 0
        return canvas, ids, photo.size, pasted

    def _place(
        self, pixels: torch.Tensor, ids: torch.Tensor, made: list, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A random crop of each canvas, flipped half of the time, in the upper left of the square."""
        grids, insides = [], []
        for _, _, (height, width), _ in made:
            area = 0.25 + 0.75 * uniform(generator)
            ratio = math.exp((uniform(generator) - 0.5) * 0.6)
            crop_h = min(height, height * math.sqrt(area * ratio))
            crop_w = min(width, width * math.sqrt(area / ratio))
            top, left = uniform(generator) * (height - crop_h), uniform(generator) * (width - crop_w)
            scale = self.size / max(crop_h, crop_w)
            out_h, out_w = max(1, round(crop_h * scale)), max(1, round(crop_w * scale))
            y = (torch.arange(self.size) + 0.5) / out_h * crop_h + top
            x = (torch.arange(self.size) + 0.5) / out_w * crop_w + left
            if uniform(generator) < 0.5:
                x = 2 * left + crop_w - x
            grid = torch.stack(torch.meshgrid(x / CANVAS * 2 - 1, y / CANVAS * 2 - 1, indexing="xy"), -1)
            inside = torch.zeros(1, self.size, self.size, dtype=torch.bool)
            inside[:, :out_h, :out_w] = True
            grids.append(grid)
            insides.append(inside)
        grid, inside = torch.stack(grids), torch.stack(insides)
        image = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        placed = F.grid_sample(ids[:, None].float(), grid, mode="nearest", align_corners=False)
        return image, placed[:, 0].to(torch.uint8), inside

    def _paste(
        self, pixels: torch.Tensor, ids: torch.Tensor, counts: list[int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Objects at random places, sizes and angles; later ones hide earlier ones."""
        for k in range(max(counts)):
            rows = torch.tensor([b for b, count in enumerate(counts) if count > k])
            which = torch.randint(len(self.cutouts), (len(rows),), generator=generator)
            theta = torch.stack([random_pose(generator) for _ in rows])
            grid = F.affine_grid(theta, [len(rows), 4, self.size, self.size], align_corners=False)
            layer = F.grid_sample(self.cutouts[which].float(), grid, mode="bilinear", align_corners=False)
            alpha = layer[:, 3:] / 255  # (R, 1, S, S)
            pixels[rows] = pixels[rows] * (1 - alpha) + layer[:, :3] * alpha
            ids[rows] = torch.where(alpha[:, 0] > 0.5, PASTED + k, ids[rows].int()).to(torch.uint8)
        return pixels, ids

    def _choose(self, ids: torch.Tensor, generator: torch.Generator, min_share: float = 0.001) -> torch.Tensor:
        """Masks ``(N, S, S)`` of N regions of one picture, drawn from those that are large enough; else empty ones."""
        counts = torch.bincount(ids.flatten().int(), minlength=256)
        counts[0] = 0
        large = (counts >= min_share * ids.numel()).nonzero().flatten()
        if not len(large):
            return torch.zeros(self.regions, *ids.shape, dtype=torch.bool)
        order = torch.cat([torch.randperm(len(large), generator=generator) for _ in range(self.regions)])
        return ids == large[order[: self.regions]][:, None, None].to(torch.uint8)


def uniform(generator: torch.Generator) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), generator=generator))


def integer(below: int, generator: torch.Generator) -> int:
    """A whole number in [0, below)."""
    return int(torch.randint(below, (), generator=generator))


def random_pose(generator: torch.Generator) -> torch.Tensor:
    """Affine matrix ``(2, 3)`` from the picture to an object: its size (12 to 80 % of the picture), angle, place."""
    scale = 0.12 * math.exp(uniform(generator) * math.log(0.8 / 0.12))
    angle = math.radians(60 * (uniform(generator) - 0.5))
    flip = -1.0 if uniform(generator) < 0.5 else 1.0
    x, y = (1.7 * (uniform(generator) - 0.5) for _ in range(2))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    turn = torch.tensor([[flip * cos, flip * sin], [-sin, cos]])
    return torch.cat([turn, -turn @ torch.tensor([[x], [y]])], dim=1)


def recolour(pixels: torch.Tensor, generator: torch.Generator, strength: float = 0.3) -> torch.Tensor:
    """Brightness, contrast and saturation changed by up to ``strength``; one picture in ten grey."""
    B = len(pixels)
    factors = 1 + strength * (2 * torch.rand(3, B, 1, 1, 1, generator=generator) - 1)
    factors[2][torch.rand(B, generator=generator) < 0.1] = 0
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * factors[2]
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (mean * factors[0] + (pixels - mean) * factors[1]).clamp(0, 255)
