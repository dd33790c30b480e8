"""What of a tuned model fits into a plain one: merged weights, and one matrix and bias for the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from engine.backbones.base import FEATURES, PIXELS, Backbone, fill
from engine.errors import BadExport, Note, messages
from engine.tuning import registry
from engine.tuning.tuner import Tuner, TunerContext

PROBES = 64
"""Random directions on which a head is compared with its matrix and bias."""
TOLERANCE = 1e-4
"""Largest difference of logits that counts as rounding, as a share of the largest logit."""
SEED = 0

messages(
    export_image="{method} adds to the image tower what no plain model of this kind has, so its weights cannot be "
    "merged. Export to onnx or page, which take any method, or tune with a method of weights such as lora.",
    export_head="The scores of {method} are no weighted sum of the image's features, so they cannot be folded into one "
    "weight vector a label. Export to onnx or page, which take any method, or tune with linear_probe or lora.",
    export_blend="The scores of {method} are mixed with those of the untuned image tower, so one tower does not give "
    "them. Export to onnx or page, which hold both, or tune with blend=off.",
    export_inexact="Read by the plain library the scores differ by {difference:.2g}, more than rounding explains; "
    "nothing was written. Export to onnx instead, and please report it.",
)


@dataclass(frozen=True, eq=False)
class Plain:
    """A tuned model as a plain image-text model with one linear layer for the labels."""

    backbone: Backbone
    """With what was trained inside its weights; tensors may be shared with the frozen one."""
    weight: Tensor
    """``(K, P)``: logits are ``f weight^T + bias`` for a normalised image feature f."""
    bias: Tensor
    """``(K,)``."""
    prompts: tuple[str, ...] | None
    """Texts whose features give the same logits through the text tower; None where no text does."""


def fold(tuner: Tuner, setting: TunerContext, method: str) -> Plain:
    """Return a tuned model in plain form.

    Args:
        method: its id, for messages.

    Raises:
        BadExport: the method adds something that no plain model has, or its scores are not linear in the features.
    """
    title = registry.get(method).title
    backbone = tuner.merged()
    if backbone is None:
        raise BadExport("export_image", method=title)
    if tuner.stage != FEATURES and "blend" in tuner.chosen:
        raise BadExport("export_blend", method=title)
    found = linear_head(tuner, setting)
    if found is None:
        raise BadExport("export_head", method=title)
    return Plain(backbone, *found, matching_prompts(backbone, setting, *found))


def probes(setting: TunerContext) -> Tensor:
    """Return normalised features ``(n, P)``: random ones, the labels' texts, and the support images' where known."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(PROBES, setting.ensemble.shape[1], generator=generator).to(setting.ensemble)
    known = setting.support[setting.support.norm(dim=-1) > 0]
    return normalize(torch.cat([noise, setting.ensemble, known]), dim=-1)


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference of logits, as a share of the largest logit where that is above 1."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1))


@torch.no_grad()
def linear_head(tuner: Tuner, setting: TunerContext) -> tuple[Tensor, Tensor] | None:
    """Return ``weight (K, P)`` and ``bias (K,)`` of a tuner's logits; None where they are not linear.

    A linear head is known by what it makes of zero and of the unit vectors; on :func:`probes` the two must agree.
    """
    text = tuner.text_features()
    head: Callable[[Tensor], Tensor]
    if tuner.stage == FEATURES:
        head = lambda feature: tuner.outputs(feature, text)[0]  # noqa: E731
    else:
        head = lambda feature: tuner.head(feature, text)  # noqa: E731
    size = setting.ensemble.shape[1]
    bias = head(setting.ensemble.new_zeros(1, size))[0]
    weight = (head(torch.eye(size).to(setting.ensemble)) - bias).T.contiguous()
    tests = probes(setting)
    exact = largest_difference(tests @ weight.T + bias, head(tests)) <= TOLERANCE
    return (weight, bias) if exact else None


@torch.no_grad()
def matching_prompts(backbone: Backbone, setting: TunerContext, weight: Tensor, bias: Tensor) -> tuple[str, ...] | None:
    """Return the labels' texts in the first template where the text tower gives the same logits by them."""
    prompts = [fill(setting.templates[0], label.prompt) for label in setting.labels]
    tests = probes(setting)
    found = backbone.logits(tests, backbone.encode_text(backbone.tokenize(prompts)))
    return tuple(prompts) if largest_difference(found, tests @ weight.T + bias) <= TOLERANCE else None


def noise_images(side: int, count: int = 2) -> Tensor:
    """Return images ``(B, 3, S, S)`` uint8 of random colours, on which an export is compared."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).float()
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return smooth.to(torch.uint8)


@torch.no_grad()
def compare(plain: Plain, tuner: Tuner, encode: Callable[[Tensor], Tensor]) -> float:
    """Return the largest difference of probabilities between a tuner and what a plain library read again.

    Args:
        encode: normalised pixels ``(B, 3, S, S)`` to image features ``(B, P)`` by that library, normalised or not.

    Raises:
        BadExport: it is more than rounding.
    """
    backbone = tuner.backbone
    pixels = backbone.normalise(noise_images(backbone.shape.image_size).to(backbone.device))
    wanted = backbone.probabilities(tuner(backbone.vision.advance(pixels, PIXELS, tuner.stage)))
    feature = normalize(encode(pixels.cpu()), dim=-1).to(plain.weight)
    difference = float((backbone.probabilities(feature @ plain.weight.T + plain.bias) - wanted).abs().max())
    if difference > TOLERANCE:
        raise BadExport("export_inexact", difference=difference)
    return difference


def how_texts_are_read(plain: Plain) -> Note:
    """Return the sentence on where the labels' texts went."""
    return Note("export_texts_kept" if plain.prompts else "export_texts_folded")


messages(
    export_texts_kept="The labels' texts give the same scores through the text tower.",
    export_texts_folded="The labels' texts, prompts and head are folded into one weight vector a label "
    "(labels.safetensors); the text tower alone does not give these scores.",
)
