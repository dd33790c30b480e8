"""Labels outside folders: tables, COCO, YOLO, names of numbered classes."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from engine import plain_json
from engine.data.files import Candidate
from engine.data.folders import split_of

_LABELS = (
    "label",
    "labels",
    "class",
    "classes",
    "class_name",
    "classname",
    "class name",
    "label_name",
    "category",
    "category_name",
    "categories",
    "target",
    "name",
    "species",
    "breed",
    "tag",
    "text",
    "dx",
    "y",
    "라벨",
    "레이블",
    "분류",
)
"""Columns that hold the label, the likeliest first."""
_SPLITS = ("split", "set", "subset", "partition", "data set", "dataset")
_NAME_FILES = re.compile(r"(?:.*[_-])?(?:classes|labels|names|class_names|categories|words|synsets?|mapping|obj)", re.I)


@dataclass
class Annotations:
    """What files beside the images say of them."""

    labels: dict[str, str] = field(default_factory=dict)
    """Name of an image -> label."""
    splits: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Number or code of a class -> its name."""
    used: dict[str, str] = field(default_factory=dict)
    """Name of a file that was read -> what it is: ``table``, ``coco``, ``yolo`` or ``names``."""
    several: int = 0
    """Images of which more than one label is told; they have none."""


class _Index:
    """From a reference to an image, as people write them, to the image."""

    def __init__(self, files: Sequence[Candidate]):
        self.by_end: dict[str, list[str]] = defaultdict(list)
        for file in files:
            path = PurePosixPath(file.name)
            for key in {path.name.casefold(), path.stem.casefold()}:
                self.by_end[key].append(file.name)

    def find(self, reference: object, near: str = "") -> str | None:
        """Return the name of the image that ``reference`` in the file ``near`` means."""
        text = str(reference).strip().replace("\\", "/").removeprefix("./")
        found = self.by_end.get(text.rpartition("/")[2].casefold(), [])
        if len(found) < 2:
            return found[0] if found else None
        wanted = text.casefold()
        ends = [name for name in found if _without_ending(name).endswith("/" + _without_ending(wanted))]
        folder = near.rpartition("/")[0]
        beside = [name for name in ends or found if name.startswith(folder + "/")] if folder else []
        exact = [name for name in found if name.casefold() in (wanted, f"{folder}/{wanted}".casefold())]
        for choice in (exact, ends, beside):
            if len(choice) == 1:
                return choice[0]
        return None


def _without_ending(name: str) -> str:
    return re.sub(r"\.\w{2,5}$", "", name.casefold())


def read_annotations(sides: Sequence[Candidate], files: Sequence[Candidate]) -> Annotations:
    """Read whatever of ``sides`` tells labels of ``files``; what tells nothing is not among ``used``."""
    found, index = Annotations(), _Index(files)
    boxes: list[Candidate] = []
    for side in sides:
        ending = PurePosixPath(side.name).suffix.lower()
        if ending == ".parquet":
            continue
        text = _text(side)
        if ending in (".csv", ".tsv"):
            _table(side, _csv_rows(text), index, found)
        elif ending in (".json", ".jsonl"):
            _json(side, _json_of(text), index, found)
        elif ending in (".yaml", ".yml"):
            _names(side, _yaml_names(text), found)
        elif _NAME_FILES.fullmatch(PurePosixPath(side.name).stem) or ending == ".names":
            _names(side, names_in(text), found)
        elif re.fullmatch(r"(?:\s*\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*)*", text) and index.find(_pure_stem(side.name)):
            boxes.append(side)
        else:
            _table(side, _csv_rows(text), index, found)
    _yolo(boxes, index, found)
    return found


def _text(side: Candidate) -> str:
    raw = side.path.read_bytes()
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def _pure_stem(name: str) -> str:
    return PurePosixPath(name).stem


# Tables


def _csv_rows(text: str) -> list[dict[str, Any]]:
    """Rows by column; columns without names are called by their number."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    separator = max(",;\t", key=lines[0].count)
    if not lines[0].count(separator):
        separator = " "
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
    except csv.Error:
        return []
    head = rows[0]
    known = {*_LABELS, *_SPLITS, "file", "filename", "file_name", "image", "path"}
    named = any(cell.casefold() in known for cell in head) or not any(re.search(r"\.\w{3,4}$", cell) for cell in head)
    names = head if named else [str(k) for k in range(len(head))]
    return [dict(zip(names, row, strict=False)) for row in (rows[1:] if named else rows)]


def _table(side: Candidate, rows: list[dict[str, Any]], index: _Index, found: Annotations) -> None:
    """Take in rows with a column of file names and one of labels, or one column a label of zeros and ones."""
    columns = list(dict.fromkeys(column for row in rows[:200] for column in row))
    hits = {c: sum(index.find(row.get(c), side.name) is not None for row in rows if row.get(c)) for c in columns}
    best = max(columns, key=lambda column: hits[column], default=None)
    if best is None or hits[best] == 0 or hits[best] * 4 < len(rows):
        return
    column = label_column(rows, [name for name in columns if name != best])
    split = next((c for c in columns if c.casefold().strip() in _SPLITS), None)
    hot = [] if column else _one_hot(rows, [c for c in columns if c not in (best, split)])
    told: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        name = index.find(row.get(best), side.name) if row.get(best) else None
        if name is None:
            continue
        if split and (part := split_of(str(row.get(split) or ""))):
            found.splits[name] = part
        if column and (label := _cell(row.get(column))):
            told[name].add(label)
        told[name] |= {c.strip() for c in hot if _cell(row.get(c)) in ("1", "True", "true")}
    if column or hot or split:
        _tell(told, found)
        found.used[side.name] = "table"


def label_column(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    """Return the column that holds the label: by its name, or the only one whose few values come again."""
    by_name = {column.casefold().strip(): column for column in columns}
    for name in _LABELS:
        if name in by_name:
            return by_name[name]
    texts = []
    for column in columns:
        values = [value for row in rows if (value := _cell(row.get(column)))]
        measured = all(re.fullmatch(r"-?\d*\.\d+|[01]", value) for value in values)
        again = 2 <= len(set(values)) <= max(2, len(values) // 2)
        if column.casefold().strip() not in _SPLITS and again and not measured:
            texts.append(column)
    return texts[0] if len(texts) == 1 else None


def _one_hot(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    binary = [c for c in columns if {_cell(row.get(c)) for row in rows} <= {"0", "1", "True", "False", "true", "false"}]
    return binary if len(binary) >= 2 else []


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or isinstance(value, (dict, list, bytes)) else str(value).strip()


def _tell(told: Mapping[str, set[str]], found: Annotations) -> None:
    for name, labels in told.items():
        if len(labels) == 1:
            found.labels[name] = next(iter(labels))
        elif labels:
            found.several += 1


# JSON: COCO, lists of records, names of classes


def _json_of(text: str) -> Any:
    try:
        return plain_json.parse(text)
    except ValueError:
        pass
    try:
        return [plain_json.parse(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return None


def _json(side: Candidate, data: Any, index: _Index, found: Annotations) -> None:
    if isinstance(data, dict) and isinstance(data.get("annotations"), list) and isinstance(data.get("images"), list):
        _coco(side, data, index, found)
    elif isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        _table(side, data, index, found)
    elif isinstance(data, list) and data and all(isinstance(name, str) for name in data):
        _names(side, {str(k): name for k, name in enumerate(data)}, found)
    elif isinstance(data, dict) and data and all(isinstance(value, (str, int)) for value in data.values()):
        if (names := _numbered(data)) is not None:
            _names(side, names, found)
        else:
            _table(side, [{"file": key, "label": value} for key, value in data.items()], index, found)


def _numbered(data: Mapping[str, str | int]) -> dict[str, str] | None:
    """Return number -> name of a JSON object that tells either by the other, else None."""
    if all(key.isdecimal() for key in data):
        return {key: str(value) for key, value in data.items()}
    values = [value for value in data.values() if isinstance(value, int)]
    files = any(re.search(r"\.\w{3,4}$", key) for key in data)
    return {str(v): k for k, v in data.items()} if not files and sorted(values) == list(range(len(data))) else None


def _coco(side: Candidate, data: dict[str, Any], index: _Index, found: Annotations) -> None:
    def rows(key: str) -> Iterable[dict[str, Any]]:
        return (row for row in data.get(key) or () if isinstance(row, dict))

    names = {row.get("id"): str(row.get("name", "")).strip() for row in rows("categories")}
    files = {row.get("id"): index.find(row.get("file_name", ""), side.name) for row in rows("images")}
    told: dict[str, set[str]] = defaultdict(set)
    for row in rows("annotations"):
        name, label = files.get(row.get("image_id")), names.get(row.get("category_id"))
        if name and label:
            told[name].add(label)
    if told:
        _tell(told, found)
        found.used[side.name] = "coco"


# YOLO and names of numbered classes


def _yolo(boxes: Sequence[Candidate], index: _Index, found: Annotations) -> None:
    """Take in one text file an image, a line a box, which begins with the number of its class."""
    for side in boxes:
        parts = ["images" if part.casefold() == "labels" else part for part in side.name.split("/")]
        name = index.find("/".join(parts).rpartition(".")[0], "/".join(parts))
        numbers = {line.split()[0] for line in _text(side).splitlines() if line.strip()}
        if name:
            found.used[side.name] = "yolo"
            _tell({name: numbers}, found)


def names_in(text: str) -> dict[str, str]:
    """Names of classes in a text, one a line: by their number, or by a code that stands before them.

    >>> names_in("n01443537 goldfish, Carassius auratus")["n01443537"]
    'goldfish'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    coded = [re.match(r"(\d+|n\d{8})[\s:,;=]+(\S.*)", line) for line in lines]
    if lines and all(coded):
        return {match[1]: match[2].split(",")[0].strip() for match in coded if match}
    turned = [re.match(r"(\S.*?)[\s:,;=]+(\d+)$", line) for line in lines]
    if lines and all(turned) and {int(match[2]) for match in turned if match} == set(range(len(lines))):
        return {match[2]: match[1] for match in turned if match}
    return {str(k): line for k, line in enumerate(lines)}


def _yaml_names(text: str) -> dict[str, str]:
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        return {str(k): str(name) for k, name in enumerate(names)}
    return {str(k): str(name) for k, name in names.items()} if isinstance(names, dict) else {}


def _names(side: Candidate, names: Mapping[str, str], found: Annotations) -> None:
    if names:
        found.names.update(names)
        found.used[side.name] = "names"


def renamed(labels: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return number or code -> name for labels that all have one; numbers may begin at 1 in the folders."""
    present = set(labels)
    if present and all(label in names for label in present):
        return {label: names[label] for label in present}
    if present and all(label.isdecimal() for label in present):
        values = {label: int(label) for label in present}
        shift = 1 if min(values.values()) >= 1 and str(max(values.values())) not in names and "0" in names else 0
        found = {label: names.get(str(value - shift), "") for label, value in values.items()}
        return found if all(found.values()) else {}
    return {}


def most_common_kind(used: Mapping[str, str]) -> str:
    """Return what most of the files that were read are."""
    return Counter(used.values()).most_common(1)[0][0] if used else ""
