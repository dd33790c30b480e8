"""Where this machine keeps what can be made again, and whether names may be paths of it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cache_folder() -> Path:
    """``CTL_CACHE``, or the user's own cache folder."""
    chosen = os.environ.get("CTL_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))  # unlike Path.expanduser, never raises
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(usual) / "clip-tuning-lab"


def paths_allowed() -> bool:
    """Whether the name of a backbone or segmenter may be a path of this machine: ``CTL_LOCAL_PATHS=no`` forbids it, as
    the page does where others than its owner reach it."""
    return os.environ.get("CTL_LOCAL_PATHS", "yes").strip().lower() not in ("no", "0", "false", "off")


def portable(name: str) -> str:
    """Return a name that says nothing of this machine's folders: an absolute path, alone or after ``NAME@``, as its
    last part."""
    before, at, place = name.rpartition("@")
    if Path(place).is_absolute() or place.startswith("~") or re.match(r"[A-Za-z]:[\\/]", place):
        return before + at + re.split(r"[\\/]", place.rstrip("\\/"))[-1]
    return name


def local_path(name: str) -> Path | None:
    """Return the file or folder of this machine that a name is; None where there is none, or names may be no paths."""
    return existing(name) if paths_allowed() else None


def existing(name: str) -> Path | None:
    """Return the file or folder that a name is; None where there is none, whatever the name looks like."""
    if not name.strip():
        return None
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a name that is too long, of no user, or with a zero byte
        return None
