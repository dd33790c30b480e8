"""Sizes as typed and as shown: MB is a million bytes, MiB is not."""

from __future__ import annotations

import pytest

from engine.units import bytes_text, parse_bytes


@pytest.mark.parametrize(
    ("size", "text"), [(12, "12 B"), (98_304, "98 kB"), (999_600, "1.0 MB"), (224e6, "224 MB"), (1.42e9, "1.4 GB")]
)
def test_bytes(size: float, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("500 MB", 5 * 10**8),
        ("20kb", 20_000),
        ("1.5M", 1_500_000),
        ("4096", 4096),
        ("7 B", 7),
        ("2GiB", 2**31),
        ("1.5 mib", 3 * 2**19),
        ("1Ki", 1024),
        (" 1 TB ", 10**12),
        ("", None),
        ("GB", None),
        ("2 XB", None),
        ("-1MB", None),
        ("2iB", None),
        ("1e3MB", None),
    ],
)
def test_what_is_typed(text: str, size: int | None) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("size", [7, 40_000, 500_000_000, 2 * 10**9])
def test_what_is_shown_can_be_typed(size: int) -> None:
    assert parse_bytes(bytes_text(size)) == size
