"""A segmenter that knows colours: exact masks without weights, behind the same interface as SAM."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image, ImageDraw
from segment_anything import SamPredictor

from engine.regions.segmenter import Segmenter
from engine.regions.types import Level, Thresholds

SIDE = 160
"""Pixels that it sees, and that its low-resolution logits have."""
THRESHOLDS = Thresholds(
    0.5, (Level(0.9, 0.9, 0.05, nested=False), Level(0.9, 0.9, 0.02), Level(0.5, 0.5, 0.001)), 16, 32
)


class ColourPredictor(SamPredictor):
    """The mask of a click is all that has the colour there; of a box, what differs from the box's corner. Of the three
    masks of one click the second is the best; the others are all of the image, and nothing. Estimates: 0.7, 0.95, 0.2.
    A mask that is given and several clicks are remembered in ``asked``."""

    encoded = 0

    def __init__(self):
        model = SimpleNamespace(
            image_encoder=SimpleNamespace(img_size=SIDE),
            device=torch.device("cpu"),
            mask_threshold=0.0,
            image_format="RGB",
        )
        super().__init__(model)
        self.asked = []

    def set_image(self, image, image_format="RGB"):
        type(self).encoded += 1
        self.original_size = image.shape[:2]
        seen = self.transform.apply_image(image)
        self.input_size = seen.shape[:2]
        self.features, self.is_image_set = torch.from_numpy(seen.astype(np.float32)), True

    def predict_torch(
        self, point_coords, point_labels, boxes=None, mask_input=None, multimask_output=True, return_logits=False
    ):
        self.asked.append((point_coords, point_labels, boxes, mask_input, multimask_output))
        masks = []
        for k in range(1 if point_coords is None else len(point_coords)):
            if point_coords is None:
                x, y, x1, y1 = boxes.reshape(4).long().tolist()
                inside = torch.zeros(self.input_size, dtype=torch.bool)
                inside[y:y1, x:x1] = True
                masks.append(((self.features - self.features[y, x]).abs().amax(-1) > 20) & inside)
            else:
                at = point_coords[k][point_labels[k] == 1].long()
                same = [(self.features - self.features[y, x]).abs().amax(-1) < 20 for x, y in at.tolist()]
                masks.append(torch.stack(same).any(0))
        mask = torch.stack(masks).float() * 20 - 10  # (B, h, w) logits
        three = torch.stack([torch.full_like(mask, 10), mask, torch.full_like(mask, -10)], 1)
        low = three if multimask_output else three[:, 1:2]
        full = torch.nn.functional.interpolate(low, self.original_size, mode="nearest")
        iou = torch.tensor([0.7, 0.95, 0.2] if multimask_output else [0.95]).expand(len(mask), -1)
        small = torch.nn.functional.pad(low, (0, SIDE - low.shape[-1], 0, SIDE - low.shape[-2]))
        return (full if return_logits else full > 0), iou, small


def colour_segmenter(thresholds: Thresholds = THRESHOLDS) -> Segmenter:
    """A fresh segmenter."""
    return Segmenter("colours", "Colours", thresholds, ColourPredictor)


def shapes(width: int = 160, height: int = 120) -> Image.Image:
    """A red square with a blue dot in it, a green bar and a small yellow square on grey."""
    image = Image.new("RGB", (width, height), (120, 120, 120))
    pen, unit = ImageDraw.Draw(image), width / 160
    for box, colour in (
        ((10, 10, 70, 70), (200, 30, 30)),
        ((30, 30, 50, 50), (30, 30, 200)),
        ((90, 80, 150, 110), (30, 160, 30)),
        ((120, 20, 132, 32), (230, 220, 40)),
    ):
        pen.rectangle([n * unit for n in box[:2]] + [n * unit - 1 for n in box[2:]], fill=colour)
    return image
