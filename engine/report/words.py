"""The words that the page and the report share, and the report's own, in English.

Other languages are the caller's, as the page's translator. A sentence may hold tags; what is put into it is plain text,
which :mod:`engine.report.render` escapes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import sentence
from engine.report import columns
from engine.tuning import registry

FILE = Path(__file__).with_name("words.json")


@cache
def _file() -> Mapping[str, str]:
    return json.loads(FILE.read_text(encoding="utf8"))


def table() -> Mapping[str, str]:
    """Return key -> English sentence; those of the columns' headings are in their own records."""
    return {**_file(), **{f"compare.{column.key}": column.heading for column in columns.COLUMNS}}


class Counted(string.Formatter):
    """``str.format`` where ``{count:image|images}`` is a number and the word for one or for several."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return one field of a sentence."""
        one, divided, several = format_spec.partition("|")
        return f"{value} {one if value == 1 else several}" if divided else super().format_field(value, format_spec)


class English:
    """The engine's own words."""

    language = "en"

    def __call__(self, key: str, **fields: Any) -> str:
        """Return the sentence of a key."""
        return Counted().format(table()[key], **fields)

    def engine(self, key: str, values: dict[str, Any]) -> str:
        """Return a sentence of the engine."""
        return sentence(key, values)

    def name(self, method: str) -> str:
        """Return a method's name."""
        return registry.get(method).name


ENGLISH = English()
