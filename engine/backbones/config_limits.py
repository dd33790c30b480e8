"""What a checkpoint's configuration may ask for.

A configuration is a stranger's file: one line of it makes a library build a million layers, or an image processor make
pictures of a gigapixel. So every size has a limit and the sizes together must fit into the weights that come with
it, which is checked before the model is built; the image processor is checked before it sees a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import BackboneUnavailable, messages
from engine.units import MB

messages(
    backbone_size="The file {file} of {id} says that {field} is {value}, but only whole numbers from 1 to {limit:,} "
    "are read here. Choose another backbone, or correct the file.",
    backbone_larger="{id} describes a model of at least {parameters:,.0f} million parameters, but "
    "its weights take only {megabytes:,.1f} MB. Choose a checkpoint whose files belong together.",
    backbone_trunk="The configuration of {id} asks for the convolutional trunk {name}, which is not known here. Choose "
    "another backbone.",
    backbone_crop="The file preprocessor_config.json of {id} makes images of {found} pixels, but its model reads "
    "{wanted} x {wanted}. Choose a checkpoint whose files belong together.",
    backbone_std="The file preprocessor_config.json of {id} has the {field} {value}: three finite numbers are needed, "
    "none of them 0 in image_std. Choose another backbone, or correct the file.",
    backbone_same_tokens="{id} gives different words the same tokens, so that it cannot tell labels apart: its "
    "tokenizer is missing files or belongs to another model. Choose another backbone, or add the tokenizer's files "
    "(tokenizer.json, tokenizer_config.json) to it.",
)

LIMITS = {
    "layers": 128,
    "num_hidden_layers": 128,
    "heads": 256,
    "num_attention_heads": 256,
    "width": 16_384,
    "hidden_size": 16_384,
    "intermediate_size": 131_072,
    "embed_dim": 16_384,
    "projection_dim": 16_384,
    "image_size": 2_048,
    "patch_size": 2_048,
    "num_channels": 3,
    "vocab_size": 2_000_000,
    "max_position_embeddings": 8_192,
    "context_length": 8_192,
}
"""Greatest value of each size; larger than in any published CLIP or SigLIP (layers 56, width 5,120, 1,024 pixels)."""
HARMLESS = 25_000_000
"""Parameters that are built whatever the size of the weights."""
TRUNKS = tuple(f"tf_efficientnet_lite{k}" for k in range(5))
"""Networks of timm that may stand in the place of a patch embedding."""


def check_sizes(config: Mapping[str, Any], file: str, id: str) -> None:
    """Raise BackboneUnavailable where a size of a configuration, or of a part of it, is no whole number within
    :data:`LIMITS`."""
    for name, value in sizes(config):
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= LIMITS[name]:
                shown = str(value)[:40]
                raise BackboneUnavailable(
                    "backbone_size", file=file, id=id, field=name, value=shown, limit=LIMITS[name]
                )


def check_trunk(config: Mapping[str, Any], id: str) -> None:
    """Raise BackboneUnavailable where a ``config.json`` asks for a trunk that is none of :data:`TRUNKS`."""
    vision = config.get("vision_config")
    trunk = vision.get("conv_stem") if isinstance(vision, Mapping) else None
    if trunk and trunk not in TRUNKS:
        raise BackboneUnavailable("backbone_trunk", id=id, name=str(trunk)[:40])


def sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every size that a configuration names, its nested parts included."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from sizes(value)
        elif name in LIMITS and value is not None and not (name == "layers" and isinstance(value, list)):
            yield name, value  # a list of layers is that of a ResNet's stages: few, and small


def check_weights(config: Mapping[str, Any], available: int, id: str) -> None:
    """Raise BackboneUnavailable where the transformers of a ``config.json`` have more parameters than its weights have
    ``available`` bytes; small ones do no harm, and loading says what is wrong with them."""
    parameters = sum(_least_parameters(config.get(part)) for part in ("text_config", "vision_config"))
    if parameters > max(available, HARMLESS):
        raise BackboneUnavailable("backbone_larger", id=id, parameters=parameters / 1e6, megabytes=available / MB)


def _least_parameters(tower: Any) -> int:
    """Parameters of a tower's matrices, as far as its configuration states them."""
    if not isinstance(tower, Mapping):
        return 0
    layers, width = tower.get("num_hidden_layers") or 0, tower.get("hidden_size") or 0
    hidden, words = tower.get("intermediate_size") or 0, tower.get("vocab_size") or 0
    return layers * (4 * width * width + 2 * width * hidden) + words * width


def weight_bytes(folder: Path) -> int:
    """Bytes of all files of weights in a folder."""
    return sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))


def check_processor(processor: Any, image_size: int, id: str) -> None:
    """Raise BackboneUnavailable where an image processor does not make what the image tower reads, before it makes
    anything."""
    cropped = getattr(processor, "do_center_crop", False)
    size = getattr(processor, "crop_size" if cropped else "size", None) or {}
    found = (size["height"], size["width"]) if "height" in size and "width" in size else None
    scaled = (processor.size or {}).get("shortest_edge", image_size) if cropped else image_size
    if found != (image_size, image_size) or not image_size <= scaled <= 2 * image_size:
        shown = " x ".join(map(str, found)) if found else str(dict(size))
        raise BackboneUnavailable("backbone_crop", id=id, found=shown, wanted=image_size)
    check_scaling(getattr(processor, "image_mean", None), getattr(processor, "image_std", None), id)


def check_scaling(mean: Any, std: Any, id: str) -> None:
    """Raise BackboneUnavailable where pixels cannot be normalised by a mean and a deviation of three channels."""
    for field, value in (("image_mean", mean), ("image_std", std)):
        good = isinstance(value, list | tuple) and len(value) == 3
        good = good and all(isinstance(v, int | float) and abs(v) < 1e3 for v in value)
        if not good or (field == "image_std" and min(map(abs, value)) < 1e-6):
            raise BackboneUnavailable("backbone_std", id=id, field=field, value=str(value)[:60])
