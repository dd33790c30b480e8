"""What a tuned model says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """What one model makes of an image."""

    label: str
    """The most probable one."""
    probabilities: Mapping[str, float]
    """Label -> probability, in the order of the adapter's labels; they sum to 1."""

    @property
    def probability(self) -> float:
        """Return that of :attr:`label`."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Prediction:
    """An image before and after tuning."""

    image: str
    """Its name."""
    zero_shot: Scores
    """Of the prompt ensemble."""
    tuned: Scores
    likely: tuple[str, ...] = ()
    """The tuned model's labels, likeliest first, among which the right one is in nine of ten images like those that
    tested it; empty where too few tested it."""
    unlike: bool | None = None
    """Whether the picture is unlike the photos of every label, so that none of them may be right; None where the
    adapter cannot tell."""

    @property
    def label(self) -> str:
        """Return what the tuned model says."""
        return self.tuned.label

    @property
    def probability(self) -> float:
        """Return how sure the tuned model is, 0 to 1."""
        return self.tuned.probability

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
