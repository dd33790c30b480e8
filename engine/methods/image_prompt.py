"""A prompt that is an image: trained pixels as extra patches, or as a border around every image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import FEATURES, PIXELS, VISION_TOKENS, Backbone, Shape
from engine.errors import BadConfig, Note, messages
from engine.tuning.learned import LearnedImage
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, Tuner, TunerContext, option

if TYPE_CHECKING:
    from engine.tuning.features import FeatureStore

WIDTH = 30 / 224
"""Published width of the border as a share of the image's side."""

messages(
    patches_need_tokens="{method} cannot run on {backbone}: its image tower reads no patches that more could join. "
    "Choose border as its form, or another backbone.",
    learned_patches="{count} trained patches join the patches of every image. Colours beyond black and white, which "
    "training may reach, are cut off in the picture.",
    learned_border="A trained border, {width} pixels wide, is added to every image. Grey adds nothing, lighter adds, "
    "darker takes away.",
)


@dataclass(frozen=True)
class ImagePromptConfig(TowerConfig):
    """Settings of an image prompt."""

    method = "image_prompt"
    form: str = option(
        "patches", choices=("patches", "border"), help="patches beside the image's own, or a border on the image"
    )
    tokens: int = option(4, 1, 100, help="M, number of trained patches")
    border: int = option(0, 0, 1000, help="width of the border in pixels; 0 = 30 at a side of 224, other sides alike")
    init: str = option(
        "image",
        choices=("image", "noise"),
        help="patches start from a training image, a border from nothing; or both from noise",
    )
    epochs: int = option(30, 1, 2000, help="passes over the training images")
    lr: float = option(0.1, 1e-8, 100, help="peak learning rate, in pixel values of standard deviation 1")
    warmup_epochs: int = option(3, 0, 100, help="epochs at the start in which the learning rate rises")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")

    def width(self, shape: Shape) -> int:
        """Return the width of the border in pixels."""
        return self.border or max(1, round(WIDTH * shape.image_size))

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        """Return why these settings cannot run on a backbone; None where they can."""
        if self.form == "patches":
            if VISION_TOKENS in backbone.offers:
                return None
            return BadConfig("patches_need_tokens", method=self.method, backbone=backbone.id)
        most = (backbone.shape.image_size - 1) // 2
        if self.border <= most:
            return None
        return BadConfig(
            "bad_setting",
            method=self.method,
            name="border",
            value=self.border,
            allowed=Note.of("allowed_between", low=0, high=most),
        )


class ImagePrompt(Tuner):
    """Trained pixels, in the normalised values that the tower reads.

    ``patches``: M patches ``(M, 3, p, p)`` go through the tower's own patch embedding and stand after the class
    token, before the first block. They have no place in the image: each gets the mean of the position embeddings
    (see :meth:`engine.backbones.base.VisionTower.embed_patches`). Extra tokens always change the attention, so no
    start leaves the features as they are.

    ``border``: ``x + border``, zero inside, as Bahng et al. do it; it needs no tokens, so it runs on every image
    tower, from its pixels. It may start from zero, which changes nothing, or from noise, as published.

    Pixels are free: they may leave the range from black to white, and only the pictures of :meth:`learned` are cut
    off there. Clipping them in training would stop the gradient of every pixel that has reached an end.
    """

    start: Tensor

    def __init__(self, config: ImagePromptConfig, setting: TunerContext):
        super().__init__(config, setting)
        if obstacle := config.obstacle(self.backbone):
            raise obstacle
        shape, self.seed = self.backbone.shape, setting.seed
        self.stage = 0 if config.form == "patches" else PIXELS
        self.patch, self.side = shape.patch, shape.image_size
        size: tuple[int, ...] = (config.tokens, 3, shape.patch, shape.patch)
        if config.form == "border":
            self.places = border_places(shape.image_size, config.width(shape)).to(setting.support.device)  # (n,)
            size = (3, len(self.places))
        still = config.form == "border" and config.init == "image"
        pixels = torch.zeros(size) if still else torch.randn(size, generator=setting.generator())
        self.pixels = nn.Parameter(pixels.to(setting.support))
        self.register_buffer("start", pixels.half().to(setting.support.device), persistent=False)

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Patches start from one of the training images, which the seed chooses, shrunk to M patches."""
        if self.config.form != "patches" or self.config.init != "image":
            return
        chosen = torch.randint(len(support), (), generator=torch.Generator().manual_seed(self.seed))
        picture = store.fresh(PIXELS, [support[int(chosen)]])  # (1, 3, S, S)
        size = tuple(self.patch * cells for cells in grid(self.config.tokens))
        small = F.interpolate(picture, size, mode="bilinear", antialias=True)[0]  # (3, rows p, columns p)
        with torch.no_grad():
            self.pixels.copy_(cut(small, self.patch)[: self.config.tokens])
            self.start.copy_(self.pixels)
        yield 1, 1

    def saved(self) -> dict[str, Tensor]:
        return {**self.trained(), "start": self.start}

    def image_features(self, x: Tensor) -> Tensor:
        if self.stage == PIXELS:
            return self.backbone.vision.advance(x + self.canvas(self.pixels), PIXELS, FEATURES)
        return self.backbone.vision.advance(x, 0, FEATURES, self.insert)

    def insert(self, k: int, hidden: Tensor) -> Tensor:
        """Return tokens that enter block ``k``: the patches join at the first."""
        if k > 0:
            return hidden
        prompts = self.backbone.vision.embed_patches(self.pixels).expand(len(hidden), -1, -1)  # (B, M, D)
        prefix = self.backbone.vision.prefix
        return torch.cat([hidden[:, :prefix], prompts, hidden[:, prefix:]], dim=1)

    def canvas(self, pixels: Tensor) -> Tensor:
        """Return the border's pixels ``(3, n)`` where they belong, zero elsewhere: ``(3, S, S)``."""
        empty = torch.zeros(3, self.side**2, dtype=pixels.dtype, device=pixels.device)
        return empty.index_copy(1, self.places, pixels).unflatten(1, (self.side, self.side))

    @torch.no_grad()
    def learned(self) -> tuple[LearnedImage, ...]:
        if self.config.form == "patches":
            about = Note("learned_patches", (("count", self.config.tokens),))
        else:
            about = Note("learned_border", (("width", self.config.width(self.backbone.shape)),))
        return (LearnedImage(about, self.picture(self.start.float()), self.picture(self.pixels)),)

    def picture(self, pixels: Tensor) -> np.ndarray:
        """Trained pixels as RGB uint8 ``(H, W, 3)``: the patches side by side, or the border on grey."""
        black, white = (
            self.backbone.normalise(torch.full((3, 1, 1), v, dtype=torch.uint8, device=pixels.device)) for v in (0, 255)
        )
        if self.config.form == "patches":
            shares = (lay(pixels, *grid(len(pixels))) - black) / (white - black)  # (3, H, W)
        else:
            shares = 0.5 + self.canvas(pixels) / (white - black)
        return (255 * shares.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()


def border_places(side: int, width: int) -> Tensor:
    """Return positions ``(n,)`` of a border's pixels in a flattened square image."""
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[width : side - width, width : side - width] = True
    return (~inside).flatten().nonzero()[:, 0]


def grid(count: int) -> tuple[int, int]:
    """Return (rows, columns) of the squarest block with room for ``count`` patches."""
    rows = math.isqrt(count)
    return rows, -(-count // rows)


def cut(picture: Tensor, patch: int) -> Tensor:
    """Return ``(3, rows p, columns p)`` to patches ``(rows columns, 3, p, p)``, line by line."""
    return picture.unfold(1, patch, patch).unfold(2, patch, patch).permute(1, 2, 0, 3, 4).flatten(0, 1)


def lay(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Patches ``(M, 3, p, p)`` to ``(3, rows p, columns p)``, line by line; what is left over is 0."""
    full = torch.cat([patches, patches.new_zeros(rows * columns - len(patches), *patches.shape[1:])])
    return full.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def count(shape: Shape, config: ImagePromptConfig, K: int, N: int) -> int:
    """Three colours of every pixel of the patches or of the border."""
    if config.form == "patches":
        return config.tokens * 3 * shape.patch**2
    side, inner = shape.image_size, shape.image_size - 2 * config.width(shape)
    return 3 * (side**2 - inner**2)


def paper(shots: int) -> ImagePromptConfig:
    """Return the border's published schedule: SGD at a rate of 40 on noise, cosine over 1,000 epochs."""
    return ImagePromptConfig(
        form="border", init="noise", optimizer="sgd", lr=40, epochs=1000, batch_size=256, warmup_epochs=5, views=1
    )


register(
    MethodSpec(
        id="image_prompt",
        name="Image prompt",
        family="visual prompt",
        sentence="Trains a small picture that is read together with every image, as extra patches or as a border.",
        use_when="You want to see what is learned: the prompt is a picture that is shown before and after training.",
        equation="f = image([CLS, E·patch₁ … E·patch_M, patches])",
        paper="Bahng et al. 2022, Exploring Visual Prompts for Adapting Large-Scale Models, arXiv 2203.17274 (the "
        "border); the patches join as in Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119",
        config=ImagePromptConfig,
        tuner=lambda: ImagePrompt,
        count=count,
        formula="M·3·p² (a border: 3·(S² − (S − 2b)²))",
        runs_on="image@0",
        failures=(
            "Learns slowly: gradients pass through the whole tower into single pixels.",
            "What the picture shows after training means nothing to people.",
            "A border runs the tower from its pixels in every step.",
        ),
        saved="the pixels, and how they looked at the start",
        presets={"budget": lambda shots: ImagePromptConfig(), "paper": paper},
    )
)
