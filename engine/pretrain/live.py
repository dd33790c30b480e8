"""Pictures on a device, and crops of them that are cut, coloured and redrawn there.

It does what :mod:`engine.pretrain.corpus` does to one picture at a time, with new random numbers each time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from engine.pretrain.corpus import SIDE, Source, opaque

LONGEST = 1.5
"""Longer side of a kept picture over its shorter one; the rest is cut off evenly."""
STRETCH = 0.14
"""Logarithm of a crop's greatest aspect ratio, halved: sides from 3:4 to 4:3."""
BLURS = (3.0, 5.0, 8.0)
"""Standard deviations in pixels of a sketch's blur: few, since a GPU plans each size of kernel anew."""
GREY = torch.tensor([0.299, 0.587, 0.114])


def decode(encoded: Sequence[bytes], alpha: bool = False) -> list[np.ndarray]:
    """Encoded pictures to arrays ``(C, h, w)`` uint8, the shorter side at most ``SIDE``; C is 4 with ``alpha``."""
    return [np.ascontiguousarray(np.asarray(_decode(data, alpha)).transpose(2, 0, 1)) for data in encoded]


def _decode(data: bytes, alpha: bool) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGBA") if alpha else opaque(data)
    short = min(image.size)
    width, height = (min(side, int(LONGEST * short)) for side in image.size)
    scale = min(1.0, SIDE / short)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image if size == image.size else ImageOps.fit(image, size, Image.Resampling.BICUBIC)


@dataclass
class Store:
    """The pictures of one source, each in the upper left corner of a canvas."""

    source: Source
    pixels: Tensor
    """``(N, C, H, W)`` uint8."""
    sizes: Tensor
    """``(N, 2)`` width and height in pixels, fp32."""

    @classmethod
    def of(cls, source: Source, pictures: Sequence[np.ndarray], device: str) -> Store:
        """Return a store of arrays ``(C, h, w)`` uint8 of several sizes."""
        height, width = (max(p.shape[axis] for p in pictures) for axis in (1, 2))
        canvas = np.zeros((len(pictures), pictures[0].shape[0], height, width), np.uint8)
        for k, picture in enumerate(pictures):
            canvas[k, :, : picture.shape[1], : picture.shape[2]] = picture
        sizes = torch.tensor([[p.shape[2], p.shape[1]] for p in pictures], dtype=torch.float32)
        return cls(source, torch.from_numpy(canvas).to(device), sizes.to(device))

    def cut(self, numbers: Tensor) -> Tensor:
        """Return new crops of the numbers ``c * N + i``, ``(n, 3, SIDE, SIDE)`` fp32 from 0 to 255.

        Number 0 of a photograph is its plain middle; the source says which numbers are redrawn.
        """
        crop = numbers.div(len(self.sizes), rounding_mode="floor").to(self.sizes.device)
        which = (numbers % len(self.sizes)).to(self.sizes.device)
        plain = (crop == 0) & (self.source.crops > 1) & (self.source.name != "emoji")
        pixels = over_colours(self.pixels[which].float())
        pixels = resample(pixels, boxes(self.sizes[which], self.source.area, plain))
        drawn = torch.isin(crop, torch.tensor(self.source.drawn, device=crop.device, dtype=crop.dtype))
        coloured = jitter(pixels)
        kept = torch.where((plain | drawn)[:, None, None, None], pixels, coloured)
        if not self.source.drawn:
            return kept
        return torch.where(drawn[:, None, None, None], redraw(pixels), kept)


def over_colours(pixels: Tensor) -> Tensor:
    """Lay RGBA pictures ``(n, 4, H, W)`` on a random colour each; RGB ones stay."""
    if pixels.shape[1] == 3:
        return pixels
    colour = 255 * torch.rand(len(pixels), 3, 1, 1, device=pixels.device)
    share = pixels[:, 3:] / 255
    return share * pixels[:, :3] + (1 - share) * colour


def boxes(sizes: Tensor, area: float, plain: Tensor) -> Tensor:
    """Return a random box in each picture of ``sizes (n, 2)``, XYXY in pixels, of at least ``area`` of the square that
    it holds; the middle square where ``plain (n,)``."""
    n, device = len(sizes), sizes.device
    short = sizes.amin(1)
    side = short * (area + (1 - area) * torch.rand(n, device=device)).sqrt()
    stretch = (STRETCH * (2 * torch.rand(n, device=device) - 1)).exp()
    extent = torch.stack([side * stretch, side / stretch], 1).minimum(sizes)
    extent = torch.where(plain[:, None], short[:, None].expand(n, 2), extent)
    where = torch.where(plain[:, None], 0.5, torch.rand(n, 2, device=device))
    corner = where * (sizes - extent)
    return torch.cat([corner, corner + extent], 1)


def resample(pixels: Tensor, box: Tensor) -> Tensor:
    """Return the boxes ``(n, 4)`` of pictures ``(n, C, H, W)``, bicubically, ``(n, C, SIDE, SIDE)``."""
    size = torch.tensor([pixels.shape[3], pixels.shape[2]], device=pixels.device)
    low, high = 2 * box[:, :2] / size - 1, 2 * box[:, 2:] / size - 1
    theta = torch.zeros(len(box), 2, 3, device=pixels.device)
    theta[:, 0, 0], theta[:, 1, 1] = ((high - low) / 2).unbind(1)
    theta[:, :, 2] = (high + low) / 2
    grid = F.affine_grid(theta, [len(box), pixels.shape[1], SIDE, SIDE], align_corners=False)
    found = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return found.clamp(0, 255)


def jitter(pixels: Tensor) -> Tensor:
    """Change brightness, contrast and colour by random factors from 0.7 to 1.3, as Pillow's ``ImageEnhance`` does."""
    brightness, contrast, colour = 0.7 + 0.6 * torch.rand(3, len(pixels), 1, 1, 1, device=pixels.device)
    pixels = (pixels * brightness).clamp(0, 255)
    mean = grey(pixels).mean((1, 2, 3), keepdim=True)
    pixels = (mean + contrast * (pixels - mean)).clamp(0, 255)
    flat = grey(pixels)
    return (flat + colour * (pixels - flat)).clamp(0, 255)


def grey(pixels: Tensor) -> Tensor:
    """Return the brightness ``(n, 1, H, W)`` of RGB pixels."""
    return (pixels * GREY.to(pixels.device)[:, None, None]).sum(1, keepdim=True)


def redraw(pixels: Tensor) -> Tensor:
    """Photographs as pencil sketches (their grey divided by its blurred grey) or flat cartoons, half of each."""
    flat = grey(pixels)
    sigma = BLURS[int(torch.randint(len(BLURS), (1,)))]
    sketch = (255 * flat / blur(flat, sigma).clamp(min=1)).clamp(0, 255)
    sketch = (sketch * sketch / 255).expand(-1, 3, -1, -1)
    levels = 2.0 ** int(torch.randint(2, 4, (1,)))
    steps = (blur(pixels, 1.5) / 256 * levels).floor() * (256 / levels)
    base = grey(steps)
    cartoon = (base + 1.6 * (steps - base)).clamp(0, 255)
    return torch.where(torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5, cartoon, sketch)


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``(n, C, H, W)``, edges repeated; ``sigma`` in pixels."""
    reach = round(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / sigma) ** 2)
    line = line / line.sum()
    flat = pixels.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), line[None, None, None, :])
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), line[None, None, :, None])
    return flat.view_as(pixels)
