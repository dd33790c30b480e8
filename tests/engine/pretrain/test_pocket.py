"""The bundled Pocket CLIP: what is in its folder, and that it recognises photographs it never saw."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine.backbones import entries, vocabulary
from engine.data import uploads
from engine.data.images import ImageFile
from engine.runs.run import zero_shot_scores
from engine.types import Label

FLOORS = {
    "CIFAR-10": 0.7,
    "CIFAR-100": 0.45,
    "Tiny-ImageNet": 0.5,
    "Flickr8k R@10": 0.33,
    "clothing": 0.45,
    "EuroSAT": 0.25,
    "clothing, 8-shot probe": 0.62,
    "EuroSAT, 8-shot probe": 0.75,
}
PHOTOGRAPHS = {
    "chelsea.png": "cat",
    "coffee.png": "cup",
    "rocket.jpg": "rocket",
    "astronaut.png": "woman",
    "motorcycle_left.png": "motorcycle",
    "flower.jpg": "flower",
}
"""Bundled with scikit-image and scikit-learn, and what they show."""


def photograph(name: str) -> Image.Image:
    import skimage.data
    from sklearn.datasets import load_sample_images

    if name == "flower.jpg":
        return Image.fromarray(load_sample_images().images[1])
    return Image.open(f"{next(iter(skimage.data.__path__))}/{name}").convert("RGB")


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Three quarters to all of the shorter side, somewhere in the middle; half of them mirrored."""
    side = int(min(image.size) * rng.uniform(0.75, 1))
    left, top = ((length - side) * rng.uniform(0.3, 0.7) for length in image.size)
    image = image.crop((int(left), int(top), int(left) + side, int(top) + side))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> tuple[ImageFile, ...]:
    """Eight crops of each photograph."""
    folder, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    for name, label in PHOTOGRAPHS.items():
        image = photograph(name)
        (folder / label).mkdir()
        for k in range(8):
            crop(image, rng).resize((128, 128)).save(folder / label / f"{k}.png")
    return uploads.collect([folder], folder).images


def test_it_recognises_photographs_it_never_saw(pocket, crops):
    names = sorted(set(PHOTOGRAPHS.values()))
    scores = zero_shot_scores(pocket, crops, [Label(name, name) for name in names], "general")
    truth = torch.tensor([names.index(file.label) for file in crops])
    right = scores["zero_shot_ensemble"].argmax(1) == truth
    assert right.float().mean() >= 0.6  # chance is 0.17


def test_its_card_figures_reach_the_floors():
    figures = json.loads((entries.POCKET_FOLDER / "figures.json").read_text())
    card = (entries.POCKET_FOLDER / "README.md").read_text()
    for name, floor in FLOORS.items():
        assert figures[name] >= floor, name
        assert f"| {name} | {figures[name]:.1%} |" in card


def test_every_file_is_small_enough_for_a_plain_repository():
    files = {path.name: path.stat().st_size for path in entries.POCKET_FOLDER.iterdir()}
    assert max(files.values()) < 10_000_000
    assert sum(files.values()) < 24_000_000
    assert {"config.json", "model.safetensors.index.json", "tokenizer.json", "README.md", vocabulary.FILE} <= set(files)


def test_it_loads_as_its_card_says(pocket, crops):
    from transformers import CLIPProcessor

    from engine.backbones.conv_stem import HybridCLIPModel

    model, processor = (cls.from_pretrained(entries.POCKET_FOLDER) for cls in (HybridCLIPModel, CLIPProcessor))
    images = [Image.open(file.path) for file in crops[::8]]
    inputs = processor(text=["a photo of a cat."], images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model.float()(**inputs).logits_per_image
        ours = pocket.logits(
            pocket.encode_image(pocket.normalise(pocket.load_pixels(images))),
            pocket.encode_text(pocket.tokenize(["a photo of a cat."])),
        )
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
