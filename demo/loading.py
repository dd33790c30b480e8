"""A backbone on its way: a thread that fetches and loads it, and how far it is. No gradio."""

from __future__ import annotations

import sys
import threading
from typing import Any

from demo.words import Translator


class Loading:
    """Fetches and loads a backbone in a thread of its own; ``stop`` ends a download."""

    def __init__(self, id: str):
        self.id, self.stop, self.finished = id, threading.Event(), threading.Event()
        self.done, self.total = 0, 0
        """Bytes; 0 of 0 while nothing is being downloaded."""
        self.problem: Exception | None = None
        threading.Thread(target=self._work, daemon=True, name="loading").start()

    def _work(self) -> None:
        try:
            from engine.backbones import catalog

            catalog.fetch(self.id, self._report, self.stop)
            self.done = self.total = 0
            catalog.load(self.id)
        except Exception as error:
            self.problem = error
        finally:
            self.finished.set()

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total


def entry_of(backbone: str) -> Any | None:
    """The catalogue's entry of a backbone, where the catalogue is imported and has one."""
    catalog = sys.modules.get("engine.backbones.catalog")
    return next((entry for entry in catalog.ENTRIES if entry.id == backbone), None) if catalog else None


def backbone_name(backbone: str, t: Translator) -> str:
    """A backbone's name on screen; the one without a download comes with the project and says so."""
    entry = entry_of(backbone)
    if entry is None:
        return backbone
    return str(entry.name) if entry.download_mb else t("header.bundled")
