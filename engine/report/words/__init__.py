"""The words that the page and the report share, a JSON file a language, and the report's own.

A key belongs to one file: the page adds its own words to these. A sentence may hold tags; what is put into it is plain
text, which :mod:`engine.report.render` escapes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from engine.errors import sentence
from engine.tuning import registry

FOLDER = Path(__file__).resolve().parent


class Words(Protocol):
    """What says everything in one language; the page's translator is one."""

    language: str

    def __call__(self, key: str, **fields: Any) -> str:
        """Return the sentence of a key of these files."""
        ...

    def engine(self, key: str, values: dict[str, Any]) -> str:
        """Return a sentence of ``engine.errors.MESSAGES`` as plain text."""
        ...

    def name(self, method: str) -> str:
        """Return a method's name as plain text."""
        ...


@cache
def table(language: str) -> Mapping[str, str]:
    """Return key -> sentence in one language."""
    return json.loads((FOLDER / f"{language}.json").read_text(encoding="utf8"))


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
        return Counted().format(table("en")[key], **fields)

    def engine(self, key: str, values: dict[str, Any]) -> str:
        """Return a sentence of the engine."""
        return sentence(key, values)

    def name(self, method: str) -> str:
        """Return a method's name."""
        return registry.get(method).name


ENGLISH = English()
