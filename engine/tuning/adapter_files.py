"""The files of a saved adapter: a folder or zip with ``adapter.json``, ``adapter.safetensors`` and a model card.

Only tensors and plain JSON are ever read; a pickle is refused.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import BadAdapter, messages

SCHEMA = 1
RECIPE, TENSORS, CARD = "adapter.json", "adapter.safetensors", "README.md"
FIELDS = {
    "backbone": str, "weight_hash": str, "method": str, "config": dict, "chosen": dict, "labels": list, "seed": int,
    "templates": list,
}  # fmt: skip
"""What a recipe must hold to be rebuilt, with its JSON types."""
UNPACKED_LIMIT = 4 << 30
"""Most bytes that an adapter zip may unpack to."""

messages(
    adapter_missing="{path} holds no adapter: {file} is missing. Choose the folder or zip that was saved here.",
    adapter_json="{file} cannot be read ({reason}). Save the adapter again.",
    adapter_schema="The adapter has format {found}, this version reads {known}. Use the version that wrote it.",
    adapter_field="{file} lacks {field} or holds something else there. Save the adapter again.",
    adapter_zip="{path} is not a usable zip ({reason}). Choose the zip that was downloaded here.",
)


def pack(folder: Path, target: Path) -> Path:
    """Return the adapter's folder as one zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                archive.write(file, file.name)
    return target


def unpack(path: Path, work: Path) -> Path:
    """Return a zip's adapter, unpacked below ``work``; a folder is returned as it is. Raises BadAdapter."""
    if path.is_dir():
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > UNPACKED_LIMIT:
                raise BadAdapter("adapter_zip", path=path.name, reason="it is too large")
            work.mkdir(parents=True, exist_ok=True)
            for item in archive.infolist():
                if not item.is_dir():  # file names only: a path inside the zip cannot lead elsewhere
                    (work / PurePosixPath(item.filename).name).write_bytes(archive.read(item))
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise BadAdapter("adapter_zip", path=path.name, reason=str(error) or type(error).__name__) from error
    return work


def read_recipe(folder: str | Path) -> dict[str, Any]:
    """``adapter.json``, checked. Raises BadAdapter naming the file and field."""
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise BadAdapter("adapter_missing", path=Path(folder).name, file=RECIPE)
    try:
        recipe = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, OSError) as error:
        raise BadAdapter("adapter_json", file=RECIPE, reason=error) from error
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        found = recipe.get("schema") if isinstance(recipe, dict) else None
        raise BadAdapter("adapter_schema", found=found, known=SCHEMA)
    for name, kind in FIELDS.items():
        if not isinstance(recipe.get(name), kind) or recipe[name] in ([], ""):
            raise BadAdapter("adapter_field", file=RECIPE, field=name)
    for label in recipe["labels"]:
        if not isinstance(label, dict) or not all(isinstance(label.get(k), str) for k in ("name", "prompt")):
            raise BadAdapter("adapter_field", file=RECIPE, field="labels")
    return recipe
