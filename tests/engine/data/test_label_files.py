"""Labels outside folders: tables, COCO, YOLO, parquet, the hub."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import hub_data
from engine.data.images import Limits
from engine.data.uploads import collect
from engine.errors import BadTask
from tests.engine.data.test_folders import make, pack, photo, take

NAMES = [f"img_{n}.png" for n in range(4)]
LABELS = ["brick", "brick", "fur", "fur"]


def flat(root: Path, below: str = "") -> Path:
    return make(root, *(below + name for name in NAMES))


def table(separator: str, head: str, *rows: str) -> str:
    lines = [head, *rows] if head else list(rows)
    return "\n".join(line.replace("|", separator) for line in lines)


ROWS = [f"{name}|{label}" for name, label in zip(NAMES, LABELS, strict=True)]
TABLES: dict[str, tuple[str, str]] = {
    "labels.csv": ("labels.csv", table(",", "filename|label", *ROWS)),
    "metadata.csv": ("metadata.csv", table(",", "file_name|class", *ROWS)),
    "semicolons": ("train.csv", table(";", "image|category", *ROWS)),
    "tabs, no head": ("labels.tsv", table("\t", "", *ROWS)),
    "spaces in a text": ("train.txt", table(" ", "", *ROWS)),
    "without endings": ("labels.csv", table(",", "id|breed", *(row.replace(".png", "") for row in ROWS))),
    "column of an unknown name": ("data.csv", table(",", "n|file|plant", *(f"{k}|{r}" for k, r in enumerate(ROWS)))),
    "one column a label": (
        "_classes.csv",
        table(",", "filename|brick|fur", *(f"{name}|{1 - k // 2}|{k // 2}" for k, name in enumerate(NAMES))),
    ),
    "metadata.jsonl": (
        "metadata.jsonl",
        "\n".join(json.dumps({"file_name": n, "label": x}) for n, x in zip(NAMES, LABELS, strict=True)),
    ),
    "name to label": ("labels.json", json.dumps(dict(zip(NAMES, LABELS, strict=True)))),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_labels(kind: str, packed: bool, tmp_path: Path) -> None:
    file, text = TABLES[kind]
    folder = flat(tmp_path / "in", "images/")
    (folder / file).write_text(text, encoding="utf8")
    intake = take(pack(folder, tmp_path / "in.zip") if packed else folder)
    assert [image.label for image in intake.images] == LABELS
    assert intake.problems == ()
    assert file in str(intake.understood[0])


def test_a_table_dragged_in_with_its_photos(tmp_path: Path) -> None:
    folder = flat(tmp_path / "in")
    (folder / "labels.csv").write_text(TABLES["labels.csv"][1], encoding="cp949")
    assert [image.label for image in take(*sorted(folder.iterdir())).images] == LABELS


def test_the_split_of_a_table(tmp_path: Path) -> None:
    folder = flat(tmp_path / "in")
    rows = [f"{row}|{split}" for row, split in zip(ROWS, ["train", "test"] * 2, strict=True)]
    (folder / "labels.csv").write_text(table(",", "file|label|split", *rows))
    assert [image.split for image in take(folder).images] == ["train", "test"] * 2


def test_a_table_that_tells_nothing_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "cat/1.png", "dog/2.png")
    (folder / "prices.csv").write_text("thing,price\nchair,3\ntable,4\n")
    intake = take(folder)
    assert [image.label for image in intake.images] == ["cat", "dog"]
    assert [(problem.name, problem.key) for problem in intake.problems] == [("prices.csv", "image_not_image")]


def coco(labels: list[tuple[int, ...]]) -> str:
    return json.dumps(
        {
            "images": [{"id": k + 5, "file_name": name} for k, name in enumerate(NAMES)],
            "categories": [{"id": 1, "name": "brick"}, {"id": 7, "name": "fur"}],
            "annotations": [{"image_id": k + 5, "category_id": c} for k, found in enumerate(labels) for c in found],
        }
    )


@pytest.mark.parametrize("place", ["annotations/instances.json", "images/_annotations.coco.json"])
def test_coco(place: str, tmp_path: Path) -> None:
    folder = flat(tmp_path / "in", "images/")
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(coco([(1,), (1, 1), (7,), (1, 7)]))
    intake = take(folder)
    assert [image.label for image in intake.images] == ["brick", "brick", "fur", None]
    assert "1 photos have more than one label" in " ".join(map(str, intake.understood))


YOLO: dict[str, Callable[[str], tuple[str, str]]] = {
    "images and labels": lambda stem: (f"images/{stem}.png", f"labels/{stem}.txt"),
    "split inside": lambda stem: (f"images/train/{stem}.png", f"labels/train/{stem}.txt"),
    "split outside": lambda stem: (f"train/images/{stem}.png", f"train/labels/{stem}.txt"),
    "side by side": lambda stem: (f"obj_train_data/{stem}.png", f"obj_train_data/{stem}.txt"),
}


@pytest.mark.parametrize("layout", YOLO)
@pytest.mark.parametrize(
    ("file", "text"),
    [("data.yaml", "nc: 2\nnames: [brick, fur]\n"), ("obj.names", "brick\nfur\n"), ("classes.txt", "brick\nfur\n")],
)
def test_yolo(layout: str, file: str, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, label in enumerate(LABELS):
        image, boxes = YOLO[layout](f"p{number}")
        make(folder, image).joinpath(image).write_bytes(photo(number))
        (folder / boxes).parent.mkdir(parents=True, exist_ok=True)
        (folder / boxes).write_text(f"{int(label == 'fur')} 0.5 0.5 1 1\n")
    (folder / file).write_text(text)
    intake = take(folder)
    assert [image.label for image in intake.images] == LABELS
    assert intake.problems == ()


def parquet(path: Path, labels: list, features: dict | None = None, column: str = "label", first: int = 0) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    images = [{"bytes": photo(first + n), "path": None} for n in range(len(labels))]
    rows = pa.table({"image": images, column: labels})
    if features:
        rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def test_parquet_with_names_of_classes(tmp_path: Path) -> None:
    features = {"label": {"names": ["brick", "fur"], "_type": "ClassLabel"}}
    whole = parquet(tmp_path / "in" / "data" / "train-00000-of-00001.parquet", [0, 0, 1, 1], features)
    intake = collect([whole], tmp_path / "tables", Limits())
    assert [image.label for image in intake.images] == LABELS
    parquet(tmp_path / "in" / "data" / "test-00000-of-00001.parquet", [0, 0, 1, 1], features, first=10)
    both = collect([tmp_path / "in"], tmp_path / "tables", Limits())
    assert Counter(image.split for image in both.images) == {"train": 4, "test": 4}


def test_parquet_with_texts_and_with_numbers_alone(tmp_path: Path) -> None:
    assert [i.label for i in take(parquet(tmp_path / "a.parquet", LABELS, column="kind")).images] == LABELS
    numbers = take(parquet(tmp_path / "b.parquet", [0, 0, 1, 1]))
    assert [image.label for image in numbers.images] == ["0", "0", "1", "1"]
    assert "layout_numbers" in {note.key for note in numbers.understood}


def test_parquet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(BadTask, match=r"bad\.parquet is no parquet table"):
        take(tmp_path / "bad.parquet")
    whole = parquet(tmp_path / "whole.parquet", LABELS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadTask, match="needs pyarrow"):
        take(whole)


def test_data_sets_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadTask, match="no data set of the hub"):
        hub_data.download("hf://models/x")
    with pytest.raises(BadTask, match=r"hf://datasets/no/such could not be downloaded"):
        hub_data.download("hf://datasets/no/such")
    import huggingface_hub

    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert hub_data.download("hf://datasets/some/one/photos") == tmp_path / "photos"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BadTask, match="needs huggingface_hub"):
        hub_data.download("hf://datasets/some/one")
