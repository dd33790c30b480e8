"""docs/ask.md names every model, way and option."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.ask.catalog import ENTRIES
from engine.ask.prompts import WAYS
from engine.cli import ask

USUAL = {"--help", "--model", "--segmenter", "--granularity", "--templates", "--backbone", "--device", "--seed"}


def test_the_documentation_names_everything_there_is():
    text = (Path(__file__).resolve().parents[3] / "docs" / "ask.md").read_text(encoding="utf8")
    for name in (*(entry.id for entry in ENTRIES), *WAYS):
        assert f"`{name}`" in text, name
    for entry in ENTRIES[1:]:
        assert entry.repo in text
    parser = argparse.ArgumentParser()
    ask.arguments(parser)
    for action in parser._actions:
        assert USUAL & set(action.option_strings) or action.option_strings[0] in text, action.option_strings
