"""Sizes as people read and type them: kB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024."""

from __future__ import annotations

import re

KB, MB, GB = 10**3, 10**6, 10**9


def bytes_text(size: float) -> str:
    """``98 kB``, ``224 MB``, ``1.4 GB``."""
    for unit, scale in (("GB", GB), ("MB", MB), ("kB", KB)):
        if size >= 0.9995 * scale:
            value = size / scale
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    return f"{size:.0f} B"


def parse_bytes(text: str) -> int | None:
    """Return bytes of ``2GB``, ``500 MB``, ``1.5 MiB``, ``20k`` or ``4096``; None for what is no size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?\s*", text, re.IGNORECASE)
    if not found:
        return None
    power = " KMGT".index((found[2] or " ").upper())
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)
