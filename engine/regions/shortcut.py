"""Does a label come from the object or from its background?

The whole image is scored again in two ways, each with zero-shot and with the tuned model:

- *Background removed*: what lies outside the object is one neutral colour. As a colour may say something itself,
  black, grey and white are tried and the probabilities averaged.
- *Object removed*: the object, with a rim around it, is painted over with the colours around it, so that neither
  its pixels nor its outline are left (an outline alone can give the label away: Xiao et al., "Noise or Signal",
  arXiv 2006.09994).

The label that a model gives to the whole image *survives* where it is still the most probable one. A model that
keeps its label without the object but not without the background *reads the background*: a shortcut
(Geirhos et al., arXiv 2004.07780).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.errors import BadRegion, Note, messages
from engine.regions.scores import Guess, Scorer
from engine.regions.types import Region

FILLS = ((0, 0, 0), (128, 128, 128), (255, 255, 255))
"""Colours in the place of the background."""
RIM = 0.02
"""Width of the rim that goes with the object, as a share of the image's longest side."""
LEAST_BACKGROUND = 0.05
"""Share of the image that must be left when the object and its rim are gone."""
VERDICTS = {(True, False): "object", (False, True): "background", (True, True): "either", (False, False): "both"}
"""(survives without the background, survives without the object) -> word."""

messages(
    shortcut_no_background="The object fills the image, so there is no background to test. Choose a smaller region.",
    shortcut_zero_shot_object="Zero-shot reads the object: it says {label!r} without the background too, and no longer "
    "without the object.",
    shortcut_zero_shot_background="Zero-shot reads the background: it still says {label!r} when the object is gone, "
    "and no longer when the background is.",
    shortcut_zero_shot_either="Zero-shot finds enough for {label!r} in the object alone and in the background alone.",
    shortcut_zero_shot_both="Zero-shot needs both for {label!r}: it says something else without the object, and "
    "without the background too.",
    shortcut_tuned_object="The tuned model reads the object: it says {label!r} without the background too, and no "
    "longer without the object.",
    shortcut_tuned_background="The tuned model reads the background: it still says {label!r} when the object is gone, "
    "and no longer when the background is. Add training photos of the same thing in other places.",
    shortcut_tuned_either="The tuned model finds enough for {label!r} in the object alone and in the background alone.",
    shortcut_tuned_both="The tuned model needs both for {label!r}: it says something else without the object, and "
    "without the background too.",
    shortcut_learned="Zero-shot did not rely on the background here: tuning taught it.",
    shortcut_unlearned="Zero-shot relied on the background here; the tuned model no longer does.",
)


@dataclass(frozen=True)
class Reading:
    """One model on the whole image, on the object and on the background."""

    whole: Guess
    without_background: Guess
    without_object: Guess
    word: str
    """``object``, ``background``, ``either`` or ``both``: where the label of the whole image comes from."""


@dataclass(frozen=True)
class Shortcut:
    """The test's outcome."""

    zero_shot: Reading
    tuned: Reading | None
    notes: tuple[Note, ...]
    """In words: one sentence a model, and what tuning changed."""


def probe(image: Image.Image, regions: Sequence[Region], scorer: Scorer) -> Shortcut:
    """Score an RGB image without its background and without its object, which is all of ``regions``.

    Raises BadRegion where no background is left.
    """
    mask = np.logical_or.reduce([region.mask_at(image.size) for region in regions])
    sides = scorer.probabilities(
        [image, without_object(image, mask), *(without_background(image, mask, fill) for fill in FILLS)]
    )
    readings: dict[str, Reading] = {}
    for side, rows in sides.items():
        whole, gone, alone = (Guess.of(row, scorer.labels) for row in (rows[0], rows[1], rows[2:].mean(0)))
        word = VERDICTS[alone.label == whole.label, gone.label == whole.label]
        readings[side] = Reading(whole, alone, gone, word)
    notes = [
        Note(f"shortcut_{side}_{reading.word}", (("label", reading.whole.label),)) for side, reading in readings.items()
    ]
    before, after = readings["zero_shot"], readings.get("tuned")
    if after and (before.word == "background") != (after.word == "background"):
        notes.append(Note("shortcut_learned" if after.word == "background" else "shortcut_unlearned"))
    return Shortcut(before, after, tuple(notes))


def without_background(image: Image.Image, mask: np.ndarray, fill: tuple[int, int, int]) -> Image.Image:
    """Return the object of a mask ``(H, W)`` bool on one colour."""
    return Image.composite(image, Image.new("RGB", image.size, fill), Image.fromarray(mask))


def without_object(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image with a mask ``(H, W)`` bool and its rim painted over with the nearest colours around it, smoothed.

    Raises BadRegion where nothing is left around it.
    """
    rim = max(1, round(RIM * max(image.size)))
    hole = ndimage.distance_transform_edt(~mask) <= rim
    if (~hole).mean() < LEAST_BACKGROUND:
        raise BadRegion("shortcut_no_background")
    rows, columns = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    pixels = np.asarray(image)
    spread = pixels[rows, columns].astype(np.float32)  # (H, W, 3): each pixel of the hole as its nearest outside
    smooth = ndimage.gaussian_filter(spread, (2 * rim, 2 * rim, 0))
    return Image.fromarray(np.where(hole[..., None], smooth.round(), pixels).astype(np.uint8))
