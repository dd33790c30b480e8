"""docs/continual.md speaks of every strategy and every measure."""

from __future__ import annotations

from pathlib import Path

from engine.continual import strategy
from engine.continual.results import MEASURES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "continual.md").read_text(encoding="utf8")


def test_every_strategy_and_measure_is_explained():
    for spec in strategy.strategies():
        assert f"| `{spec.id}` |" in PAGE, spec.id
    for name in MEASURES:
        assert f"`{name}`" in PAGE, name
