"""Decoded images of any mode and orientation -> upright, 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what undoes it."""
SWAPS_SIDES = frozenset(_TURNS[code] for code in (5, 6, 7, 8))
"""Turns that exchange width and height."""


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright by its EXIF orientation, None where it is or does not say."""
    try:
        return _TURNS.get(image.getexif().get(0x0112))  # type: ignore[arg-type]
    except Exception:
        return None


def upright(image: Image.Image) -> Image.Image:
    """Return a decoded image as it was meant to be seen."""
    turn = turn_of(image)
    return image if turn is None else image.transpose(turn)


def rgb(image: Image.Image) -> Image.Image:
    """Any mode -> a new RGB image without metadata."""
    if (deep := MODES[image.mode]) is not None:
        return Image.fromarray(deep(np.asarray(image), image.format)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(grey: np.ndarray, _: str | None) -> np.ndarray:
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257, rounded


def _stretched(grey: np.ndarray, format: str | None) -> np.ndarray:
    if format == "PNG":  # older PIL opens 16-bit PNG as 32-bit integers
        return _from_16_bit(grey.clip(0, 65535), format)
    values = np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, np.clip(low, 0, 255), np.uint8)
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)


_Deep = Callable[[np.ndarray, "str | None"], np.ndarray]
MODES: dict[str, _Deep | None] = {
    **dict.fromkeys(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")),
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), _from_16_bit),
    "I": _stretched,
    "F": _stretched,
}
"""Modes that can be made RGB; those of more than 8 bits with the function that makes them 8-bit first."""
