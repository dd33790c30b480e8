"""Where this machine keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``CTL_CACHE``, or the user's own cache folder."""
    chosen = os.environ.get("CTL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(usual) / "clip-tuning-lab"
