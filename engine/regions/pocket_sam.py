"""Pocket SAM: segment-anything's own model with small parts, kept beside the code.

The classes are those of the library (Kirillov et al., arXiv 2304.02643), so ``SamPredictor`` and
``SamAutomaticMaskGenerator`` work on it as they do on the full model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from engine import plain_json
from engine.errors import SegmenterUnavailable, messages

POCKET_SAM = Path(__file__).resolve().parents[2] / "assets" / "pocket-sam"

messages(
    sam_missing="Pocket SAM's weights are not in {folder}. Restore the folder from the repository; "
    "without it choose another segmenter.",
    sam_broken="{file} is not a complete Pocket SAM ({reason}). Restore it from the repository.",
)


@dataclass(frozen=True)
class PocketSamConfig:
    """Shape of the model; stored beside the weights as ``config.json``."""

    image_size: int = 256
    """Longest side in pixels of what the encoder sees; the rest is padding."""
    patch_size: int = 16
    width: int = 192
    depth: int = 6
    heads: int = 3
    decoder_width: int = 128
    decoder_mlp: int = 512
    decoder_heads: int = 8
    mask_channels: int = 16
    """Hidden channels of the mask prompt's encoder."""

    @property
    def grid(self) -> int:
        """Side of the image embedding; low-resolution masks have four times this side."""
        return self.image_size // self.patch_size


def build_pocket_sam(config: PocketSamConfig | None = None) -> Sam:
    """Return a randomly initialised :class:`Sam` of the given shape, in evaluation mode."""
    config = config or PocketSamConfig()
    grid = (config.grid, config.grid)
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            out_chans=config.decoder_width,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=config.decoder_width,
            image_embedding_size=grid,
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_channels,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=config.decoder_width,
            iou_head_hidden_dim=config.decoder_width,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=config.decoder_width, num_heads=config.decoder_heads, mlp_dim=config.decoder_mlp
            ),
        ),
    )
    return sam.eval()


def load_pocket_sam(folder: Path = POCKET_SAM) -> Sam:
    """Return the model in ``folder`` (``config.json``, ``model.safetensors``), fp32, in evaluation mode.

    Raises SegmenterUnavailable where a file is missing, truncated or of another shape.
    """
    weights = folder / "model.safetensors"
    if not weights.exists() or not (folder / "config.json").exists():
        raise SegmenterUnavailable("sam_missing", folder=folder)
    try:
        known = {field.name for field in fields(PocketSamConfig)}
        stored = plain_json.read(folder / "config.json")
        sam = build_pocket_sam(PocketSamConfig(**{k: v for k, v in stored.items() if k in known}))
        sam.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise SegmenterUnavailable("sam_broken", file=weights, reason=reason) from error
    return sam


def save_pocket_sam(sam: Sam, config: PocketSamConfig, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` (fp16) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().half().cpu().contiguous() for name, tensor in sam.state_dict().items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf8")


def parameters(sam: nn.Module) -> int:
    """Return the number of trained numbers in the model."""
    return sum(p.numel() for p in sam.parameters() if p.requires_grad)
