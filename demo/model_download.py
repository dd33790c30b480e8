"""A backbone or segmenter on its way: a thread that fetches and loads it, and how far it is. No gradio."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import Any

from demo.words import Translator

BACKBONES, SEGMENTERS = "engine.backbones.catalog", "engine.regions.catalog"


class Loading:
    """Fetches and loads a backbone in a thread of its own; ``stop`` ends a download.

    Args:
        id: the catalogue's.
        catalog: module whose ``fetch`` and ``load`` do it.
    """

    def __init__(self, id: str, catalog: str = BACKBONES):
        self.id, self.stop, self.finished = id, threading.Event(), threading.Event()
        self.catalog = catalog
        self.done, self.total = 0, 0
        """Bytes; 0 of 0 while nothing is being downloaded."""
        self.problem: Exception | None = None
        threading.Thread(target=self._work, daemon=True, name="loading").start()

    def _work(self) -> None:
        try:
            catalog = import_module(self.catalog)
            catalog.fetch(self.id, self._report, self.stop)
            self.done = self.total = 0
            catalog.load(self.id)
        except Exception as error:
            self.problem = error
        finally:
            self.finished.set()

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total


def entry_of(id: str, catalog: str = BACKBONES) -> Any | None:
    """Return a catalogue's entry, where that catalogue is imported and has one."""
    module = sys.modules.get(catalog)
    return next((entry for entry in module.ENTRIES if entry.id == id), None) if module else None


def backbone_name(backbone: str, t: Translator) -> str:
    """Return a backbone's name on screen."""
    entry = entry_of(backbone)
    return backbone if entry is None else entry_name(entry, t)


def entry_name(entry: Any, t: Translator) -> str:
    """Return the name on screen of a catalogue's entry; what needs no download comes with the project and says so."""
    return str(entry.name) if entry.download_mb else t("header.bundled", name=entry.name)
