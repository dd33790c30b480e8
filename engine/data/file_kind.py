"""What kind of file is it? By its first bytes: names lie."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import features

from engine.errors import BadImage, Note

_READERS = {"HEIC": "pillow-heif", "AVIF": "Pillow 11.3 or later"}
HEAD_BYTES = 64
"""How many bytes of a file :func:`kind_of` looks at."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
)
_HEIF_BRANDS = re.compile(rb"^(?:....)*?(?:heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)


def kind_of(head: bytes) -> str:
    """From a file's head: "image", "HEIC", "AVIF", "zip", "RAR", "7z", "gzip", "xz", "empty", or "" if unknown."""
    if not head:
        return "empty"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[:2] == b"BM" and head[14:18] in {bytes((size, 0, 0, 0)) for size in (12, 40, 52, 56, 64, 108, 124)}:
        return "image"
    if head[4:8] == b"ftyp":
        brands = head[8 : max(12, min(int.from_bytes(head[:4], "big"), len(head)))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if _HEIF_BRANDS.match(brands) else ""
    return ""


@cache
def readable() -> tuple[str, ...]:
    """Return which of HEIC and AVIF can be read here: one by pillow-heif, the other by Pillow."""
    found = []
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
        found.append("HEIC")
    return (*found, *(["AVIF"] if features.check("avif") else []))


def refuse_other_kinds(head: bytes, name: str | Note) -> None:
    """Raise :class:`BadImage` unless ``head``, the first bytes of a file, begins like an image."""
    kind = kind_of(head)
    if kind == "empty":
        raise BadImage("image_empty", name=name)
    if kind in ("HEIC", "AVIF") and kind in readable():
        return
    if kind in ("HEIC", "AVIF"):
        raise BadImage("image_convert", name=name, kind=kind, package=_READERS[kind])
    if kind == "":
        raise BadImage("image_not_image", name=name)
    if kind != "image":
        raise BadImage("image_archive", name=name, kind=kind)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip by its first bytes, or by its name where they say nothing; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError:
        return False
    return kind == "zip" or (path.suffix.lower() == ".zip" and kind in ("", "empty"))
