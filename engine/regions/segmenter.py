"""Masks of an image from clicks, a box, or a search for everything.

Segment Anything (Kirillov et al., arXiv 2304.02643) encodes an image once and answers each prompt
from that embedding. A segmenter keeps the last few embeddings by the picture's content; a scene is
one picture on it. Where an embedding had to make room, the next prompt makes it again.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.utils.amg import calculate_stability_score

from engine.errors import BadRegion, messages
from engine.lru import LruStore
from engine.regions.postprocess import clean, sort_by_granularity
from engine.regions.types import GRANULARITIES, Prompt, Region, Thresholds, numbered, visible

WORK_SIDE = 1024
"""Longest side in pixels of the copy that is worked on, which is what the full SAM sees; masks of a larger image are
brought back to its size."""
KEPT = 4
"""Embeddings that a segmenter keeps; SAM's takes 4 MB, Pocket SAM's 128 kB."""
PLAIN = 3.0
"""An image whose channels all have a smaller standard deviation (of 0-255) is one colour, whatever a camera or JPEG
did to it."""
MOST_POINTS = 100
"""Clicks that shape one region."""

messages(
    region_strip="The image is {width} x {height} pixels, too long and narrow to find regions in. Crop it to less than "
    "{times} times as long as it is wide.",
    region_plain="The image is one colour, so there are no regions in it. Choose another image.",
    region_outside="The point ({x:g}, {y:g}) lies outside the image of {width} x {height} pixels. Click inside it.",
    region_no_points="There is no click on the object: all points mark the background. Add one on the object.",
    region_labels="{points} points came with {labels} marks for object or background. Give one for each point: 1 or 0.",
    region_many_points="{count} clicks for one region are more than {limit}. Start the region again with fewer.",
    region_flat_box="The box ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no area inside the image of {width} x "
    "{height} pixels. Draw it from one corner of the object to the other.",
    region_nothing="{segmenter} finds no region there. Click in the middle of an object, add a second click, or draw a "
    "box around it.",
    region_nothing_anywhere="{segmenter} finds no regions in this image. Click on what you mean, draw a box around it, "
    "or choose a larger segmenter.",
    region_granularity="There is no granularity {name!r}. Choose one of: {known}.",
)

LONGEST = 32
"""How many times as long as wide an image may be: of a longer one hardly a row of pixels reaches the segmenter."""
Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) before each step; what it raises ends the search."""


class Segmenter:
    """A segmentation model that pictures are put on.

    Args:
        id: name it was loaded by.
        name: what messages call it.
        thresholds: those of its catalogue entry.
        new_predictor: makes what answers prompts on one image: segment-anything's ``SamPredictor``, or what has its
            methods (:class:`engine.regions.hf_sam.HfPredictor`). All of them share the model.
    """

    def __init__(self, id: str, name: str, thresholds: Thresholds, new_predictor: Callable[[], SamPredictor]):
        self.id, self.name, self.thresholds = id, name, thresholds
        self._new_predictor = new_predictor
        self._encoded: LruStore[str, SamPredictor] = LruStore(KEPT)
        self._lock = threading.Lock()

    def set_image(self, image: Image.Image) -> Scene:
        """Return an RGB image to prompt. It is encoded at once, unless one of the same content is still here.

        Raises :class:`BadRegion` for one that is more than ``LONGEST`` times as long as it is wide.
        """
        if max(image.size) > LONGEST * min(image.size):
            raise BadRegion("region_strip", width=image.width, height=image.height, times=LONGEST)
        scene = Scene(self, image)
        self.predictor(scene)
        return scene

    def predictor(self, scene: Scene) -> SamPredictor:
        """Return the predictor that holds the scene's embedding."""
        with self._lock:  # two visitors with one picture encode it once
            found = self._encoded.get(scene.digest)
            if found is None:
                found = self._new_predictor()
                found.set_image(scene.pixels)
                self._encoded.put(scene.digest, found)
            return found


class Scene:
    """One image on a segmenter. Coordinates are the image's own pixels.

    Attributes:
        size: width and height of the image.
        picture: the working copy, longest side at most ``WORK_SIDE``; the image itself where that is small enough.
        digest: hash of the working copy's pixels.
    """

    def __init__(self, segmenter: Segmenter, image: Image.Image):
        self.segmenter, self.size = segmenter, image.size
        self.picture = image.convert("RGB")
        if max(image.size) > WORK_SIDE:
            self.picture.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.LANCZOS)
        self.pixels = np.asarray(self.picture)  # (h, w, 3) uint8
        shape = f"{self.pixels.shape}".encode()
        self.digest = hashlib.sha256(shape + self.pixels.tobytes()).hexdigest()[:32]
        self.plain = bool((self.pixels.reshape(-1, 3).std(0) < PLAIN).all())
        """Whether the image is one colour."""
        self._everything: tuple[Region, ...] | None = None

    def click(
        self, points: Sequence[Sequence[float]], labels: Sequence[int] | None = None, previous: Region | None = None
    ) -> tuple[Region, ...]:
        """Return the region under some clicks, best estimate first.

        One click is ambiguous (part, object, group), so there are up to three masks. Several clicks,
        or a click that goes on from ``previous``, give one mask, which starts from the logits of
        the previous one as in the library's notebooks; without ``previous``, from the best mask of the
        first click on the object.

        Args:
            points: (x, y) of each click. Two clicks at one place count once, as the later one says.
            labels: 1 = object, 0 = background, for each point; all 1 by default.
            previous: region that the earlier of these points, or a box, gave.

        Raises BadRegion: outside, only background, nothing there, one colour.
        """
        prompt = self._checked(points, labels, previous.prompt.box if previous else None)
        if previous is None and len(prompt.points) > 1:
            first = prompt.labels.index(1)
            previous = next(iter(self._masks(Prompt(prompt.points[first : first + 1], (1,)), None)), None)
        return self._predict(prompt, previous)

    def box(self, xyxy: Sequence[float]) -> tuple[Region, ...]:
        """The region in a box (left, top, right, bottom; any two opposite corners): one mask. What lies outside the
        image is cut off. Raises BadRegion: no area, nothing there, one colour."""
        self._check_plain()
        width, height = self.size
        left, right = sorted((float(xyxy[0]), float(xyxy[2])))
        top, bottom = sorted((float(xyxy[1]), float(xyxy[3])))
        box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        if not (box[2] - box[0] >= 1 and box[3] - box[1] >= 1):  # also false for nan
            raise BadRegion(
                "region_flat_box", left=left, top=top, right=right, bottom=bottom, width=width, height=height
            )
        return self._predict(Prompt(box=box), None)

    def everything(self, granularity: str = "parts", progress: Progress | None = None) -> tuple[Region, ...]:
        """Return all regions that a grid of clicks finds, by number.

        The search runs once, at the finest granularity; coarser ones are a part of its regions with the same
        numbers. Where a granularity has none, the next finer one is shown. Raises BadRegion: no regions, one colour,
        unknown granularity.
        """
        if granularity not in GRANULARITIES:
            raise BadRegion("region_granularity", name=granularity, known=", ".join(GRANULARITIES))
        self._check_plain()
        if self._everything is None:
            self._everything = self._search(progress)
        for level in GRANULARITIES[GRANULARITIES.index(granularity) :]:
            if shown := visible(self._everything, level):
                return shown
        raise BadRegion("region_nothing_anywhere", segmenter=self.segmenter.name)

    @property
    def searched(self) -> bool:
        """Whether :meth:`everything` answers at once."""
        return self._everything is not None

    def _check_plain(self) -> None:
        if self.plain:
            raise BadRegion("region_plain")

    def _checked(
        self, points: Sequence[Sequence[float]], labels: Sequence[int] | None, box: tuple[float, ...] | None
    ) -> Prompt:
        """The clicks as a prompt, each place once. Raises BadRegion."""
        self._check_plain()
        labels = [1] * len(points) if labels is None else labels
        if len(labels) != len(points) or not set(labels) <= {0, 1}:
            raise BadRegion("region_labels", points=len(points), labels=len(labels))
        width, height = self.size
        places: dict[tuple[float, float], int] = {}
        for (x, y), label in zip(points, labels, strict=True):
            if not (0 <= x < width and 0 <= y < height):
                raise BadRegion("region_outside", x=x, y=y, width=width, height=height)
            places[float(x), float(y)] = int(label)
        if len(places) > MOST_POINTS:
            raise BadRegion("region_many_points", count=len(places), limit=MOST_POINTS)
        if box is None and 1 not in places.values():
            raise BadRegion("region_no_points")
        return Prompt(tuple(places), tuple(places.values()), box)  # type: ignore[arg-type]

    def _predict(self, prompt: Prompt, previous: Region | None) -> tuple[Region, ...]:
        """Masks of a prompt, best estimate first. Raises BadRegion where the best is not good enough."""
        regions = self._masks(prompt, previous)
        if not regions or regions[0].predicted_iou < self.segmenter.thresholds.prompted_iou:
            raise BadRegion("region_nothing", segmenter=self.segmenter.name)
        return regions

    def _masks(self, prompt: Prompt, previous: Region | None) -> tuple[Region, ...]:
        """Masks of a prompt that are not empty, best estimate first."""
        predictor = self.segmenter.predictor(self)
        scale = np.array([self.picture.width / self.size[0], self.picture.height / self.size[1]])
        several = len(prompt.points) == 1 and previous is None and prompt.box is None
        masks, ious, low = predictor.predict(
            np.array(prompt.points) * scale if prompt.points else None,
            np.array(prompt.labels) if prompt.points else None,
            None if prompt.box is None else np.array(prompt.box) * np.tile(scale, 2),
            None if previous is None else previous.logits,
            multimask_output=several,
            return_logits=True,
        )  # (M, h, w) logits, (M,), (M, h', w')
        threshold, offset = predictor.model.mask_threshold, self.segmenter.thresholds.stability_offset
        stability = calculate_stability_score(torch.from_numpy(masks), threshold, offset).tolist()
        return tuple(
            Region.of(masks[k] > threshold, self.size, ious[k], stability[k], prompt, logits=low[k : k + 1])
            for k in sorted(range(len(ious)), key=lambda k: -ious[k])
            if (masks[k] > threshold).any()
        )

    def _search(self, progress: Progress | None) -> tuple[Region, ...]:
        """All regions of the finest granularity, numbered."""
        thresholds, predictor = self.segmenter.thresholds, self.segmenter.predictor(self)
        least = thresholds.levels[-1]
        held = Held(predictor, thresholds, progress)
        generator = SamAutomaticMaskGenerator(
            predictor.model,
            thresholds.points_per_side,
            thresholds.points_per_batch,
            least.predicted_iou,
            least.stability,
            thresholds.stability_offset,
            thresholds.box_nms_iou,
        )
        generator.predictor = held  # type: ignore[assignment]
        height, width = held.original_size
        back = np.array(self.size) / (width, height)
        found = []
        for record in generator.generate(np.broadcast_to(np.uint8(0), (height, width, 3))):
            point = tuple(float(n) for n in np.array(record["point_coords"][0]) * back)
            mask = clean(record["segmentation"], least.least_area)
            if mask.any():
                found.append((mask, record["predicted_iou"], record["stability_score"], Prompt((point,), (1,))))  # type: ignore[arg-type]
        chosen = sort_by_granularity([row[:3] for row in found], thresholds.levels)
        return numbered(
            replace(Region.of(mask, self.size, iou, stability, prompt), granularity=GRANULARITIES[level])
            for level, (mask, iou, stability, prompt) in ((level, found[k]) for k, level in chosen)
        )


class Held:
    """What the mask generator asks of a predictor, on an image that is encoded already and is not encoded again.

    The search works at the model's own size where the image is larger: there is no more to see in its masks.
    """

    def __init__(self, predictor: SamPredictor, thresholds: Thresholds, progress: Progress | None):
        self.predictor = copy.copy(predictor)
        self.original_size = self.predictor.original_size = min(predictor.original_size, predictor.input_size)
        self.model, self.transform, self.device = predictor.model, predictor.transform, predictor.device
        self.progress, self.done = progress, 0
        self.steps = -(-(thresholds.points_per_side**2) // thresholds.points_per_batch)

    def set_image(self, image: np.ndarray) -> None:
        """Nothing: it is set."""

    def reset_image(self) -> None:
        """Nothing: the embedding is kept for clicks."""

    def predict_torch(self, *prompts: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return one batch of the grid's clicks."""
        if self.progress:
            self.progress(self.done, self.steps)
        self.done += 1
        return self.predictor.predict_torch(*prompts, **options)
