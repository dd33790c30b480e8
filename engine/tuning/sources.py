"""What settings may name beside the run's own images: other tasks, and saved adapters.

A command line names files. A page that strangers visit names what that visitor made, and no files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.data import uploads
from engine.data.images import ImageFile
from engine.errors import BadAdapter, BadTask, messages
from engine.paths import existing
from engine.types import Label

messages(
    source_unknown="There is no earlier task {name!r} to learn from. Choose among: {known}.",
    source_small="The task {name} cannot teach anything here: it needs images of at least two labels that do not test "
    "this run. Choose another one, or add images to it.",
)


@dataclass(frozen=True)
class SourceTask:
    """A task beside the run's own."""

    labels: tuple[Label, ...]
    images: tuple[ImageFile, ...]
    """Labelled by the labels' names; others are not used."""


@dataclass(frozen=True)
class NamedSources:
    """Tasks and adapters by the names that settings call them."""

    tasks: Mapping[str, SourceTask] = field(default_factory=dict)
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """Folders of saved adapters."""
    files: bool = True
    """Whether a name that is not here may be a file or folder of this machine."""

    def task(self, name: str, work: Path) -> SourceTask:
        """Return a task by name, or from a folder or zip with one sub-folder a class.

        Args:
            work: folder that a zip is unpacked into; the images lie there.

        Raises BadTask.
        """
        if name in self.tasks:
            return self.tasks[name]
        if not self.files:
            raise BadTask("source_unknown", name=name, known=", ".join(self.tasks) or "-")
        images = uploads.collect([os.path.expanduser(name)], work).images
        names = dict.fromkeys(image.label for image in images if image.label)
        return SourceTask(tuple(Label(name, name.replace("_", " ")) for name in names), images)

    def adapter(self, name: str, work: Path) -> Path | None:
        """Folder of a saved adapter by its name, folder or zip; None where the name means something else.

        Args:
            work: folder that a zip is unpacked into.

        Raises BadAdapter for a zip that holds none.
        """
        from engine.tuning import adapter_files

        if name in self.adapters:
            return self.adapters[name]
        path = existing(name)
        if not self.files or path is None:
            return None
        if path.is_file():
            return adapter_files.unpack(path, work)
        if (path / adapter_files.RECIPE).is_file():
            return path
        if (path / adapter_files.TENSORS).is_file():
            raise BadAdapter("adapter_missing", path=path.name, file=adapter_files.RECIPE)
        return None
