"""Tables of images (parquet), as the Hugging Face hub keeps data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from engine import plain_json
from engine.data.files import Candidate
from engine.data.folders import split_of
from engine.data.label_files import label_column
from engine.errors import BadTask, messages

messages(
    parquet_no_reader="{name} is a parquet table, which needs pyarrow to be read. Install it (pip install pyarrow), or "
    "save the images as files in one folder a label.",
    parquet_broken="{name} is no parquet table that can be read. Download it again.",
    parquet_no_image="{name} has no column of images. Its columns are: {columns}.",
)

_ROWS = 64  # at a time


def read_parquet(side: Candidate, folder: Path, most_bytes: int, most_rows: int) -> list[Candidate]:
    """Write the images of a table as files into ``folder`` and return them with their labels and split.

    Rows beyond either bound are left out. Raises BadTask: it needs pyarrow, is damaged, or has no column of images.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise BadTask("parquet_no_reader", name=side.name) from None
    try:
        with parquet.ParquetFile(side.path) as table:
            return list(_images(table, side, folder, most_bytes, most_rows))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadTask("parquet_broken", name=side.name) from error


def _images(table: Any, side: Candidate, folder: Path, most_bytes: int, most_rows: int) -> Iterator[Candidate]:
    schema = table.schema_arrow
    image = next((f.name for f in schema if _holds_bytes(f.type)), None)
    if image is None:
        raise BadTask("parquet_no_image", name=side.name, columns=", ".join(schema.names))
    others = [f.name for f in schema if f.name != image and not _nested(f.type)]
    names, split, label = _class_names(schema), _split(side.name), None
    folder.mkdir(parents=True, exist_ok=True)
    title, number, used = PurePosixPath(side.name).stem, 0, 0
    for batch in table.iter_batches(_ROWS, columns=[image, *others]):
        rows = batch.to_pylist()
        label = label or next(iter(names), None) or label_column(rows, others)
        for row in rows:
            cell = row[image]
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            used += len(data or b"")
            if number >= most_rows or used > most_bytes:
                return
            path = folder / f"{title[:40]}-{number:06d}"
            path.write_bytes(data or b"")
            value = row.get(label) if label else None
            text = "" if value is None else str(value).strip()
            if label in names and isinstance(value, int) and 0 <= value < len(names[label]):
                text = names[label][value]
            kept = cell.get("path") if isinstance(cell, dict) else None
            name = f"{title}/{number:06d}" + (f" {PurePosixPath(kept).name}" if kept else "")
            yield Candidate(name, path, len(data or b""), text or None, split)
            number += 1


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _nested(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Names of the classes by column, where the ``datasets`` library has written them."""
    try:
        features = plain_json.parse((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _split(name: str) -> str | None:
    """Split of a file such as ``data/train-00000-of-00001.parquet`` or ``train/0000.parquet``."""
    path = PurePosixPath(name)
    return split_of(path.stem.split("-")[0]) or (split_of(path.parent.name) if path.parent.name else None)
