"""Loose photos get labels: many at once, from file names, from zero-shot's guesses."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from demo import labelling, tasks
from demo.screens.tune import gallery
from demo.screens.tune import service as tuning
from demo.words import Translator
from demo.workspace import Workspaces
from tests.tiny import picture

RED, BLUE = (200, 40, 40), (40, 40, 200)


def loose(tmp_path, names, workspace=None):
    """A workspace with single photos of these names, every other one blue."""
    workspace = workspace or Workspaces(tmp_path / "root", hours=1).open()
    files = []
    for i, name in enumerate(names):
        file = tmp_path / "photos" / name
        file.parent.mkdir(exist_ok=True)
        picture(BLUE if i % 2 else RED, i, 64).save(file)
        files.append(str(file))
    assert tasks.add_files(workspace, files) == len(names)
    return workspace


@pytest.fixture
def photos(tmp_path):
    return loose(tmp_path, [f"IMG_{2041 + i}.png" for i in range(6)])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dress_0.jpg", "dress"),
        ("dress (12).jpg", "dress"),
        ("red-shirt-003.png", "red-shirt"),
        ("running_shoe_7.jpeg", "running shoe"),
        ("고양이 3.jpg", "고양이"),
        ("개.jpg", "개"),
        ("dress.jpg", "dress"),
        ("IMG_2041.jpg", None),
        ("PXL_20240101_1.jpg", None),
        ("DSC00012.JPG", None),
        ("0001.png", None),
        ("WhatsApp Image 2024-01-01.jpeg", None),
        ("a1b2c3d4e5f6.jpg", None),
        ("사진 3.jpg", None),
        ("x.jpg", None),
    ],
)
def test_what_a_file_name_tells(name, label):
    assert labelling.named(name) == label


def test_one_label_for_all_that_is_selected(photos):
    assert labelling.missing(photos) == ("missing.both", {"count": 6})
    assert labelling.give(photos, [0, 2, 4, 99], " red, warm ") == 3
    assert [image.label for image in photos.images] == ["red warm", None] * 3
    assert photos.labels_text == "red warm"
    assert labelling.missing(photos) == ("missing.second", {})
    before = photos.version
    assert labelling.give(photos, [0], "red warm") == 0 and photos.version == before
    labelling.give(photos, [1, 3], "blue")
    assert labelling.missing(photos) is None
    assert labelling.unlabelled(photos) == [5]
    labelling.give(photos, [0], None)
    assert photos.images[0].label is None
    labelling.remove(photos, [0, 5])
    assert [image.label for image in photos.images] == ["blue", "red warm", "blue", "red warm"]


def test_labels_are_typed_but_no_photo_has_one(photos):
    tasks.set_labels(photos, "red, blue")
    assert labelling.missing(photos) == ("missing.labelled", {"count": 6})
    assert Translator("en")("missing.labelled", count=20) == "20 photos, none labelled: select some and press a label."


def test_labels_from_file_names_join_those_that_are_there(tmp_path):
    workspace = loose(tmp_path, ["dress_0.png", "shirt_0.png", "dress_1.png", "IMG_3.png", "Shirt_1.png"])
    found = {workspace.images[i].name: label for i, label in labelling.offered(workspace).items()}
    assert found == {"dress_0.png": "dress", "dress_1.png": "dress", "shirt_0.png": "shirt", "Shirt_1.png": "shirt"}
    assert labelling.take_offered(workspace) == 4
    assert dict(zip(*tasks.counts(workspace), strict=True)) == {"dress": 2, "shirt": 2}
    assert labelling.offered(workspace) == {}


def test_names_that_all_differ_are_no_classes(tmp_path):
    assert labelling.offered(loose(tmp_path, ["anna.png", "berta.png", "clara.png"])) == {}
    (tmp_path / "more").mkdir()
    workspace = loose(tmp_path / "more", ["anna.png", "berta.png"])
    tasks.set_labels(workspace, "anna, berta")
    assert labelling.offered(workspace) == {0: "anna", 1: "berta"}


def test_guesses_are_taken_where_zero_shot_is_sure_and_stay_marked(photos, pocket):
    tasks.set_labels(photos, "red, blue")
    list(tuning.zero_shot(photos))
    found, _ = labelling.judged(photos)
    logits = photos.shown.arrays["ensemble"].copy()
    logits[:] = 0
    logits[:4, 0], logits[4, 1] = 5.0, 5.0
    photos.shown = replace(photos.shown, arrays={**photos.shown.arrays, "ensemble": logits})
    assert len(found) == 6
    assert labelling.guesses(photos) == ({0: "red", 1: "red", 2: "red", 3: "red", 4: "blue"}, [5])
    assert "uncertain" in labelling.marks(photos)[5] and "none" in labelling.marks(photos)[0]
    assert labelling.take_guesses(photos) == 5
    assert labelling.unlabelled(photos) == [5]
    assert labelling.guessed(photos) == [0, 1, 2, 3, 4]
    labelling.give(photos, [1], "blue")
    assert labelling.guessed(photos) == [0, 2, 3, 4]
    labelling.confirm(photos)
    assert labelling.guessed(photos) == []


class Tags(HTMLParser):
    """Start tags of a class."""

    def __init__(self, html, name):
        super().__init__()
        self.found, self.name = [], name
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if self.name in (dict(attrs).get("class") or "").split():
            self.found.append(dict(attrs))


def test_the_gallery_tells_label_and_marks_and_escapes_what_was_typed(photos):
    labelling.give(photos, [0, 2], '<b>"red"')
    html = gallery.draw(photos, Translator("en"), lambda path: "file=" + path)
    tiles = Tags(html, "ctl-tile").found
    assert [tile["data-label"] for tile in tiles] == ['<b>"red"', "", '<b>"red"', "", "", ""]
    assert [tile["data-marks"] for tile in tiles] == ["", "none", "", "none", "none", "none"]
    assert '<b>"red"' not in html
    assert [box.get("data-box") for box in Tags(html, "ctl-box").found] == ['<b>"red"', None]
    assert "4 photos have no label" not in html  # the second label is what is missing first
    korean = gallery.draw(photos, Translator("ko"), lambda path: path)
    assert "레이블이 하나뿐입니다" in korean


def test_only_uploaded_files_are_taken(tmp_path, monkeypatch):
    from demo.screens.tune.images import uploaded

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "gradio" / "x").mkdir(parents=True)
    for file in (tmp_path / "gradio" / "x" / "a.png", tmp_path / "secret.png"):
        file.write_bytes(b"x")
    inside = str(tmp_path / "gradio" / "x" / "a.png")
    asked = [[inside, "a.png"], [str(tmp_path / "secret.png"), "b"], [inside + "/../../../secret.png", "c"]]
    assert uploaded(asked) == [inside]
