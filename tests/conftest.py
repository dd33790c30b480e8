"""Shared small things: a tiny random backbone, coloured images, a task folder."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CTL_CACHE", os.path.join(tempfile.gettempdir(), "clip-tuning-lab-tests"))

from pathlib import Path

import families
import numpy as np
import pytest
import torch
from PIL import Image

from engine import uploads
from engine.backbones import catalog, hf_clip
from engine.backbones.base import Backbone
from engine.images import ImageFile

COLOURS = {"red": (135, 110, 110), "green": (110, 135, 110), "blue": (110, 110, 135)}


def make_tiny(seed: int = 0, **vision) -> hf_clip.HFClip:
    """A random CLIP of 3 layers that reads Pocket CLIP's tokens."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(catalog.POCKET_FOLDER)
    processor = AutoImageProcessor.from_pretrained(catalog.POCKET_FOLDER)
    processor.size = {"shortest_edge": 16}
    processor.crop_size = {"height": 16, "width": 16}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "max_position_embeddings": 40, "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1, "pad_token_id": len(tokenizer) - 1,
    }  # fmt: skip
    image = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
             "image_size": 16, "patch_size": 8} | vision  # fmt: skip
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=24))
    with torch.no_grad():  # the library's own start is so small that all images look alike
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    return hf_clip.HFClip(model, tokenizer, processor, "tiny", hf_clip.hash_weights(model))


@pytest.fixture(scope="session")
def tiny() -> hf_clip.HFClip:
    """The tiny backbone; no test may change it."""
    return make_tiny()


@pytest.fixture(scope="session", params=("siglip", *families.OPEN_CLIP))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny backbone of every family but the first (:func:`tiny`); no test may change it."""
    folder = tmp_path_factory.mktemp(request.param)
    return (
        families.make_siglip(folder) if request.param == "siglip" else families.make_open_clip(request.param, folder)[0]
    )


@pytest.fixture(scope="session")
def pocket() -> hf_clip.HFClip:
    """The bundled backbone."""
    return catalog.load("pocket", "cpu")


def picture(colour: tuple[int, int, int], seed: int, side: int = 24) -> Image.Image:
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 60, (side, side, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each of three colours, in one folder a colour."""
    root = tmp_path_factory.mktemp("task")
    for k, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir()
        for i in range(12):
            picture(colour, 100 * k + i).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def task_images(task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageFile, ...]:
    """The task's images, read by the ordinary way in."""
    return uploads.collect([task_folder], tmp_path_factory.mktemp("work")).images
