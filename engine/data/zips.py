"""Zips -> files with names of our own, with every bound on what a hostile one may do."""

from __future__ import annotations

import errno
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from engine.data.file_kind import HEAD_BYTES, refuse_other_kinds
from engine.data.files import MAX_SIDE_BYTES, SIDE_SUFFIXES, Candidate, Found, Group, decoded, shown, skipped
from engine.data.images import Problem
from engine.errors import BadTask, LabError, messages
from engine.units import MB

messages(
    zip_broken="{name} is not a complete zip. Make it again, or upload it again if the upload was cut off.",
    zip_entries="{name} holds more than {limit} files. Make a zip with only the images of this task.",
    zip_too_large="{name} holds {megabytes:g} MB; the limit is {limit:g} MB. Use fewer or smaller images.",
    zip_bomb="{name} was refused: it unpacks to {ratio} times its size, as images never do. "
    "Make a new zip from the original images.",
    zip_unsafe_name="{name} was left out: its name points outside the zip. Make the zip again from a plain folder.",
    zip_link="{name} is a link, not a file, and was left out. Put the image itself into the zip.",
    zip_encrypted="{name} is protected by a password. Make the zip again without one.",
    zip_method="{name} is packed in a way that cannot be read here. Make the zip again with ordinary compression.",
    zip_entry_broken="{name} is damaged inside the zip. Make the zip again, or leave this file out.",
)

MAX_ENTRIES = 10_000
"""Files in one zip, folders and system files included."""
_MAX_RATIO, _RATIO_COUNTS_FROM = 200, 10 * 2**20  # times; bytes: small files of one colour may pack very well
_SUFFIXES = SIDE_SUFFIXES | {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}
_CHUNK = 2**20  # bytes read at a time
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def megabytes(count: int) -> float:
    """Return bytes in millions, with digits enough to be above zero."""
    return round(count / MB, 1) or round(count / MB, 6)


def unpack(source: Path, work: Path, found: Found) -> Group:
    """Return the entries of a zip that look like images or may hold labels, as files in a new folder below ``work``.

    Raises :class:`BadTask` if the whole zip is refused.
    """
    title = shown(source.name)
    _check_directory(source, title)
    try:
        archive = zipfile.ZipFile(source)
    except (*_BROKEN, NotImplementedError):
        raise BadTask("zip_broken", name=title) from None
    group = Group(Path(title).stem, zipped=True)
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_totals(entries, source, title, found)
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="zip-", dir=work))
        for number, entry in enumerate(entries):
            name = _entry_name(entry)
            parts = [part for part in name.split("/") if part not in ("", ".")]
            suffix = Path(name).suffix.lower()
            if skipped(parts) or name.endswith("/"):
                continue
            try:
                _check_entry(entry, name, parts)
                name = "/".join(parts)
                target = folder / f"{number:05d}{suffix if suffix in _SUFFIXES else ''}"
                size = _copy(archive, entry, name, target, found)
            except LabError as error:
                found.problems.append(Problem.of(error))
                if error.key == "zip_too_large":
                    break
                continue
            candidate = Candidate(name, target, size)
            (group.sides if candidate.is_side else group.files).append(candidate)
    return group


def _check_directory(source: Path, title: str) -> None:
    """Count the entries before zipfile makes an object of each: a zip of 200 MB may list four million."""
    count, tail = 0, b""
    with open(source, "rb") as file:
        while chunk := file.read(_CHUNK):
            count += (tail + chunk).count(b"PK\x01\x02")
            tail = chunk[-3:]
            if count > MAX_ENTRIES:
                raise BadTask("zip_entries", name=title, limit=MAX_ENTRIES)


def _check_totals(entries: list[zipfile.ZipInfo], source: Path, title: str, found: Found) -> None:
    declared, packed = sum(entry.file_size for entry in entries), source.stat().st_size
    limit = found.limits.upload_bytes
    _check_ratio(declared, packed, title)
    if (size := max(declared, packed) + found.unpacked) > limit:
        raise BadTask("zip_too_large", name=title, megabytes=megabytes(size), limit=megabytes(limit))


def _check_ratio(size: int, packed: int, name: str) -> None:
    if size > _RATIO_COUNTS_FROM and size > _MAX_RATIO * packed:
        raise BadTask("zip_bomb", name=name, ratio=size // max(1, packed))


def _entry_name(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    if not entry.flag_bits & 0x800:  # not declared UTF-8: zipfile has read it as cp437
        with suppress(UnicodeEncodeError):  # it has found a Unicode name elsewhere
            name = decoded(name.encode("cp437"))
    return shown(name.replace("\\", "/"))


def _check_entry(entry: zipfile.ZipInfo, name: str, parts: list[str]) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or not parts:
        raise BadTask("zip_unsafe_name", name=name)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise BadTask("zip_link", name=name)
    if entry.flag_bits & 0x1:
        raise BadTask("zip_encrypted", name=name)
    # The others allow one small read to expand without bound, and nobody packs photos with them.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadTask("zip_method", name=name)
    _check_ratio(entry.file_size, entry.compress_size, name)


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, target: Path, found: Found) -> int:
    """Write the entry to ``target`` if it begins like an image or may hold labels; returns its bytes, counted while
    reading."""
    limit, size = found.limits.upload_bytes, 0
    side = target.suffix in SIDE_SUFFIXES
    if side and target.suffix != ".parquet" and entry.file_size > MAX_SIDE_BYTES:
        raise BadTask("zip_entry_broken", name=name)
    try:
        with archive.open(entry) as packed:
            chunk = packed.read(HEAD_BYTES)
            if not side:
                refuse_other_kinds(chunk, name)
            with open(target, "wb") as file:
                while chunk:
                    size += len(chunk)
                    found.unpacked += len(chunk)
                    if (total := found.unpacked) > limit:  # what the zip declares need not be true
                        title = shown(Path(archive.filename or name).name)
                        raise BadTask("zip_too_large", name=title, megabytes=megabytes(total), limit=megabytes(limit))
                    file.write(chunk)
                    chunk = packed.read(_CHUNK)
    except (*_BROKEN, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk is not the zip's fault
        raise BadTask("zip_entry_broken", name=name) from None
    return size
