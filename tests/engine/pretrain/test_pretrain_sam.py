"""Pretraining of Pocket SAM on a few made pictures: scenes, prompts, losses, resuming, what is written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torchvision.ops import sigmoid_focal_loss

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

from engine.pretrain import measure_sam, prompting, scenes  # noqa: E402
from engine.pretrain.pocket_sam import SamRecipe, SamTrainer  # noqa: E402
from engine.pretrain.warm_start import adopt_image_tower  # noqa: E402
from engine.regions.pocket_sam import PocketSamConfig, build_pocket_sam, load_pocket_sam  # noqa: E402

SMALL = PocketSamConfig(image_size=64, width=32, depth=1, heads=2, decoder_width=32, decoder_mlp=32, decoder_heads=4)


def encode(array: np.ndarray, form: str = "PNG") -> dict:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": None}


def disc(k: int, held: bool) -> tuple[np.ndarray, np.ndarray]:
    """A photograph with a disc, region 1; held-out ones are pure red, so that they can be recognised."""
    ids = Image.new("L", (80, 60))
    ImageDraw.Draw(ids).ellipse((10 + k, 8, 50 + k, 48), fill=1)
    mask = np.asarray(ids)
    pixels = np.zeros((60, 80, 3), np.uint8) + np.array([255, 0, 0] if held else [20, 60 + 5 * k, 90], np.uint8)
    if not held:
        pixels[mask == 1] = (200, 220, 30)
    return pixels, mask


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    made = [disc(k % 10, scenes.held_out(k % 10)) for _ in scenes.PHOTO_SHARES for k in range(10)]
    sources = [name for name in scenes.PHOTO_SHARES for _ in range(10)]
    columns = {"image": [encode(p) for p, _ in made], "mask": [encode(m) for _, m in made], "source": sources}
    pq.write_table(pa.table(columns), folder / "masks.parquet")
    emoji = [np.dstack([np.full((24, 24, 3), 15 * k, np.uint8), disc(0, False)[1][:24, :24] * 255]) for k in range(10)]
    pq.write_table(pa.table({"image": [encode(e) for e in emoji]}), folder / "emoji.parquet")
    flickr = [np.full((32, 32, 3), 20 * k, np.uint8) for k in range(10)]
    pq.write_table(pa.table({"image": [encode(f) for f in flickr]}), folder / "flickr8k-224.parquet")
    return folder


def trainer(data: Path, root: Path, name: str, **changes) -> SamTrainer:
    recipe = SamRecipe(**{"images": 24, "batch_size": 4, "regions": 2, **changes})
    return SamTrainer(recipe, data, root / name / "model", root / name / "work", config=SMALL)


def test_a_tenth_of_each_source_is_held_out(data):
    train, held = scenes.read_photos(data)
    assert (len(train), len(held)) == (27, 3)
    assert {photo.source for photo in held} == set(scenes.PHOTO_SHARES)
    assert all((photo.pixels[0] == 255).all() for photo in held)
    assert not any((photo.pixels[0] == 255).all() for photo in train)
    assert [len(part) for part in scenes.read_emoji(data)] == [9, 1]
    assert [len(part) for part in scenes.read_backgrounds(data)] == [9, 1]


def test_scenes_are_repeatable_and_masks_follow_the_picture(data):
    studio = scenes.Studio(data, 64, 6, 3, seed=1)
    a, b, other = studio.batch(5), studio.batch(5), studio.batch(6)
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.masks, b.masks)
    assert not torch.equal(a.pixels, other.pixels)
    assert a.pixels.shape == (6, 3, 64, 64) and a.masks.shape == (6, 3, 64, 64) and a.inside.shape == (6, 1, 64, 64)
    assert not (a.masks & ~a.inside).any(), "no region lies in the padding"
    assert a.inside[:, :, 0, 0].all()


def test_a_placed_photograph_keeps_its_mask_on_its_object(data):
    """The disc is bright and the ground dark, so the mask can be told from the pixels."""
    studio = scenes.Studio(data, 64, 8, 1, seed=0)
    generator = torch.Generator().manual_seed(3)
    made = []
    while len(made) < 8:
        scene = studio._scene(generator)
        if scene[3] == 0:
            made.append(scene)
    pixels, ids = torch.stack([m[0] for m in made]), torch.stack([m[1] for m in made])
    image, placed, inside = studio._place(pixels, ids, made, generator)
    bright = (image[:, 0] > 110) & inside[:, 0]
    agree = ((placed > 0) & inside[:, 0]) == bright
    assert agree.float().mean() > 0.98
    assert bright.any()


def test_pasted_objects_hide_what_is_below(data):
    studio = scenes.Studio(data, 64, 2, 1, seed=0)
    pixels, ids = torch.zeros(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.uint8)
    image, marked = studio._paste(pixels, ids, [3, 0], torch.Generator().manual_seed(0))
    assert (marked[1] == 1).all() and (image[1] == 0).all()
    assert set(marked[0].unique().tolist()) <= {1, scenes.PASTED, scenes.PASTED + 1, scenes.PASTED + 2}
    assert (marked[0] >= scenes.PASTED).any()


def test_clicks_lie_where_they_should():
    masks = torch.zeros(6, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 2:9] = True
    points = prompting.first_click(masks, cell=4)
    x, y = ((points[:, 0] + 0.5) / 4).long().unbind(-1)
    assert masks[torch.arange(6), y, x].all()
    predicted = masks.clone()
    predicted[:3, 4:12, 6:9] = False  # missed
    predicted[3:, 4:12, 9:14] = True  # too much
    points, labels = prompting.correction(masks, predicted, cell=4)
    x, y = ((points[:, 0] + 0.5) / 4).long().unbind(-1)
    assert (masks ^ predicted)[torch.arange(6), y, x].all()
    assert labels.flatten().tolist() == [1, 1, 1, 0, 0, 0]
    points, labels = prompting.correction(masks, masks, cell=4)
    assert labels.flatten().tolist() == [1] * 6, "nothing is wrong: one more click inside"


def test_boxes_surround_the_mask():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:31, 20:51] = True
    assert prompting.jittered_boxes(masks, share=0.0).tolist() == [[20, 10, 50, 30]]
    torch.manual_seed(0)
    moved = prompting.jittered_boxes(masks.expand(200, -1, -1)) - torch.tensor([20.0, 10.0, 50.0, 30.0])
    assert moved.abs().max() <= 5 and moved.std() > 1
    assert torch.isfinite(prompting.jittered_boxes(torch.zeros(1, 8, 8, dtype=torch.bool))).all()


def test_depth_counts_erosions():
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[0, 1:8, 1:8] = True
    inner = prompting.depth(masks)[0]
    assert inner[4, 4] == 4 and inner[1, 1] == 1 and inner[0, 0] == 0


def test_losses_are_focal_and_dice():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 4, 8, 8), (torch.rand(3, 8, 8) > 0.6).float()
    got = prompting.mask_losses(logits, target)
    full = target[:, None].expand_as(logits)
    focal = sigmoid_focal_loss(logits, full, alpha=0.25, gamma=2).mean((-2, -1))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * full).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + full.sum((-2, -1)) + 1)
    torch.testing.assert_close(got, 20 * focal + dice)


def test_only_the_best_of_three_is_trained():
    torch.manual_seed(0)
    coverage = torch.zeros(1, 8, 8)
    coverage[0, 2:6, 2:6] = 1
    logits = torch.zeros(1, 4, 8, 8)
    logits[0, 2] = coverage[0] * 4 - 2  # the second of the three is the best
    logits.requires_grad_(True)
    loss, low = prompting.round_loss(logits, torch.zeros(1, 4), coverage, torch.ones(1))
    loss.backward()
    touched = logits.grad.abs().sum((0, 2, 3)) > 0
    assert touched.tolist() == [True, False, True, False]
    assert torch.equal(low, logits.detach()[:, 0])
    nothing, _ = prompting.round_loss(logits, torch.zeros(1, 4), coverage, torch.zeros(1))
    assert nothing == 0


def test_decoding_many_images_equals_the_librarys_decoder():
    torch.manual_seed(0)
    sam = build_pocket_sam(SMALL)
    features = torch.randn(2, 32, 4, 4)
    points = torch.rand(3, 1, 2) * 64
    sparse, dense = sam.prompt_encoder((points, torch.ones(3, 1)), None, None)
    with torch.no_grad():
        masks, scores = prompting.decode_masks(
            sam, features.repeat_interleave(3, 0), sparse.repeat(2, 1, 1), dense.repeat(2, 1, 1, 1)
        )
        for b in range(2):
            want = sam.mask_decoder.predict_masks(features[b : b + 1], sam.prompt_encoder.get_dense_pe(), sparse, dense)
            torch.testing.assert_close(masks[3 * b : 3 * b + 3], want[0])
            torch.testing.assert_close(scores[3 * b : 3 * b + 3], want[1])


class Oracle:
    """A predictor that knows the answer to a box, and to a click only its upper half."""

    def __init__(self, mask: np.ndarray):
        self.mask = mask

    def predict(self, points=None, labels=None, box=None, mask_input=None, multimask_output=True):
        half = self.mask.copy()
        half[len(half) // 2 :] = False
        low = np.zeros((3, 4, 4), np.float32)
        if multimask_output:
            return np.stack([half, self.mask, ~self.mask]), np.array([0.9, 0.5, 0.1]), low
        good = box is not None or len(points) == 3
        return (self.mask if good else half)[None], np.array([1.0]), low[:1]


def test_figures_are_those_of_the_card():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    assert measure_sam.middle(mask).tolist() in [[x, y] for x in (19, 20) for y in (19, 20)]
    best, first, three, box = measure_sam.figures_of(Oracle(mask), mask)
    assert (best, first, three, box) == (1.0, 0.5, 1.0, 1.0)


def test_resuming_gives_what_an_uninterrupted_run_gives(data, tmp_path):
    whole = trainer(data, tmp_path, "whole")
    while whole.progress < 1:
        whole.train_step()
    part = trainer(data, tmp_path, "part")
    for _ in range(3):
        part.train_step()
    part.save()
    again = trainer(data, tmp_path, "part")
    assert again.resume() and again.step == 3
    while again.progress < 1:
        again.train_step()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, msg=name)
    with pytest.raises(ValueError, match="another recipe"):
        trainer(data, tmp_path, "part", batch_size=2).resume()


def test_training_learns_and_writes_a_model_that_loads(data, tmp_path):
    run = trainer(data, tmp_path, "learn", images=160, muon_lr=5e-3, adam_lr=5e-3, ema=0.5)
    losses = [run.train_step() for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    figures = run.export()
    sam = load_pocket_sam(run.out)
    assert sam.image_encoder.img_size == 64
    sources = {*scenes.PHOTO_SHARES, "emoji on photographs", "pets on photographs"}
    assert sources <= set(figures) <= {*sources, measure_sam.MEAN, measure_sam.ALL, measure_sam.SMALL}
    mean = sum(figures[name]["box"] for name in sources) / len(sources)
    assert figures[measure_sam.MEAN]["box"] == pytest.approx(mean)
    assert all(0 <= row[name] <= 1 for row in figures.values() for name in measure_sam.FIGURES)
    assert json.loads((run.out / "figures.json").read_text()) == figures
    card = (run.out / "README.md").read_text()
    assert f"{sum(p.numel() for p in run.model.parameters() if p.requires_grad):,} parameters" in card
    assert f"{figures[measure_sam.ALL]['box']:.3f}" in card


def test_the_encoder_starts_as_the_clip_tower(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "hidden_act": "gelu",
    }
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    clip.save_pretrained(tmp_path)
    sam = build_pocket_sam(SMALL)
    small = torch.randn(2, 3, 32, 32)
    adopt_image_tower(sam, tmp_path, F.interpolate(small, scale_factor=2, mode="nearest"))
    tower, block = clip.vision_model, sam.image_encoder.blocks[0]
    tokens = torch.randn(2, 16, 32)
    with torch.no_grad():
        want = tower.encoder.layers[0](tokens, attention_mask=None)
        got = block(tokens.view(2, 4, 4, 32)).view(2, 16, 32)
        torch.testing.assert_close(got, want[0] if isinstance(want, tuple) else want, atol=2e-4, rtol=2e-4)
    with pytest.raises(ValueError, match="wide"):
        adopt_image_tower(build_pocket_sam(), tmp_path, torch.randn(1, 3, 256, 256))
