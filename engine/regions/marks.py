"""Set-of-Mark (Yang et al., arXiv 2310.11441): numbers or letters drawn on the regions of an image.

As in the paper, each mark stands where its region is widest, small regions choose first, and the
pixels of smaller regions are not used by larger ones. Here no two labels ever overlap: a label that finds no
room inside its region stands beside it, and where there is none either, it is left out and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import measure

from engine.errors import BadConfig, messages
from engine.regions.types import Region

PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Colours that people with any kind of colour vision can tell apart (Okabe and Ito, "Color Universal Design", 2008),
without black, which is an outline here."""
MARKS = ("numbers", "letters")
GRID = 512
"""Longest side in pixels of the grid on which places for labels are looked for."""
LEAST_FONT = 11
"""Pixels."""

messages(
    marks_kind="There are no marks called {name!r}. Choose one of: {known}.",
    marks_alpha="Alpha is {value:g}, but must be between 0 (nothing) and 1 (opaque).",
)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""


@dataclass(frozen=True)
class Style:
    """What is drawn on each region."""

    marks: str = "numbers"
    """``numbers`` or ``letters``."""
    alpha: float = 0.4
    """Of the mask layer, 0 to 1."""
    mask: bool = True
    contour: bool = True
    box: bool = False
    number: bool = True

    def __post_init__(self) -> None:
        if self.marks not in MARKS:
            raise BadConfig("marks_kind", name=self.marks, known=", ".join(MARKS))
        if not 0 <= self.alpha <= 1:
            raise BadConfig("marks_alpha", value=self.alpha)


@dataclass(frozen=True)
class Mark:
    """Where a region's mark stands, in pixels of the drawn image."""

    number: int
    text: str
    anchor: tuple[int, int]
    """A pixel of the region, x and y."""
    box: Box
    """The label."""


@dataclass(frozen=True)
class Overlay:
    """A drawn image."""

    image: Image.Image
    """RGB, of the size that was given."""
    marks: tuple[Mark, ...]
    """By number."""
    unplaced: tuple[int, ...]
    """Numbers of regions that had no room for a label."""


def draw(
    image: Image.Image, regions: Sequence[Region], style: Style | None = None, highlight: int | None = None
) -> Overlay:
    """Return the image with its regions marked.

    Args:
        image: RGB; the image of the regions, or the same made smaller or larger.
        regions: numbered.
        highlight: number of the region that stands out: its outline is white and thick, other masks are paler.
    """
    style = style or Style()
    by_size = sorted(regions, key=lambda region: (-region.area, region.number))
    plain = image.convert("RGB")
    drawn = _with_masks(plain, by_size, style.alpha, highlight) if style.mask else plain.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(1, round(max(image.size) / 400))
    for region in by_size:
        bright = region.number == highlight
        if style.contour or bright:
            for line in _contours(region, image.size):
                pen.line(line, fill=(0, 0, 0), width=(4 if bright else 2) * width + 1, joint="curve")
                pen.line(
                    line,
                    fill=(255, 255, 255) if bright else colour_of(region.number),
                    width=(2 if bright else 1) * width,
                )
        if style.box:
            box = _box(region, image.size)
            pen.rectangle(box, outline=(0, 0, 0), width=2 * width + 1)
            pen.rectangle(box, outline=colour_of(region.number), width=width + 1)
    marks, unplaced = place(regions, image.size, style.marks) if style.number else ((), ())
    for mark in marks:
        _label(pen, mark, image.size)
    return Overlay(drawn, marks, unplaced)


def text_of(number: int, marks: str = "numbers") -> str:
    """Return what a mark reads: the number, or A to Z, AA, AB and so on."""
    if marks == "numbers":
        return str(number)
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour of a region's number, RGB 0-255."""
    return PALETTE[(number - 1) % len(PALETTE)]


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ink_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is easier to read on a colour."""
    black, white = (0, 0, 0), (255, 255, 255)
    return black if contrast(black, colour) >= contrast(white, colour) else white


def place(
    regions: Sequence[Region], size: tuple[int, int], marks: str = "numbers"
) -> tuple[tuple[Mark, ...], tuple[int, ...]]:
    """Places for the labels of an image drawn at ``size`` (width, height), and the numbers that found none."""
    floor = _Floor(size)
    placed, unplaced = [], []
    for region in sorted(regions, key=lambda region: (region.area, region.number)):
        text = text_of(region.number, marks)
        found = floor.place(region, label_size(text, size))
        if found:
            placed.append(Mark(region.number, text, *found))
        else:
            unplaced.append(region.number)
    return tuple(sorted(placed, key=lambda mark: mark.number)), tuple(sorted(unplaced))


def font_size(size: tuple[int, int]) -> int:
    """Pixels of a label's font on an image of a size (width, height)."""
    return max(LEAST_FONT, round(max(size) / 42))


def label_size(text: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of a label in pixels, its padding included."""
    pixels = font_size(size)
    left, _, right, _ = ImageFont.load_default(pixels).getbbox(text)
    padding = max(2, pixels // 4)
    height = round(0.75 * pixels) + 2 * padding  # digits and capitals are about so high
    return max(height, round(right - left) + 2 * padding), height


class _Floor:
    """The grid on which labels are placed one after the other.

    Args:
        size: width and height of the drawn image; the grid is at most ``GRID`` on its longest side.
    """

    def __init__(self, size: tuple[int, int]):
        self.size, self.step = size, max(1.0, max(size) / GRID)
        self.grid = (max(1, round(size[0] / self.step)), max(1, round(size[1] / self.step)))
        # The image's pixel in the middle of each column and row of the grid.
        self.columns = ((np.arange(self.grid[0]) + 0.5) * size[0] / self.grid[0]).astype(int)
        self.rows = ((np.arange(self.grid[1]) + 0.5) * size[1] / self.grid[1]).astype(int)
        self.taken = np.zeros(self.grid[::-1], bool)  # pixels of the regions that came before
        self.labels: list[Box] = []

    def place(self, region: Region, label: tuple[int, int]) -> tuple[tuple[int, int], Box] | None:
        """Anchor and box of a label of some width and height; None where there is no room in or beside the region."""
        (left, top), part = region.part(self.grid)
        window = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
        free = part & ~self.taken[window]
        free = free if free.any() else part
        self.taken[window] |= part
        depth = ndimage.distance_transform_edt(np.pad(free, 1))[1:-1, 1:-1]  # the image's edge is an edge too
        inside = np.where(self._allowed(window, label), depth, 0)
        if inside.any():
            y, x = np.unravel_index(inside.argmax(), inside.shape)
            at = self._snapped(region, (left + int(x), top + int(y)), inside[y, x])
            return (at, box) if (box := self._take(at, label)) else None
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        anchor = self._snapped(region, (left + int(x), top + int(y)), depth[y, x])
        across, down = (round(length / self.step) + 1 for length in label)
        beside = (
            slice(max(0, top - down), min(self.grid[1], top + part.shape[0] + down)),
            slice(max(0, left - across), min(self.grid[0], left + part.shape[1] + across)),
        )
        rows, columns = np.nonzero(self._allowed(beside, label))
        if not len(rows):
            return None
        across_at, down_at = self.columns[columns + beside[1].start], self.rows[rows + beside[0].start]
        nearest = ((across_at - anchor[0]) ** 2 + (down_at - anchor[1]) ** 2).argmin()
        box = self._take((int(across_at[nearest]), int(down_at[nearest])), label)
        return (anchor, box) if box else None

    def _allowed(self, window: tuple[slice, slice], label: tuple[int, int]) -> np.ndarray:
        """Where in a window of the grid a label may have its centre: inside the image, off all others. bool."""
        x, y = self.columns[window[1]] - label[0] // 2, self.rows[window[0]] - label[1] // 2
        good = np.outer((y >= 0) & (y + label[1] <= self.size[1]), (x >= 0) & (x + label[0] <= self.size[0]))
        for left, top, right, bottom in self.labels:
            good &= ~np.outer((y < bottom) & (y + label[1] > top), (x < right) & (x + label[0] > left))
        return good

    def _snapped(self, region: Region, at: tuple[int, int], depth: float) -> tuple[int, int]:
        """The image's pixel of a place on the grid; the region's nearest one where the grid is too coarse to tell."""
        x, y = int(self.columns[at[0]]), int(self.rows[at[1]])
        if self.step == 1 or depth > 2:
            return x, y
        (left, top), part = region.part(self.size)
        rows, columns = np.nonzero(part)
        nearest = ((columns + left - x) ** 2 + (rows + top - y) ** 2).argmin()
        return int(columns[nearest]) + left, int(rows[nearest]) + top

    def _take(self, centre: tuple[int, int], label: tuple[int, int]) -> Box | None:
        """Put a label there; None where snapping has moved it into another one or out of the image."""
        left, top = centre[0] - label[0] // 2, centre[1] - label[1] // 2
        box = (left, top, left + label[0], top + label[1])
        outside = left < 0 or top < 0 or box[2] > self.size[0] or box[3] > self.size[1]
        if outside or any(box[0] < r and box[2] > l and box[1] < b and box[3] > t for l, t, r, b in self.labels):  # noqa: E741
            return None
        self.labels.append(box)
        return box


def _with_masks(image: Image.Image, by_size: Sequence[Region], alpha: float, highlight: int | None) -> Image.Image:
    """The image under the masks' colours; smaller regions lie on top of larger ones."""
    owner = np.zeros(image.size[::-1], np.uint16)  # 0: no region
    for position, region in enumerate(by_size, 1):
        (left, top), part = region.part(image.size)
        owner[top : top + part.shape[0], left : left + part.shape[1]][part] = position
    colours = np.array([(0, 0, 0), *(colour_of(region.number) for region in by_size)], np.uint8)
    strength = [0.0, *(alpha if highlight in (None, region.number) else alpha / 3 for region in by_size)]
    layer = Image.fromarray(colours[owner])
    return Image.composite(layer, image, Image.fromarray(np.round(255 * np.array(strength)).astype(np.uint8)[owner]))


def _contours(region: Region, size: tuple[int, int]) -> list[list[tuple[float, float]]]:
    """Outlines of a region as lines of (x, y) in an image of a size, found where the mask was made."""
    (left, top), part = region.part(region.runs_size)
    across, down = size[0] / region.runs_size[0], size[1] / region.runs_size[1]
    lines = measure.find_contours(np.pad(part, 1).astype(float), 0.5)
    return [[((x - 0.5 + left) * across, (y - 0.5 + top) * down) for y, x in line] for line in lines]


def _box(region: Region, size: tuple[int, int]) -> Box:
    """The region's box in an image of a size, without the last row and column, as Pillow draws it."""
    across, down = size[0] / region.size[0], size[1] / region.size[1]
    left, top, width, height = region.bbox
    right, bottom = (left + width) * across - 1, (top + height) * down - 1
    return (
        round(left * across),
        round(top * down),
        max(round(right), round(left * across)),
        max(round(bottom), round(top * down)),
    )


def _label(pen: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int]) -> None:
    """A number on a box of its colour with an outline of its ink, readable on any background."""
    pixels, colour = font_size(size), colour_of(mark.number)
    ink = ink_on(colour)
    left, top, right, bottom = mark.box
    radius, line = pixels // 4, max(1, pixels // 12)
    pen.rounded_rectangle((left, top, right - 1, bottom - 1), radius, fill=colour, outline=ink, width=line)
    middle = ((left + right) / 2, (top + bottom) / 2)
    pen.text(middle, mark.text, fill=ink, font=ImageFont.load_default(pixels), anchor="mm")
