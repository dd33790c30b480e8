"""JSON of strangers: whatever is wrong with it is a ``ValueError``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import Note


def parse(text: str) -> Any:
    """Return what a text holds. Raises ValueError, also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(Note("nested"))) from error


def read(path: Path) -> Any:
    """Return what a file in UTF-8 holds. Raises ValueError or OSError."""
    return parse(path.read_text(encoding="utf8"))
