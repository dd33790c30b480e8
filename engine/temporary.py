"""Folders for what lasts as long as a process, and the sweep of those that ended processes left behind."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

PREFIX = "clip-tuning-lab-"
OLD = 24 * 3600
"""Seconds after which a folder without its process's number is nobody's."""

_made: set[str] = set()


def make() -> Path:
    """Return a new folder, which whoever made it deletes."""
    found = tempfile.mkdtemp(prefix=_prefix())
    _made.add(found)
    return Path(found)


def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder that goes with the block it is used in."""
    found = tempfile.TemporaryDirectory(prefix=_prefix())
    _made.add(found.name)
    return found


def sweep() -> int:
    """Delete this user's folders whose process has ended, as after ``kill -9``; returns how many."""
    gone = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink() and _is_ours(path) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)
                gone += not path.exists()
    return gone


def trim(root: Path, most: int) -> int:
    """Delete the oldest files below a folder until ``most`` bytes are left; returns how many went."""
    found = []
    for path in root.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
    total, gone = sum(size for _, size, _ in found), 0
    for _, size, path in sorted(found, key=lambda row: row[0]):
        if total <= most:
            break
        path.unlink(missing_ok=True)
        total, gone = total - size, gone + 1
    return gone


def _prefix() -> str:
    return f"{PREFIX}{os.getpid()}-"


def _is_ours(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def _is_left(path: Path) -> bool:
    """Whether no process uses a folder any more. A process that is younger than the folder only has the same number,
    as every first process of a container has."""
    if str(path) in _made:
        return False
    made = path.stat().st_ctime
    numbered = re.fullmatch(rf"{PREFIX}(\d+)-[a-z0-9_]{{8}}", path.name)
    if not numbered:
        return bool(re.fullmatch(rf"{PREFIX}[a-z0-9_]{{8}}", path.name)) and time.time() - made > OLD
    try:
        return psutil.Process(int(numbered[1])).create_time() > made + 1
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
