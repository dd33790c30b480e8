"""What a strategy gave on one order of the labels, and over several orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.continual.metrics import over_orders
from engine.types import Interval

MEASURES = ("accuracy", "incremental", "forgetting", "backward", "forward", "never_tuned", "open")
"""Measures of a run, in the order of tables."""


@dataclass(frozen=True, eq=False)
class Selection:
    """How often each prompt of a pool was chosen by the test images of each label."""

    counts: np.ndarray
    """``(K, M)`` number of images of label k that chose prompt m."""
    images: tuple[int, ...]
    """Test images a label."""
    chi_square: float
    p_value: float
    """Of a permutation test of whether the choice depends on the label at all."""
    cramers_v: float
    """Strength of the dependence, 0 to 1."""
    began_as: tuple[str, ...]
    """Label of the image that each prompt started from; empty text where it started from noise."""
    pictures: tuple[np.ndarray, ...] = ()
    """What the prompts look like after training, RGB uint8, where they are pictures."""
    starts: tuple[np.ndarray, ...] = ()
    """What they looked like at the start."""

    def own_choice(self, names: Sequence[str]) -> list[tuple[int, str, str, float, float]]:
        """Return for each prompt that began as an image: (prompt, its label, the label that chooses it most, and the
        shares of these two labels' images that choose it)."""
        shares = self.counts / np.maximum(1, np.array(self.images))[:, None]
        found = []
        for m, name in enumerate(self.began_as):
            if name in names:
                own, most = names.index(name), int(shares[:, m].argmax())
                most = own if shares[own, m] == shares[most, m] else most  # a tie is no other label's choice
                found.append((m, name, names[most], float(shares[own, m]), float(shares[most, m])))
        return found

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain data, without the pictures."""
        return {
            "counts": self.counts.tolist(),
            "images": list(self.images),
            "chi_square": self.chi_square,
            "p_value": self.p_value,
            "cramers_v": self.cramers_v,
            "began_as": list(self.began_as),
            "own_choice": [
                {"prompt": m, "began_as": own, "most_chosen_by": most, "own_share": share, "most_share": top}
                for m, own, most, share, top in self.own_choice(names)
            ],
        }


@dataclass(frozen=True, eq=False)
class StrategyResult:
    """One strategy on one order of the labels."""

    strategy: str
    config: Mapping[str, Any]
    order: int
    labels: tuple[str, ...]
    """In the order in which they arrived."""
    step_labels: tuple[tuple[str, ...], ...]
    matrix: np.ndarray
    """``(steps done, T)`` accuracy, see :func:`engine.continual.metrics.summarise`; NaN where it is not known."""
    open_row: tuple[float, ...]
    """Accuracy among all labels of the stream after each step."""
    tested: tuple[int, ...]
    """Test images of each step."""
    measures: Mapping[str, float]
    trained_parameters: int
    kept_bytes: int
    keeps: str
    """What is kept of old images."""
    seconds: float
    """Of learning, all steps together; features are computed before."""
    selection: Selection | None = None
    stopped: bool = False
    """Whether steps are missing: it was stopped, or is still going on."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a measure that does not exist is null."""
        measures = {name: known(value) for name, value in self.measures.items()}
        return {
            "strategy": self.strategy,
            "config": dict(self.config),
            "order": self.order,
            "labels": list(self.labels),
            "steps": [list(names) for names in self.step_labels],
            "matrix": known(self.matrix.tolist()),
            "open_accuracy": known(self.open_row),
            "tested": list(self.tested),
            "measures": measures,
            "trained_parameters": self.trained_parameters,
            "kept_bytes": self.kept_bytes,
            "keeps": self.keeps,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "selection": self.selection.to_json(self.labels) if self.selection else None,
        }


def known(value: Any) -> Any:
    """Return numbers, also in lists, with null in the place of NaN."""
    if isinstance(value, (list, tuple)):
        return [known(item) for item in value]
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True)
class Standing:
    """A strategy over all orders."""

    strategy: str
    measures: Mapping[str, Interval]
    seconds: float
    """Mean over the orders."""
    trained_parameters: int
    kept_bytes: int
    keeps: str


def standings(results: Sequence[StrategyResult]) -> list[Standing]:
    """Return the strategies by their mean final accuracy, best first. Runs that were stopped are left out."""
    groups: dict[str, list[StrategyResult]] = {}
    for result in results:
        if not result.stopped:
            groups.setdefault(result.strategy, []).append(result)
    found = [
        Standing(
            name,
            over_orders([row.measures for row in rows]),
            float(np.mean([row.seconds for row in rows])),
            rows[-1].trained_parameters,
            rows[-1].kept_bytes,
            rows[-1].keeps,
        )
        for name, rows in groups.items()
    ]
    return sorted(found, key=lambda standing: -standing.measures["accuracy"].value)
