"""A comparison as a table that other programs read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.outputs import Replacing

if TYPE_CHECKING:
    from engine.compare import Comparison

COLUMNS = (
    "method",
    "shots",
    "seed",
    "status",
    "accuracy",
    "low",
    "high",
    "zero_shot_ensemble",
    "verdict",
    "p_value",
    "test",
    "trainable_parameters",
    "peak_memory_bytes",
    "memory_kind",
    "forecast_memory_bytes",
    "seconds_features",
    "seconds_train",
    "seconds_evaluate",
    "adapter_bytes",
    "backbone",
    "preset",
    "precision",
    "error",
)
"""Of the CSV file."""


def write_csv(comparison: Comparison, path: Path) -> None:
    """One line a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Replacing(path) as fresh, fresh.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for row in comparison.rows:
            found: dict[str, Any] = dict(row.to_json())
            if row.result:
                low, high = found["interval95"]["tuned"]
                found |= {"low": low, "high": high, "zero_shot_ensemble": found["accuracy"]["zero_shot_ensemble"]}
                found |= {f"seconds_{part}": spent for part, spent in found["seconds"].items()}
                found["accuracy"] = found["accuracy"]["tuned"]
            writer.writerow({**found, "error": row.message})
