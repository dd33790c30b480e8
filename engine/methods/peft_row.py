"""A row of the table of PEFT's tuners: what the tuner is, its settings, and how they become PEFT's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.tuning.tuner import option

if TYPE_CHECKING:
    from engine.tuning.tuner import Tuner

Layers = tuple[tuple[str, str, int, int], ...]
"""(name, kind, inputs, outputs) of each layer."""


@dataclass(frozen=True)
class Row:
    """One tuner of PEFT."""

    id: str
    name: str
    sentence: str
    use_when: str
    equation: str
    paper: str
    peft: str
    """PEFT's config class."""
    fields: Mapping[str, Any]
    """The tuner's own settings."""
    arguments: Callable[[Any, Layers], dict[str, Any]]
    """Config and layers -> arguments of PEFT's config class."""
    formula: str
    lr: float
    """Peak learning rate of the budget preset."""
    failure: str
    by_width: bool = False
    """Whether the learning rate grows with the inverse width, as for low-rank factors."""
    targets: str = "q,v"
    convolutions: bool = False
    """Whether 1x1 convolutions will do."""
    starts_at: str | None = "zero_shot"
    keeps: frozenset[str] = frozenset()
    """Names of buffers that are saved beside what is trained: what the tuner takes from the weights in a way in which
    machines differ, such as the signs of singular vectors or the order of equal numbers."""
    saved: str = "what PEFT trains; also in PEFT's own format"
    tuner: type[Tuner] | None = None
    """Class of a tuner that needs more than PEFT does by itself; None where the one of the whole table will do."""
    mlp_outputs: str = ""
    """Argument of PEFT's config class that takes the names of the targets that end an MLP; empty where it has none."""
    schedule: Callable[[int], dict[str, Any]] | None = None
    """Gradient steps of the training -> further arguments of PEFT's config class."""
    prepare: Callable[[], None] | None = None
    """What is done to PEFT before it meets this tuner."""


def divisor(limit: int, sizes: list[int]) -> int:
    """Return the largest common divisor of some sizes that is not above a limit."""
    common = math.gcd(*sizes)
    return max(d for d in range(1, min(limit, common) + 1) if common % d == 0)


def inputs(layers: Layers) -> list[int]:
    """Return inputs of each layer."""
    return [i for _, _, i, _ in layers]


def widths(layers: Layers) -> list[int]:
    """Return inputs and outputs of all layers."""
    return [size for _, _, i, o in layers for size in (i, o)]


def low_rank(default: int, meaning: str = "rank") -> dict[str, Any]:
    """Return the setting ``r``."""
    return {"r": option(default, 1, 256, help=meaning)}


def alpha(default: float) -> dict[str, Any]:
    """Return the setting ``alpha``."""
    return {"alpha": option(default, 0.01, 1024, help="scaling: the update is multiplied by alpha / r")}


def block(default: int) -> dict[str, Any]:
    """Return the setting ``block_size``."""
    words = "largest block size; the largest common divisor of the layers' sizes up to it is used"
    return {"block_size": option(default, 2, 1024, help=words)}


def up_to(limit: int, layers: Layers) -> int:
    """Return a rank that every layer can have."""
    return min(limit, *widths(layers))


def even(rank: int) -> int:
    """Return the rank, or one less."""
    return max(2, rank - rank % 2)
