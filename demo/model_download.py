"""A backbone, segmenter or vision-language model on its way: a job that fetches and loads it. No gradio."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from demo.job_queue import Job
from demo.words import Translator
from engine.errors import LabError

BACKBONES, SEGMENTERS, ANSWERERS = "engine.backbones.catalog", "engine.regions.catalog", "engine.ask.catalog"
STOPPED = {BACKBONES: "download_stopped", SEGMENTERS: "segmenter_stopped", ANSWERERS: "download_stopped"}
"""Catalogue -> its sentence for a download that was stopped."""


class Loading(Job):
    """Fetches and loads a backbone in a thread of its own; ``stop`` ends a download.

    Args:
        id: the catalogue's.
        catalog: module whose ``fetch`` and ``load`` do it.
    """

    def __init__(self, id: str, catalog: str = BACKBONES):
        super().__init__(self._load)
        self.id, self.catalog = id, catalog
        self.latest = 0, 0
        """Bytes that are here, and of how many; 0 of 0 while nothing is being downloaded."""
        self.start("loading")

    def _load(self) -> Iterator[tuple[int, int]]:
        catalog = import_module(self.catalog)
        catalog.fetch(self.id, lambda done, total: self.report((done, total)), self.stop)
        yield 0, 0
        catalog.load(self.id)

    def watch(self, every: float = 0.3) -> Iterator[tuple[int, int]]:
        """Yield bytes that are here, and of how many. Raises LabError, also where it is stopped."""
        yield from super().watch(every)
        if self.stop.is_set():
            import_module(self.catalog)  # where the sentence is
            raise LabError(STOPPED[self.catalog], id=self.id)


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
