"""The small things that tests work on: a tiny random CLIP and noisy pictures of one colour."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from engine.backbones import entries, hf_clip
from engine.backbones.conv_stem import ConvStem, HybridCLIPModel

COLOURS = {"red": (135, 110, 110), "green": (110, 135, 110), "blue": (110, 110, 135)}


TRUNK = {"conv_stem": "test_efficientnet", "image_size": 64, "patch_size": 32}
"""Settings of a vision tower whose patches a convolutional trunk embeds, as Pocket CLIP's."""


def make_tiny(seed: int = 0, id: str = "tiny", **vision) -> hf_clip.HFClip:
    """A random CLIP of 3 layers that reads Pocket CLIP's tokens."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig

    tokenizer = AutoTokenizer.from_pretrained(entries.POCKET_FOLDER)
    processor = AutoImageProcessor.from_pretrained(entries.POCKET_FOLDER)
    side = vision.get("image_size", 16)
    processor.image_mean, processor.image_std = OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    processor.size = {"shortest_edge": side}
    processor.crop_size = {"height": side, "width": side}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
        "pad_token_id": len(tokenizer) - 1,
    }
    image = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    } | vision
    torch.manual_seed(seed)
    model = HybridCLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=24))
    with torch.no_grad():  # the library's own start is so small that all images look alike
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and ".trunk." not in name:
                parameter.mul_(4)
        if "conv_stem" in vision:
            wake(model.vision_model.embeddings.patch_embedding)
    return hf_clip.HFClip(model, tokenizer, processor, id, hf_clip.hash_weights(model))


def wake(stem: ConvStem) -> None:
    """Scale what a random trunk returns, which is nearly the same for all images, so that patches differ."""
    pixels = torch.stack([torch.rand(3, 1, 1) * torch.rand(3, 64, 64) for _ in range(8)]) * 4 - 2
    patches = stem(pixels)
    spread = patches.std()
    stem.projection.weight.div_(spread)
    stem.projection.bias.sub_(patches.mean((0, 2, 3))).div_(spread)


def picture(colour: tuple[int, int, int], seed: int, side: int = 24) -> Image.Image:
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 60, (side, side, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
