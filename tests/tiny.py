"""The small things that tests work on: a tiny random CLIP and noisy pictures of one colour."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from engine.backbones import entries, hf_clip

COLOURS = {"red": (135, 110, 110), "green": (110, 135, 110), "blue": (110, 110, 135)}


def make_tiny(seed: int = 0, **vision) -> hf_clip.HFClip:
    """A random CLIP of 3 layers that reads Pocket CLIP's tokens."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(entries.POCKET_FOLDER)
    processor = AutoImageProcessor.from_pretrained(entries.POCKET_FOLDER)
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


def picture(colour: tuple[int, int, int], seed: int, side: int = 24) -> Image.Image:
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 60, (side, side, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
