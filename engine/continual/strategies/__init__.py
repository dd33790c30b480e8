"""One file a strategy; importing a file registers it."""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Import every file of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
