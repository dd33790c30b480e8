"""Folders as people have them: what is a label, what a split, what neither, and the sentence that says so."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import episode
from engine.data.folders import labels_in_names, labels_of_zips, one_spelling, read_folders, split_of
from engine.data.images import Intake, Limits
from engine.data.uploads import collect
from engine.types import Label


def photo(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def make(root: Path, *names: str, **texts: str) -> Path:
    """A folder with a picture at each name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    return root


def pack(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent).as_posix())
    return target


def take(*sources: Path) -> Intake:
    return collect(sources, sources[0].parent / "work", Limits())


def placed(*names: str, **options: bool) -> list[tuple[str | None, str | None]]:
    return [(place.label, place.split) for place in read_folders(names, **options).files]


CASES: list[tuple[list[str], list[tuple[str | None, str | None]]]] = [
    (
        ["train/cat/1", "train/dog/1", "test/1", "test/2"],
        [("cat", "train"), ("dog", "train"), (None, "test"), (None, "test")],
    ),
    (["top/Training/cat/1", "top/Validation/dog/1"], [("cat", "train"), ("dog", "val")]),
    (["seg_train/seg_train/sea/1", "seg_test/seg_test/sea/2"], [("sea", "train"), ("sea", "test")]),
    (["cat/train/1", "cat/test/2", "dog/train/3"], [("cat", "train"), ("cat", "test"), ("dog", "train")]),
    (["images/train/1", "images/val/2"], [(None, "train"), (None, "val")]),
    (["train/1", "bus/1"], [("train", None), ("bus", None)]),
    (["train/cat/images/1", "train/dog/images/2"], [("cat", "train"), ("dog", "train")]),
    (["cat/session_0/1", "cat/session_1/2", "dog/session_0/3"], [("cat", None), ("cat", None), ("dog", None)]),
    (["cat/2024-05-01/1", "dog/2024-06-02/3"], [("cat", None), ("dog", None)]),
    (["cat/day1/1", "cat/night2/1", "dog/day1/1", "dog/night2/3"], [("cat", None)] * 2 + [("dog", None)] * 2),
    (["cat/1", "cat/kittens/2", "dog/3"], [("cat", None), ("cat", None), ("dog", None)]),
    (["cat/1", "dog/2", "unsorted/3"], [("cat", None), ("dog", None), (None, None)]),
    (["cat/1", "dog/2", "images/3"], [("cat", None), ("dog", None), (None, None)]),
    (["photos/1", "drawings/1"], [("photos", None), ("drawings", None)]),
    (["0/1", "1/1"], [("0", None), ("1", None)]),
    (["animals/cat/1", "animals/dog/1", "car/1"], [("cat", None), ("dog", None), ("car", None)]),
    (["images/1", "images/2"], [(None, None), (None, None)]),
]


@pytest.mark.parametrize(("names", "expected"), CASES)
def test_what_a_folder_means(names: list[str], expected: list) -> None:
    assert placed(*names) == expected


def test_inner_and_outer_folders_that_could_both_be_labels_are_asked_about(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "photo/cat/1.png", "photo/dog/2.png", "sketch/cat/3.png", "sketch/dog/4.png")
    intake = take(folder)
    assert {image.label for image in intake.images} == {"cat", "dog"}
    assert any(note.key == "layout_outer" and "photo, sketch" in str(note) for note in intake.understood)


def test_loose_photos_beside_a_split_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "train/cat/1.png", "train/dog/2.png", "train/emu/3.png", "test/4.png", "test/5.png")
    said = [str(note) for note in take(folder).understood]
    assert said == ["Understood: 3 labels from train/ (cat, dog, emu), 2 unlabelled photos in test/."]


def test_plain_folders_need_no_sentence(tmp_path: Path) -> None:
    assert take(make(tmp_path / "in", "cat/1.png", "dog/2.png")).understood == ()


@pytest.mark.parametrize("junk", ["@eaDir", "@Recycle", "#recycle", "__MACOSX", "$RECYCLE.BIN", ".thumbnails"])
def test_what_storage_boxes_leave_behind_is_skipped(junk: str, tmp_path: Path) -> None:
    intake = take(make(tmp_path / "in", "cat/1.png", "dog/2.png", f"{junk}/3.png", f"cat/{junk}/1.png/thumb.png"))
    assert [image.name for image in intake.images] == ["cat/1.png", "dog/2.png"]
    assert intake.problems == () == intake.understood


def test_one_label_in_two_spellings(tmp_path: Path) -> None:
    intake = take(make(tmp_path / "in", "train/Big_Cat/1.png", "train/dog/2.png", "test/big cat/3.png"))
    assert [image.label for image in intake.images] == ["Big_Cat", "Big_Cat", "dog"]
    assert "big cat is taken as the same label as Big_Cat" in " ".join(map(str, intake.understood))
    assert one_spelling(["cat", "Cat", "Cat"]) == {"cat": "Cat"}
    assert one_spelling(["cat", "Cat", "Cat"], known=["CAT"]) == {"cat": "CAT", "Cat": "CAT"}


@pytest.mark.parametrize(
    ("file", "text", "folders"),
    [
        ("classes.txt", "brick\nfur\n", ("0", "1")),
        ("classes.txt", "brick\nfur\n", ("1", "2")),
        ("labels.txt", "0 brick\n1 fur\n", ("0", "1")),
        ("class_names.txt", "brick: 0\nfur: 1\n", ("0", "1")),
        ("words.txt", "n00000001\tbrick, wall\nn00000002\tfur\n", ("n00000001", "n00000002")),
        ("classes.json", '["brick", "fur"]', ("0", "1")),
        ("classes.json", '{"brick": 0, "fur": 1}', ("0", "1")),
        ("classes.json", '{"0": "brick", "1": "fur"}', ("0", "1")),
        ("data.yaml", "names:\n  0: brick\n  1: fur\n", ("0", "1")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_names_of_numbered_folders(file: str, text: str, folders: tuple, packed: bool, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", f"{folders[0]}/1.png", f"{folders[1]}/2.png")
    (folder / file).write_text(text)
    intake = take(pack(folder, tmp_path / "in.zip") if packed else folder)
    assert [image.label for image in intake.images] == ["brick", "fur"]
    assert intake.problems == ()
    assert any(note.key == "layout_named" for note in intake.understood)


def test_numbers_without_names_are_asked_about(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "0/1.png", "1/2.png", "2/3.png")
    (folder / "classes.txt").write_text("brick\nfur\n")  # too few
    intake = take(folder)
    assert {image.label for image in intake.images} == {"0", "1", "2"}
    assert [note.key for note in intake.understood] == ["layout_numbers"]
    assert [problem.name for problem in intake.problems] == ["classes.txt"]


def test_one_zip_a_label(tmp_path: Path) -> None:
    names = ("brick", "fur", "grass")
    zips = []
    for number, name in enumerate(names):
        zips.append(tmp_path / f"{name}.zip")
        with zipfile.ZipFile(zips[-1], "w") as archive:
            for k in range(2):
                archive.writestr(f"{k}.png", photo(10 * number + k))
    intake = take(*zips)
    assert sorted(image.label or "" for image in intake.images) == sorted(2 * names)
    assert len({image.name for image in intake.images}) == 6
    folder = tmp_path / "all"
    folder.mkdir()
    for path in zips:
        path.rename(folder / path.name)
    assert sorted(image.label or "" for image in take(folder).images) == sorted(2 * names)
    assert [note.key for note in take(folder / "fur.zip").understood] == ["zip_without_label"]
    assert labels_of_zips(["photos-001", "photos-002"]) == [None, None]


def test_labels_in_file_names(tmp_path: Path) -> None:
    names = ["red dress_0.png", "red dress_1.png", "hat (1).png", "hat (2).png"]
    intake = take(make(tmp_path / "in", *names))
    assert {image.name: image.label for image in intake.images} == {
        name: "hat" if "hat" in name else "red dress" for name in names
    }
    assert "the file names" in str(intake.understood[0])
    assert labels_in_names(["IMG_1.jpg", "IMG_2.jpg", "DSC_1.jpg", "DSC_2.jpg"]) is None
    assert labels_in_names(["cat_1.jpg", "cat_2.jpg", "dog.jpg"]) is None
    assert labels_in_names(["20240101_1.jpg", "20240101_2.jpg", "20240102_1.jpg", "20240102_2.jpg"]) is None


def test_names_of_splits() -> None:
    assert [split_of(name) for name in ("Train", "val2017", "test_set", "training-images", "trainer", "tests")] == [
        "train",
        "val",
        "test",
        "train",
        None,
        None,
    ]


# The split of an upload


def built(folder: Path, shots: int = 2, seed: int = 0) -> tuple[episode.Episode, Intake]:
    intake = take(folder)
    names = sorted({image.label for image in intake.images if image.label})
    return episode.of_images([Label(name, name) for name in names], intake.images, shots, seed), intake


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    parts = [f"{part}/{label}/{n}.png" for part in ("train", "valid", "test") for label in "ab" for n in range(3)]
    folder = make(tmp_path / "in", *parts)
    for seed in range(3):
        found, intake = built(folder, seed=seed)
        (fold,) = found.folds
        assert {intake.images[i].split for i in fold.support} == {"train"}
        assert {i for i, image in enumerate(intake.images) if image.split == "test"} == set(fold.test)
        assert len(fold.support) == 4
    assert "4 images of train train, the 6 of test test" in str(found.notes[0])
    assert "6 labelled images outside" in str(found.notes[1])
    assert any(note.key == "layout_split" for note in intake.understood)


def test_val_tests_where_there_is_no_test(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", *(f"{part}/{label}/1.png" for part in ("train", "val") for label in "ab"))
    found, intake = built(folder)
    assert {intake.images[i].split for i in found.folds[0].test} == {"val"}


def test_an_unlabelled_test_folder_is_no_split(tmp_path: Path) -> None:
    found, _ = built(
        make(tmp_path / "in", *(f"train/{label}/{n}.png" for label in "ab" for n in range(3)), "test/9.png")
    )
    assert found.cross_validated
