"""The letters of a method's count formula with their values on a backbone."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from engine.methods.lora import LayerChoice, first_block
from engine.tuning.tuner import Config

if TYPE_CHECKING:
    from engine.backbones.base import Shape
    from engine.tuning.registry import MethodSpec


def values(spec: MethodSpec, config: Config, shape: Shape, K: int, N: int) -> dict[str, str]:
    """Letter or word of ``spec.formula`` -> its value, in the order of the formula.

    ``layers`` stands for the number of targeted layers that a formula with ``in`` and ``out`` sums over.

    Args:
        K: labels.
        N: training images.
    """
    known = letters(spec, config, shape, K, N)
    words = dict.fromkeys(re.findall(r"[A-Za-z_]+", spec.formula))
    found = {word: known[word] for word in words if word in known}
    if isinstance(config, LayerChoice) and words.keys() & {"in", "out"}:
        found["layers"] = f"{len(layers(config, shape)):,}"
    return found


def in_words(known: dict[str, str]) -> str:
    """``K = 10, b ≤ 32``."""
    return ", ".join(f"{name} {value}" if value[0] in "≤" else f"{name} = {value}" for name, value in known.items())


def letters(spec: MethodSpec, config: Any, shape: Shape, K: int, N: int) -> dict[str, str]:
    """Return every letter that a formula may use, and every setting by its name."""
    towers = getattr(config, "chosen_towers", spec.recomputes.towers[:1] or ("vision",))
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    numbers = {
        **{name: value for name, value in settings.items() if type(value) in (int, float)},
        "K": K,
        "N": N,
        "P": shape.embedding,
        "Dt": shape.text_width,
        "Dv": shape.vision_width,
        "p": shape.patch,
    }
    for letter, name in (("M", "tokens"), ("r", "rank")):
        if hasattr(config, name):
            numbers[letter] = getattr(config, name)
    found = {name: f"{value:,}" for name, value in numbers.items()}
    for letter, size in (("D", "width"), ("L", "layers")):
        found[letter] = " / ".join(dict.fromkeys(f"{getattr(shape, f'{tower}_{size}'):,}" for tower in towers))
    if "block_size" in settings:
        found["b"] = f"≤ {settings['block_size']:,}"
    return found


def layers(config: Any, shape: Shape) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of every targeted layer."""
    return [
        size
        for tower in config.chosen_towers
        for size in shape.linears(
            tower, config.kinds, first_block(getattr(shape, f"{tower}_layers"), config.last_blocks)
        )
    ]
