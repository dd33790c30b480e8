"""What a language is to the report and to whatever it shares with the page."""

from __future__ import annotations

from typing import Any, Protocol


class Words(Protocol):
    """What says everything in one language; the page's translator is one."""

    language: str

    def __call__(self, key: str, **fields: Any) -> str:
        """Return the sentence of a key of :func:`engine.report.words.table`."""
        ...

    def engine(self, key: str, values: dict[str, Any]) -> str:
        """Return a sentence of ``engine.errors.MESSAGES`` as plain text."""
        ...

    def name(self, method: str) -> str:
        """Return a method's name as plain text."""
        ...
