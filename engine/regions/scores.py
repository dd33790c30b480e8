"""Zero-shot and tuned label of each region: the picture of a region goes the same way as any image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from engine.backbones.base import Backbone
from engine.data.episode import templates
from engine.data.images import ImageFile
from engine.errors import BadConfig, messages
from engine.regions.types import Region
from engine.tuning.features import SHARED, Cache, FeatureStore, Views, label_features
from engine.tuning.predict import predict
from engine.tuning.tuner import Tuner, TunerContext
from engine.types import Label

MARGIN = 0.15
"""Of a crop: share of the region's width and height that is added on each side."""
BLUR = 0.03
"""Standard deviation of the blur, as a share of the image's longest side."""

messages(
    regions_view="There is no view {name!r} of a region. Choose one of: {known}.",
    regions_margin="The margin is {value:g}, but must be between 0 and 2 times the region's size.",
)


def cropped(image: Image.Image, mask: np.ndarray, margin: float) -> Image.Image:
    """Return the box of a mask ``(H, W)`` bool with a margin on each side, as far as the image goes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    across, down = round(margin * (right - left)), round(margin * (bottom - top))
    return image.crop(
        (
            int(max(0, left - across)),
            int(max(0, top - down)),
            int(min(image.width, right + across)),
            int(min(image.height, bottom + down)),
        )
    )


def blurred(image: Image.Image, mask: np.ndarray, margin: float) -> Image.Image:
    """The whole image, blurred outside the mask (Yang et al., "Fine-Grained Visual Prompting", arXiv 2306.04356)."""
    away = image.filter(ImageFilter.GaussianBlur(BLUR * max(image.size)))
    return Image.composite(image, away, Image.fromarray(mask))


def greyed(image: Image.Image, mask: np.ndarray, margin: float) -> Image.Image:
    """Return the whole image, without colour outside the mask."""
    return Image.composite(image, image.convert("L").convert("RGB"), Image.fromarray(mask))


def cut(image: Image.Image, mask: np.ndarray, margin: float) -> Image.Image:
    """Return the box of the mask; what lies outside the mask has the mean colour of the image."""
    mean = tuple(round(value) for value in np.asarray(image).reshape(-1, 3).mean(0))
    alone = Image.composite(image, Image.new("RGB", image.size, mean), Image.fromarray(mask))  # type: ignore[arg-type]
    return cropped(alone, mask, margin)


View = Callable[[Image.Image, np.ndarray, float], Image.Image]
VIEWS: dict[str, View] = {"crop": cropped, "blur": blurred, "grey": greyed, "cut": cut}
"""Ways to show a model one region, by name; the first is the default."""


@dataclass(frozen=True)
class Guess:
    """What a model says of one picture."""

    label: str
    probability: float
    """Of that label: a share of one, or for a sigmoid model (SigLIP) a yes-or-no of its own."""
    margin: float
    """The best label's probability less the second best's."""
    probabilities: tuple[float, ...]
    """In the order of the labels."""

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: Sequence[Label]) -> Guess:
        """From probabilities ``(K,)``."""
        first, second = np.argsort(-probabilities, kind="stable")[:2]
        margin = float(probabilities[first] - probabilities[second])
        return cls(labels[first].name, float(probabilities[first]), margin, tuple(probabilities.tolist()))


@dataclass(frozen=True)
class RegionScore:
    """What the models say of one region."""

    number: int
    zero_shot: Guess
    tuned: Guess | None
    """None where nothing is tuned."""


class Scorer:
    """Prompt-ensembled zero-shot and, where there is one, a tuned model.

    Args:
        setting: backbone, labels and text features; of a saved adapter or a run.
        tuner: the tuned model.
    """

    def __init__(self, setting: TunerContext, tuner: Tuner | None = None):
        self.setting, self.tuner = setting, tuner
        self.backbone, self.labels = setting.backbone, setting.labels

    @classmethod
    def zero_shot(
        cls, backbone: Backbone, labels: Sequence[Label], template_set: str = "general", cache: Cache = SHARED
    ) -> Scorer:
        """Return a scorer that only has the backbone itself."""
        sentences = templates(template_set)
        single, ensemble = label_features(backbone, labels, sentences, cache)
        nothing = torch.zeros(0, ensemble.shape[1]), torch.zeros(0, dtype=torch.long)
        return cls(TunerContext(backbone, tuple(labels), sentences, single, ensemble, *nothing))

    @torch.no_grad()
    def probabilities(self, pictures: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Return probabilities ``(n, K)`` of RGB pictures by side: ``zero_shot``, and ``tuned`` where something is."""
        store = PictureStore(self.backbone, pictures)
        sides = {"zero_shot": self.backbone.logits(store.features(), self.setting.ensemble)}
        if self.tuner is not None:
            sides["tuned"] = predict(self.tuner, store, range(len(store)))
        return {side: self.backbone.probabilities(logits).float().cpu().numpy() for side, logits in sides.items()}


class PictureStore(FeatureStore):
    """Stage values of pictures that are no files; kept by the hash of their pixels."""

    def __init__(self, backbone: Backbone, pictures: Sequence[Image.Image], cache: Cache = SHARED):
        self.pictures = tuple(pictures)
        files = [ImageFile(str(k), "", None, _digest(p), p.width, p.height) for k, p in enumerate(self.pictures)]
        super().__init__(backbone, files, cache)

    def _read(self, i: int, view: int, views: Views) -> Image.Image:
        return self.pictures[i]


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:32]


def picture_of(image: Image.Image, region: Region, view: str = "crop", margin: float = MARGIN) -> Image.Image:
    """Return what a model is shown of a region. ``image`` is RGB, the region's own or the same at another size.

    Raises BadConfig for an unknown view or margin.
    """
    if view not in VIEWS:
        raise BadConfig("regions_view", name=view, known=", ".join(VIEWS))
    if not 0 <= margin <= 2:
        raise BadConfig("regions_margin", value=margin)
    return VIEWS[view](image, region.mask_at(image.size), margin)


def score(
    image: Image.Image, regions: Sequence[Region], scorer: Scorer, view: str = "crop", margin: float = MARGIN
) -> tuple[RegionScore, ...]:
    """Return what zero-shot and the tuned model say of each region, in the order given.

    Args:
        image: RGB; a scene's ``picture`` is large enough for any backbone.
        view: one of ``VIEWS``.
        margin: of a crop, as a share of the region's width and height on each side.
    """
    if not regions:
        return ()
    sides = scorer.probabilities([picture_of(image, region, view, margin) for region in regions])
    guesses: dict[str, Any] = {side: [Guess.of(row, scorer.labels) for row in rows] for side, rows in sides.items()}
    tuned = guesses.get("tuned") or [None] * len(regions)
    return tuple(
        RegionScore(region.number, zero, new)
        for region, zero, new in zip(regions, guesses["zero_shot"], tuned, strict=True)
    )
