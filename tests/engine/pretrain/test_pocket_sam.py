"""Pocket SAM: its shape, its files, and that it is the library's own model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from engine.pretrain.measure_sam import FIGURES, figures_of
from engine.regions import pocket_sam
from engine.regions.pocket_sam import PocketSamConfig, SegmenterUnavailable, build_pocket_sam

SMALL = PocketSamConfig(image_size=64, width=32, depth=1, heads=2, decoder_width=32, decoder_mlp=32, decoder_heads=4)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    pocket_sam.save_pocket_sam(build_pocket_sam(SMALL), SMALL, tmp_path)
    return tmp_path


def test_shape_and_count_are_those_of_the_card():
    sam = build_pocket_sam()
    assert type(sam) is Sam
    assert pocket_sam.parameters(sam) == 3_798_144
    with torch.no_grad():
        assert sam.image_encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 128, 16, 16)


def test_weights_come_back_from_half_precision(folder):
    torch.manual_seed(0)
    before, after = build_pocket_sam(SMALL).state_dict(), pocket_sam.load_pocket_sam(folder).state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], tensor.half().float()), name


def test_the_librarys_predictor_and_generator_work_on_it(folder):
    sam = pocket_sam.load_pocket_sam(folder)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    masks, scores, low = predictor.predict(np.array([[30, 20]]), np.array([1]))
    assert masks.shape == (3, 40, 60) and scores.shape == (3,) and low.shape == (3, 16, 16)
    found = SamAutomaticMaskGenerator(
        sam, points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=0, stability_score_offset=0
    ).generate(image)
    assert all(mask["segmentation"].shape == (40, 60) for mask in found)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(SegmenterUnavailable, match="not in"):
        pocket_sam.load_pocket_sam(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, 4000])
def test_truncated_weights_are_refused(folder, kept):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(SegmenterUnavailable, match="not a complete Pocket SAM"):
        pocket_sam.load_pocket_sam(folder)


@pytest.mark.parametrize("change", [{"width": 48, "heads": 3}, {"depth": 2}, {"width": "wide"}])
def test_weights_of_another_shape_are_refused(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SegmenterUnavailable, match="not a complete Pocket SAM"):
        pocket_sam.load_pocket_sam(folder)


# ---- the bundled weights


def drawing(k: int) -> tuple[Image.Image, np.ndarray]:
    """A thing of one colour on a ground of noise, and its mask: discs, boxes and triangles of several sizes."""
    random = np.random.default_rng(k)
    ground = random.integers(60, 110, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((320, 240), Image.Resampling.BICUBIC)
    mask = Image.new("1", image.size)
    x, y, r = int(random.integers(100, 220)), int(random.integers(90, 150)), int(random.integers(30, 80))
    shapes = {
        "ellipse": (x - r, y - r, x + r, y + r),
        "rectangle": (x - r, y - r // 2, x + r, y + r // 2),
        "polygon": (x, y - r, x + r, y + r, x - r, y + r),
    }
    name = list(shapes)[k % 3]
    getattr(ImageDraw.Draw(mask), name)(shapes[name], fill=1)
    colour = tuple(int(c) for c in random.integers(150, 255, 3))
    image.paste(colour, mask=mask)
    return image, np.asarray(mask)


def test_the_bundled_model_cuts_out_things_that_stand_out():
    """Three dozen drawings, unlike anything it was trained on; the card says what it does on photographs."""
    predictor = SamPredictor(pocket_sam.load_pocket_sam())
    rows = []
    for k in range(36):
        image, mask = drawing(k)
        predictor.set_image(np.asarray(image))
        rows.append(figures_of(predictor, mask))
    best, first, three, box = np.mean(rows, axis=0)
    assert best > 0.75 and first > 0.5 and three > 0.75 and box > 0.8  # 0.82, 0.59, 0.82 and 0.87 when it was trained


def test_the_bundled_files_are_small_and_say_what_was_measured():
    weights = pocket_sam.POCKET_SAM / "model.safetensors"
    assert weights.stat().st_size < 10_000_000
    figures = json.loads((pocket_sam.POCKET_SAM / "figures.json").read_text())
    card = (pocket_sam.POCKET_SAM / "README.md").read_text()
    for name, row in figures.items():
        assert f"| {name} | {row['regions']} | " + " | ".join(f"{row[figure]:.3f}" for figure in FIGURES) in card
    assert "What it cannot do" in card
