"""The files of a saved adapter: a folder or zip with ``adapter.json``, ``adapter.safetensors`` and a model card.

Only tensors and plain JSON are ever read; a pickle is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from engine import plain_json
from engine.errors import BadAdapter, Note, messages, reason_of
from engine.types import MAX_SEED
from engine.units import MB

SCHEMA = 1
RECIPE, TENSORS, CARD = "adapter.json", "adapter.safetensors", "README.md"
PEFT_CONFIG, PEFT_TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""Files of PEFT's own format."""
FIELDS = {
    "backbone": str,
    "weight_hash": str,
    "method": str,
    "config": dict,
    "chosen": dict,
    "labels": list,
    "seed": int,
    "templates": list,
}
"""What a recipe must hold to be rebuilt, with its JSON types."""
UNPACKED_LIMIT = 4 << 30
"""Most bytes of an adapter's tensors, where its backbone is not known."""
SUPPORT_LIMIT = 256 << 20
"""Bytes of support features that an adapter may hold beside weights."""
_RECIPE_LIMIT, _MAX_ENTRIES, _MAX_RATIO, _CHUNK = 16 << 20, 1000, 100, 1 << 20

messages(
    adapter_missing="{path} holds no adapter: {file} is missing. Choose the folder or zip that was saved here.",
    adapter_json="{file} cannot be read ({reason}). Save the adapter again.",
    adapter_schema="The adapter has format {found}, this version reads {known}. Use the version that wrote it.",
    adapter_field="{file} lacks {field} or holds something else there. Save the adapter again.",
    not_a_zip="File is not a zip file",
    many_files="it holds more than {limit:,} files",
    unpacks_to="{file} unpacks to more than {limit:,.0f} MB",
    grows_by="{file} unpacks to more than {times} times its size, as weights never do",
    adapter_zip="{path} is not a usable zip ({reason}). Choose the zip that was downloaded here.",
)


def pack(folder: Path, target: Path) -> Path:
    """Return the adapter's folder as one zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                archive.write(file, file.name)
    return target


def unpack(path: Path, work: Path, parameters: int | None = None) -> Path:
    """Return a zip's adapter, its recipe and tensors unpacked into ``work``; a folder is returned as it is.

    Nothing else of the zip is written, and memory stays small. The tensors may take as many bytes as the backbone's
    ``parameters`` in fp32 and ``SUPPORT_LIMIT``, or ``UNPACKED_LIMIT`` where it is not known yet. Raises BadAdapter.
    """
    most = UNPACKED_LIMIT if parameters is None else 4 * parameters + SUPPORT_LIMIT
    if path.is_dir():
        return path
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise BadAdapter("adapter_zip", path=path.name, reason=Note("not_a_zip"))
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > _MAX_ENTRIES:
                raise BadAdapter("adapter_zip", path=path.name, reason=Note.of("many_files", limit=_MAX_ENTRIES))
            work.mkdir(parents=True, exist_ok=True)
            # By file name: a path inside the zip cannot lead elsewhere.
            found = {PurePosixPath(item.filename).name: item for item in archive.infolist()}
            for name, limit in ((RECIPE, _RECIPE_LIMIT), (TENSORS, most)):
                if name in found:
                    _copy(archive, found[name], work / name, limit, path.name)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, NotImplementedError, ValueError) as error:
        raise BadAdapter("adapter_zip", path=path.name, reason=reason_of(error)) from error
    return work


def _copy(archive: zipfile.ZipFile, item: zipfile.ZipInfo, target: Path, limit: int, path: str) -> None:
    """Write one file of a zip piece by piece; what the zip says of its size need not be true.

    Raises BadAdapter, naming the zip by ``path``.
    """
    small, size = max(item.compress_size, 1), 0
    with archive.open(item) as packed, open(target, "wb") as file:
        while chunk := packed.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise BadAdapter(
                    "adapter_zip", path=path, reason=Note.of("unpacks_to", file=target.name, limit=limit / MB)
                )
            if size > 10 * _CHUNK and size > _MAX_RATIO * small:
                raise BadAdapter(
                    "adapter_zip", path=path, reason=Note.of("grows_by", file=target.name, times=_MAX_RATIO)
                )
            file.write(chunk)


def read_recipe(folder: str | Path, name: str = "") -> dict[str, Any]:
    """``adapter.json``, checked; ``name`` is what messages call the folder or zip (default: the folder's name).

    Raises BadAdapter naming the file and field.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise BadAdapter("adapter_missing", path=name or Path(folder).name, file=RECIPE)
    try:
        recipe = plain_json.read(path)
    except (ValueError, OSError) as error:
        raise BadAdapter("adapter_json", file=RECIPE, reason=reason_of(error)) from error
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        found = recipe.get("schema") if isinstance(recipe, dict) else None
        raise BadAdapter("adapter_schema", found=found, known=SCHEMA)
    for name, kind in FIELDS.items():
        if not isinstance(recipe.get(name), kind) or recipe[name] in ([], ""):
            raise BadAdapter("adapter_field", file=RECIPE, field=name)
    if not 0 <= recipe["seed"] <= MAX_SEED:
        raise BadAdapter("adapter_field", file=RECIPE, field="seed")
    if not all(isinstance(template, str) for template in recipe["templates"]):
        raise BadAdapter("adapter_field", file=RECIPE, field="templates")
    for label in recipe["labels"]:
        if not isinstance(label, dict) or not all(isinstance(label.get(k), str) for k in ("name", "prompt")):
            raise BadAdapter("adapter_field", file=RECIPE, field="labels")
    return recipe
