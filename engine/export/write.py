"""One way out for every form: checked, then put in its place whole."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BadExport, messages, reason_of
from engine.export.files import Exported, Source, sizes
from engine.export.targets import TARGETS
from engine.runs.store import Adapter
from engine.tuning.outcome import Outcome

if TYPE_CHECKING:
    from engine.data.images import ImageFile

messages(
    export_unknown="There is no form {to} to export to. Choose one of: {known}.",
    export_full="The folder {folder} holds other files. Choose a new one, so that nothing is mixed up or lost.",
    export_place="The folder {folder} cannot be written ({reason}). Choose another one.",
)


MEASURED = ("onnx", "page")
"""Forms that round numbers, so that their accuracy is measured where there are images."""


def export(
    ready: Adapter | Outcome, to: str, folder: Path, images: Sequence[ImageFile] = (), **options: Any
) -> Exported:
    """Write a tuned model in a form that other programs read.

    Args:
        to: one of ``TARGETS``.
        folder: new or empty; it is made, with what it lies in.
        images: with labels, for the forms in ``MEASURED``.
        options: of the form's ``write``.

    Raises:
        BadExport: it cannot be written so, or not there; the folder is then as it was.
    """
    if to not in TARGETS:
        raise BadExport("export_unknown", to=to, known=tuple(TARGETS))
    if to in MEASURED:
        options["images"] = images
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadExport("export_full", folder=folder.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as work:
            ready_folder = Path(work) / "export"
            module = importlib.import_module(f"engine.export.{TARGETS[to]}")
            done = module.write(Source.of(ready), ready_folder, **options)
            shutil.copytree(ready_folder, folder, dirs_exist_ok=True)
    except OSError as error:
        raise BadExport("export_place", folder=folder.name, reason=reason_of(error)) from error
    return replace(done, files=sizes(folder))
