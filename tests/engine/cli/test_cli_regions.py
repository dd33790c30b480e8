"""``python -m engine regions``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.cli import main
from engine.regions import catalog
from engine.regions.types import decode
from tests.engine.regions.colour_sam import colour_segmenter, shapes


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A picture file, and a segmenter that knows its colours."""
    shared = colour_segmenter()
    monkeypatch.setattr(catalog, "load", lambda id, device: shared)
    shapes().save(tmp_path / "shapes.png")
    return tmp_path / "shapes.png"


def call(capsys, photo, *arguments: str):
    out = photo.parent / "out"
    code = main.main(["regions", "--image", str(photo), "--out", str(out), *(str(a) for a in arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err, out


def test_everything_is_written_in_cocos_fields(photo, capsys):
    code, out, err, folder = call(capsys, photo, "--auto", "--granularity", "all", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result == json.loads((folder / "regions.json").read_text())
    assert result["image"] == {"file": "shapes.png", "width": 160, "height": 120}
    assert [row["id"] for row in result["regions"]] == list(range(1, 6))
    for row in result["regions"]:
        mask = np.asarray(Image.open(folder / row["mask"]))
        assert np.array_equal(decode(row["segmentation"]), mask)
        assert row["segmentation"]["size"] == [120, 160]
        assert sum(row["segmentation"]["counts"]) == 160 * 120
        assert row["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        left, top, width, height = row["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert "zero_shot" not in row
    assert Image.open(folder / "overlay.png").size == (160, 120)
    assert result["shortcut"] is None
    assert set(result["seconds"]) == {"encode", "find", "score"}


def test_clicks_shape_one_region_and_boxes_one_each(photo, capsys):
    options = ("--point", "12,12", "--point", "100,90,0", "--box", "80,70,159,119", "--marks", "letters")
    code, out, _, folder = call(capsys, photo, *options)
    assert code == 0
    first, second = json.loads((folder / "regions.json").read_text())["regions"]
    assert (first["mark"], first["bbox"], first["points"]) == ("A", [10, 10, 60, 60], [[12, 12, 1], [100, 90, 0]])
    assert (second["mark"], second["bbox"], second["box"]) == ("B", [90, 80, 60, 30], [80, 70, 159, 119])
    assert "10, 10, 60, 60" in out
    assert str(folder) in out
    assert {path.name for path in folder.iterdir()} == {"overlay.png", "mask-001.png", "mask-002.png", "regions.json"}


def test_labels_score_each_region_and_test_the_background(photo, capsys):
    options = ("--point", "12,12", "--labels", "red,green,집 = house", "--view", "cut", "--object", "1", "--json")
    code, out, _, _ = call(capsys, photo, *options)
    assert code == 0
    result = json.loads(out)
    assert (result["backbone"], result["view"]) == ("pocket", "cut")
    (row,) = result["regions"]
    assert set(row["zero_shot"]["probabilities"]) == {"red", "green", "집"} == set(result["labels"])
    assert sum(row["zero_shot"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["zero_shot"]["probability"] == max(row["zero_shot"]["probabilities"].values())
    assert "tuned" not in row
    assert result["shortcut"]["zero_shot"]["reads"] in ("object", "background", "either", "both")
    assert result["shortcut"]["sentences"][0].startswith("Zero-shot")


def test_an_adapter_adds_the_tuned_side(photo, task_folder, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    tune = ("--task", task_folder, "--method", "tip_adapter", "--shots", "2", "--save", adapter, "--json")
    assert main.main(["tune", *(str(a) for a in tune)]) == 0
    capsys.readouterr()
    code, out, _, folder = call(capsys, photo, "--point", "12,12", "--adapter", adapter)
    assert code == 0
    (row,) = json.loads((folder / "regions.json").read_text())["regions"]
    assert set(row["tuned"]["probabilities"]) == {"red", "green", "blue"} == set(row["zero_shot"]["probabilities"])
    assert out.splitlines()[0].split()[-3:] == ["tuned", "p", "margin"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--point", "12"), "--point '12'"),
        (("--point", "12,12,2"), "background"),
        (("--point", "999,2"), "outside the image of 160 x 120"),
        (("--point", "12,12,0"), "no click on the object"),
        (("--box", "1,2,3"), "left,top,right,bottom"),
        (("--box", "5,5,5,50"), "has no area"),
        (("--granularity", "crumbs"), "objects, parts, all"),
        (("--marks", "runes"), "numbers, letters"),
        (("--alpha", "2"), "between 0"),
        (("--layers", "mask,glow"), "glow"),
        (("--labels", "red"), "only one label"),
        (("--labels", "red,blue", "--view", "halo"), "crop, blur, grey, cut"),
        (("--labels", "red,blue", "--object", "77"), "no region 77"),
        (("--object", "1"), "--labels or --adapter"),
        (("--labels", "a,b", "--adapter", "x"), "Leave one out"),
        (("--adapter", "nowhere"), "nowhere"),
    ],
)
def test_user_errors_exit_2_with_a_sentence(arguments, words, photo, capsys):
    code, out, err, folder = call(capsys, photo, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not folder.exists()


def test_plain_and_missing_images_and_unwritable_folders(photo, capsys):
    Image.new("RGB", (50, 50), "red").save(photo)
    code, _, err, _ = call(capsys, photo, "--auto")
    assert code == 2
    assert "one colour" in err
    photo.unlink()
    code, _, err, _ = call(capsys, photo)
    assert code == 2
    assert "shapes.png cannot be opened" in err
    shapes().save(photo)
    (photo.parent / "out").write_text("a file")
    code, _, err, _ = call(capsys, photo, "--point", "12,12")
    assert code == 2
    assert "cannot be written" in err


def test_stopping_exits_3(photo, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "load", stop)
    assert call(capsys, photo)[0] == 3


def test_the_segmenters_are_listed(capsys):
    assert main.main(["segmenters", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["segmenters"]
    assert [row["id"] for row in listed] == [entry.id for entry in catalog.ENTRIES]
    assert main.main(["segmenters"]) == 0
    assert "375 MB to download" in capsys.readouterr().out


def test_the_documentation_names_everything_there_is():
    import argparse

    from engine.cli import regions
    from engine.regions.scores import VIEWS
    from engine.regions.shortcut import VERDICTS
    from engine.regions.types import GRANULARITIES

    text = (Path(__file__).resolve().parents[3] / "docs" / "regions.md").read_text(encoding="utf8")
    for name in (*(entry.id for entry in catalog.ENTRIES), *VIEWS, *GRANULARITIES):
        assert f"`{name}`" in text, name
    assert len(VERDICTS) == 4
    sub = argparse.ArgumentParser()
    regions.arguments(sub)
    everywhere = {
        "--help",
        "--segmenter",
        "--templates",
        "--backbone",
        "--device",
    }  # as in other commands, or told by id
    for action in sub._actions:
        assert everywhere & set(action.option_strings) or action.option_strings[0] in text, action.option_strings
