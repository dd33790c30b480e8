"""Files that may be images, and files that may say what the images show; names as people wrote them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.images import Limits, Problem

SIDE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".names", ".parquet"})
"""Endings of files that may hold labels."""
MAX_SIDE_BYTES = 50_000_000
"""Bytes of such a file, but for a parquet, which holds the images."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Direction marks: with them a name can be shown as another (Unicode TR 36, 2.6)."""
_JUNK = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "picasa.ini",
        "icon\r",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
        "_thumbs",
        "thumbnails",
    }
)


@dataclass(frozen=True)
class Candidate:
    """A file that may be an image, or hold labels."""

    name: str
    """Path inside the folder or zip, with slashes."""
    path: Path
    size: int
    """Bytes."""
    label: str | None = None
    split: str | None = None
    """``train``, ``val`` or ``test`` where its place says so."""

    @property
    def is_side(self) -> bool:
        """Whether it may hold labels."""
        return Path(self.name).suffix.lower() in SIDE_SUFFIXES


@dataclass
class Group:
    """What one folder, one zip or all single files hold."""

    title: str
    """Name of the folder, or of the zip without its ending; empty for single files."""
    zipped: bool = False
    files: list[Candidate] = field(default_factory=list)
    sides: list[Candidate] = field(default_factory=list)


@dataclass
class Found:
    """What looking through the given paths has brought up so far."""

    limits: Limits
    groups: list[Group] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unpacked: int = 0
    """Bytes, of all zips."""


def skipped(parts: Sequence[str]) -> bool:
    """Whether a path's parts name something hidden, or a file or folder that systems and storage boxes leave behind."""
    return any((part.startswith((".", "@")) and part != "..") or part.lower() in _JUNK for part in parts)


def natural(name: str) -> tuple[tuple[object, ...], str]:
    """Sort key in which img2 comes before img10; capitals do not matter unless names are otherwise equal."""
    parts: list[object] = re.split(r"([0-9]+)", name.casefold())
    for index in range(1, len(parts), 2):
        digits = str(parts[index]).lstrip("0")
        parts[index] = (len(digits), digits)  # not int(): it refuses thousands of digits
    return tuple(parts), name


def shown(name: str) -> str:
    """A name as people wrote it: whole Korean syllables (macOS splits them), no control characters, and marks that
    would turn the letters after them round as their code."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = _of_older_encoding(name)
    return "".join(_visible(c) for c in unicodedata.normalize("NFC", name))


def _of_older_encoding(name: str) -> str:
    """Return a file system's name that is not in UTF-8; half characters of other origin are no text."""
    try:
        return decoded(os.fsencode(name))
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace").decode()


def _visible(character: str) -> str:
    if character in _TURNING:
        return f"‹U+{ord(character):04X}›"
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) == "Cc" else character


def decoded(raw: bytes) -> str:
    """Bytes of a name without a declared encoding: UTF-8, Korean Windows (cp949), or what the zip standard says."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        korean = raw.decode("cp949")
    except UnicodeDecodeError:
        return raw.decode("cp437")
    # Western accents before a letter are valid cp949 too, but give syllables that hardly occur.
    pairs = [c.encode("cp949") for c in korean if ord(c) > 127]
    common = sum(min(pair) >= 0xA1 for pair in pairs)
    return korean if 2 * common >= len(pairs) else raw.decode("cp437")
