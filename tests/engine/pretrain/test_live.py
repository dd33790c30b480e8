"""Crops that are cut on the device: the same as Pillow's where nothing is random, within bounds where something is."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from engine.pretrain import corpus, live
from engine.pretrain.corpus import SIDE, Source
from engine.pretrain.mixer import Ahead, Mixer, Pictures


def encoded(width: int, height: int, alpha: bool = False, seed: int = 0) -> bytes:
    """A smooth picture; with ``alpha`` its left half is transparent."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if alpha:
        image.putalpha(Image.fromarray(np.repeat(np.arange(width) >= width // 2, height).reshape(width, height).T))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def store(sizes: list[tuple[int, int]], name: str = "photos", crops: int = 2, **fields) -> live.Store:
    source = Source(name, (), 1, crops, 0.4, **fields)
    data = [encoded(*size, alpha=name == "emoji", seed=k) for k, size in enumerate(sizes)]
    return live.Store.of(source, live.decode(data, alpha=name == "emoji"), "cpu")


@pytest.mark.parametrize("size", [(224, 224), (300, 200), (224, 600), (56, 56), (900, 700)])
def test_the_plain_middle_is_that_of_the_product(size):
    cut = store([size]).cut(torch.tensor([0]))[0]
    wanted = np.asarray(corpus.plain(encoded(*size))).transpose(2, 0, 1)
    assert cut.shape == (3, SIDE, SIDE)
    assert np.abs(cut.numpy() - wanted).mean() < 1.5


def test_kept_pictures_are_small_and_not_too_long():
    (kept,) = live.decode([encoded(2000, 400)])
    assert kept.shape == (3, SIDE, 336)
    assert live.decode([encoded(32, 32)])[0].shape == (3, 32, 32)


def test_boxes_lie_in_their_pictures_and_are_large_enough():
    torch.manual_seed(0)
    sizes = torch.tensor([[224.0, 336.0], [56.0, 56.0]]).repeat(500, 1)
    plain = torch.arange(1000) < 4
    found = live.boxes(sizes, 0.4, plain)
    extent = found[:, 2:] - found[:, :2]
    assert (found[:, :2] >= 0).all() and (found[:, 2:] <= sizes + 1e-3).all()
    share = extent.prod(1) / sizes.amin(1) ** 2
    assert share[~plain].min() > 0.36 and share.max() < 1.01
    assert (extent[:, 0] / extent[:, 1] - 1).abs().max() < 1 / 3 + 0.01
    assert torch.allclose(found[0], torch.tensor([0.0, 56.0, 224.0, 280.0]))


def test_a_box_is_resampled_as_pillow_does():
    image = Image.open(io.BytesIO(encoded(224, 224)))
    box = torch.tensor([[20.0, 40.0, 170.0, 200.0]])
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None].float()
    wanted = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=tuple(box[0].tolist())))
    assert np.abs(live.resample(pixels, box)[0].numpy() - wanted.transpose(2, 0, 1)).mean() < 1


def test_colours_move_within_what_pillow_would_do():
    torch.manual_seed(1)
    image = Image.open(io.BytesIO(encoded(224, 224)))
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None].float()
    means = torch.stack([live.jitter(pixels).mean() for _ in range(100)]) / pixels.mean()
    assert 0.65 < means.min() < 0.8 and 1.15 < means.max() < 1.35
    grey = live.grey(pixels)[0, 0].numpy()
    assert np.abs(grey - np.asarray(image.convert("L"))).max() <= 1
    flat = np.asarray(ImageEnhance.Color(image).enhance(0)).transpose(2, 0, 1)
    assert np.abs(flat[0] - grey).max() <= 1.5


def test_blur_is_gaussian():
    image = Image.open(io.BytesIO(encoded(224, 224))).convert("L")
    wanted = np.asarray(image.filter(ImageFilter.GaussianBlur(4)))[20:-20, 20:-20]
    found = live.blur(torch.from_numpy(np.array(image))[None, None].float(), 4.0)[0, 0].numpy()[20:-20, 20:-20]
    assert np.abs(found - wanted).mean() < 1


def test_redrawn_photographs_keep_their_shape_and_range():
    torch.manual_seed(0)
    kept = store([(224, 224)], crops=2, drawn=(1,))
    drawn = kept.cut(torch.tensor([1] * 40))
    assert drawn.min() >= 0 and drawn.max() <= 255
    grey = [(picture - picture.mean(0)).abs().max() < 1e-3 for picture in drawn]
    assert 8 < sum(grey) < 32  # sketches have no colour, cartoons do


def test_emoji_lie_on_random_colours():
    torch.manual_seed(0)
    cut = store([(72, 72)], "emoji").cut(torch.tensor([0] * 30))
    corners = torch.cat([cut[:, :, SIDE // 2, 5], cut[:, :, SIDE // 2, -5]], 1)
    assert corners[:, :3].std(0).min() > 30 or corners[:, 3:].std(0).min() > 30


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_made_ahead_are_those_of_the_mixer(workers):
    source = Source("photos", (), 1, 3, 0.5)
    mixer = Mixer([Pictures(source, [["cat"], ["dog"], ["ship"]])], 4, seed=3, distractors=1)
    ahead = Ahead(mixer, workers)
    for step in (0, 1, 2, 7):
        found, wanted = ahead(step), mixer.batch(step)
        assert torch.equal(found.places[0], wanted.places[0]) and torch.equal(found.mirrored, wanted.mirrored)
        assert found.sentences == wanted.sentences and torch.equal(found.related, wanted.related)
    ahead.pool.shutdown()
