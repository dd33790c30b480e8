"""How well a small SAM cuts out what it never saw, through the library's ``SamPredictor``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from engine.pretrain.scenes import PASTED, Photo, cut_out, fit, random_pose, read_backgrounds, read_emoji, read_photos

FIGURES = ("one click, best of three", "one click, ranked first", "three clicks", "box")
SMALL_SHARE = 32 * 32 / (640 * 480)
"""Regions below this share of their picture are COCO's "small" ones; they are measured apart."""
LEAST_PIXELS = 25
"""Smaller ones are specks of the annotation and not measured."""
MEAN, ALL, SMALL = "mean of the sources", "all regions", "small regions"


def middle(mask: np.ndarray) -> np.ndarray:
    """The point ``(x, y)`` of a mask that is farthest from its edge."""
    inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(inside.argmax()), mask.shape)
    return np.array([x, y], dtype=np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def figures_of(predictor: SamPredictor, mask: np.ndarray) -> tuple[float, ...]:
    """IoU for each of ``FIGURES`` on one region of the picture that is set."""
    points, labels = [middle(mask)], [1]
    masks, scores, low = predictor.predict(np.array(points), np.array(labels), multimask_output=True)
    each, first = [iou(m, mask) for m in masks], int(scores.argmax())
    shown, logits = masks[first], low[first][None]
    for _ in range(2):
        missed, extra = mask & ~shown, shown & ~mask
        wrong = missed if missed.sum() >= extra.sum() else extra
        points.append(middle(wrong if wrong.any() else mask))
        labels.append(int(wrong is missed or not wrong.any()))
        masks, _, low = predictor.predict(np.array(points), np.array(labels), mask_input=logits, multimask_output=False)
        shown, logits = masks[0], low[0][None]
    ys, xs = np.nonzero(mask)
    box = np.array([xs.min(), ys.min(), xs.max(), ys.max()])
    boxed = predictor.predict(box=box, multimask_output=False)[0][0]
    return max(each), each[first], iou(shown, mask), iou(boxed, mask)


def pasted(folder: Path, objects: list[np.ndarray], seed: int, size: int = 320) -> list[Photo]:
    """One photograph an object, with that object pasted on it: held-out objects on held-out photographs."""
    _, backgrounds = read_backgrounds(folder)
    generator = torch.Generator().manual_seed(seed)
    photos = []
    for k, picture in enumerate(objects):
        back = F.interpolate(backgrounds[k % len(backgrounds)][None].float(), size=(size, size), mode="bilinear")
        grid = F.affine_grid(random_pose(generator)[None], [1, 4, size, size], align_corners=False)
        layer = F.grid_sample(torch.tensor(picture)[None].float(), grid, align_corners=False)
        alpha = layer[:, 3:] / 255
        pixels = (back * (1 - alpha) + layer[:, :3] * alpha)[0].round().byte().numpy()
        photos.append(Photo(pixels, (alpha[0, 0] > 0.5).numpy() * np.uint8(PASTED), "pasted"))
    return photos


def held_out_photos(folder: Path) -> dict[str, list[Photo]]:
    """The held-out tenth of each source; emoji and pets also as pasted objects."""
    _, photos = read_photos(folder)
    _, emoji = read_emoji(folder)
    pets = [cut_out(photo.pixels, photo.ids > 0) for photo in photos if photo.source == "oxford-pets"]
    groups = {name: [p for p in photos if p.source == name] for name in sorted({p.source for p in photos})}
    groups["emoji on photographs"] = pasted(folder, [fit(picture) for picture in emoji], seed=1)
    groups["pets on photographs"] = pasted(folder, pets, seed=2)
    return groups


def measure(sam: Sam, groups: dict[str, list[Photo]]) -> dict[str, dict[str, float]]:
    """Mean IoU for each of ``FIGURES`` and the number of regions: by source, their mean, over all regions, and over
    the small ones, which none of the others count."""
    predictor = SamPredictor(sam)
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in groups}
    small: list[tuple[float, ...]] = []
    for name, photos in groups.items():
        for photo in photos:
            predictor.set_image(np.ascontiguousarray(photo.pixels.transpose(1, 2, 0)))
            for mask in (photo.ids == i for i in np.unique(photo.ids) if i):
                if mask.sum() >= LEAST_PIXELS:
                    (small if mask.mean() < SMALL_SHARE else rows[name]).append(figures_of(predictor, mask))
    means = {name: np.mean(each, axis=0) for name, each in rows.items() if each}
    together = [row for each in rows.values() for row in each]
    means[MEAN] = np.mean(list(means.values()), axis=0)
    means[ALL] = np.mean(together, axis=0)
    rows |= {MEAN: together, ALL: together}
    if small:
        means[SMALL], rows[SMALL] = np.mean(small, axis=0), small
    return {
        name: {**dict(zip(FIGURES, mean.tolist(), strict=True)), "regions": len(rows[name])}
        for name, mean in means.items()
    }
