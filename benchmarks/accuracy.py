"""Accuracy of every method by shots and task: a table and a plot a task, from kept results of comparisons.

``python -m benchmarks.accuracy --results FOLDER --task clothing=dress,hat --out docs/accuracy.md`` reads what
``python -m engine compare`` left in ``FOLDER`` (``CTL_CACHE/results`` by default) for Pocket CLIP's budget presets. A
task is known by some of its labels. A cell is the mean over seeds with its standard deviation; what stands before the
mark in the page is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import paths
from engine.report import svg
from engine.tuning import registry
from engine.types import BASELINE

PLOTTED = (
    BASELINE,
    "linear_probe",
    "tip_adapter_f",
    "prolip",
    "prompt_tuning",
    "prefix_tuning",
    "visual_prompt_deep",
    "lora",
    "bias_tuning",
)
"""Methods with a line: some of each family, so that names stay apart."""


MARK = "<!-- From here on: python -m benchmarks.accuracy -->\n"


@dataclass
class Cell:
    """A method at a number of shots."""

    shares: dict[int, float] = field(default_factory=dict)
    """Accuracy, 0 to 1, by seed."""
    seconds: list[float] = field(default_factory=list)
    """Training seconds."""

    def values(self) -> list[float]:
        """Accuracy of each seed in percent."""
        return [100 * self.shares[seed] for seed in sorted(self.shares)]

    def text(self) -> str:
        """Mean and standard deviation; a small number of seeds is said."""
        values = self.values()
        if len(values) == 1:
            return f"{values[0]:.1f} (1)"
        few = "" if len(values) >= 5 else f" ({len(values)})"
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}{few}"


Table = Mapping[str, Mapping[int, Cell]]
"""Method -> shots -> cell."""


def kept(folder: Path, backbone: str) -> Iterator[dict[str, Any]]:
    """Results of the budget presets, the newest last."""
    files = sorted(folder.rglob("*.json"), key=lambda file: file.stat().st_mtime)
    for file in files:
        result = json.loads(file.read_text(encoding="utf8"))["result"]
        if result["preset"] == "budget" and result["backbone"] == backbone:
            yield result


def tables(results: Iterator[dict[str, Any]]) -> dict[tuple[str, ...], Table]:
    """Labels of a task -> its table; of two results for the same cell and seed the newer one counts."""
    found: dict[tuple[str, ...], dict[str, dict[int, Cell]]] = {}
    for result in results:
        names = tuple(label["name"] for label in result["labels"])
        cells = found.setdefault(names, defaultdict(lambda: defaultdict(Cell)))
        cell = cells[result["method"]][result["shots"]]
        cell.shares[result["seed"]] = result["accuracy"]["tuned"]
        cell.seconds.append(result["seconds"]["train"])
    return dict(found)


def rows(table: Table, shots: Sequence[int]) -> Iterator[str]:
    """Markdown rows in the registry's order."""
    for spec in registry.methods():
        cells = table.get(spec.id)
        if cells:
            texts = [cells[n].text() if n in cells else "" for n in shots]
            most = cells.get(shots[-1])
            seconds = f"{statistics.median(most.seconds):.1f}" if most else ""
            yield "| " + " | ".join([f"`{spec.id}`", *texts, seconds, verdict(table, spec.id, shots[-1])]) + " |"


def verdict(table: Table, method: str, shots: int) -> str:
    """Seeds in which a method beats the ensemble at most shots, of how many."""
    cell, base = table[method].get(shots), table[BASELINE].get(shots)
    if method == BASELINE or cell is None or base is None:
        return ""
    shared = sorted(cell.shares.keys() & base.shares.keys())
    return f"{sum(cell.shares[s] > base.shares[s] for s in shared)} of {len(shared)}"


def plot(table: Table) -> str:
    """The curves of some methods as SVG."""
    curves = []
    for method in PLOTTED:
        cells = table.get(method, {})
        shots = tuple(sorted(cells))
        if len(shots) < 2:
            continue
        means = tuple(statistics.mean(cells[n].shares.values()) for n in shots)
        spreads = [statistics.stdev(cells[n].shares.values()) if len(cells[n].shares) > 1 else 0 for n in shots]
        colour = svg.ZERO_SHOT if registry.get(method).family == "baseline" else svg.TUNED
        lows, highs = ([m + s * d for m, d in zip(means, spreads, strict=True)] for s in (-1, 1))
        curves.append(
            svg.Line(registry.get(method).name, shots, means, tuple(lows), tuple(highs), colour, method == BASELINE)
        )
    return svg.lines(curves, "training images a label", "accuracy on the test images, mean over seeds")


def section(name: str, table: Table, picture: str) -> str:
    """A task: heading, plot, table."""
    shots = sorted({n for cells in table.values() for n in cells})
    head = ["method", *(f"{n} shot{'s' if n > 1 else ''}" for n in shots), "training s", "beats the ensemble"]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"![Accuracy by shots, {name}]({picture})",
            "",
            "| " + " | ".join(head) + " |",
            "|" + "---|" * len(head),
            *rows(table, shots),
            "",
        ]
    )


def before_tables(page: Path) -> str:
    """What a person wrote on the page, down to the mark."""
    written = page.read_text(encoding="utf8") if page.exists() else ""
    return written.partition(MARK)[0] + MARK


def main() -> None:
    """Write the page and its plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=paths.cache_folder() / "results")
    parser.add_argument("--task", action="append", required=True, metavar="NAME=LABEL,LABEL", help="some of its labels")
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = tables(kept(options.results, options.backbone))
    parts = [before_tables(options.out)]
    for task in options.task:
        name, labels = task.split("=", 1)
        wanted = set(labels.split(","))
        table = next(table for names, table in found.items() if wanted <= set(names))
        picture = options.out.with_name(f"{options.out.stem}-{name.split()[0].lower()}.svg")
        drawn = plot(table).replace('style="', 'style="background:#fff;', 1)  # dark pages show it too
        picture.write_text(drawn + "\n", encoding="utf8")
        parts.append(section(name, table, picture.name))
    options.out.write_text("\n".join(parts), encoding="utf8")


if __name__ == "__main__":
    main()
