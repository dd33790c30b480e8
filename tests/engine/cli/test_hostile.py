"""What strangers type and upload: every command ends with a sentence, and none with a traceback."""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import pytest

from engine.cli.main import main

HUGE = str(10**30)
TUNE = ("tune", "--task", "{task}", "--method", "gda", "--shots", "2")
COMPARE = ("compare", "--task", "{task}", "--methods", "gda", "--shots", "1", "--seeds", "0")
PREDICT = ("predict", "--adapter", "{adapter}")
REGIONS = ("regions", "--image", "{image}")
CONTINUAL = ("continual", "--task", "{task}", "--steps", "2", "--strategies", "prototypes")


@pytest.fixture(scope="module")
def places(task_folder, tmp_path_factory):
    """Names of good and bad files, for the braces of the table."""
    root = tmp_path_factory.mktemp("hostile")
    adapter = root / "adapter"
    assert main(["tune", "--task", str(task_folder), "--method", "gda", "--shots", "2", "--save", str(adapter)]) == 0
    found = {"root": root, "task": task_folder, "adapter": adapter, "nul": "a\0b", "long": "x" * 400}
    found["image"] = next(task_folder.glob("*/*.png"))
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "bad.zip": b"PK\3\4junk",
        "file": b"x",
        "lines": b"root:x:0:0:root:/root:/bin/bash\nb:x:1:",
    }.items():
        (root / name).write_bytes(content)
    with zipfile.ZipFile(root / "nothing.zip", "w") as archive:
        archive.writestr("a/readme.txt", "x")
    deep = root / "deep"
    shutil.copytree(task_folder, deep)
    (deep / "labels.json").write_text("[" * 100_000)
    return {**found, "deep": deep, "lines": root / "lines"}


def ends_well(arguments, places, capsys):
    """Run a command; it must return 0, 2 or 3 and say something where it is 2."""
    words = [re.sub(r"\{(\w+)\}", lambda m: str(places[m[1]]), word) for word in arguments]
    try:
        code = main(words)
    except SystemExit as stop:  # argparse
        code = stop.code
    said = capsys.readouterr().err
    assert code in (0, 2, 3)
    assert code != 2 or said.strip()
    assert "Traceback" not in said
    return code, said


@pytest.mark.parametrize(
    "arguments",
    [
        (*PREDICT, "{root}/empty.jpg"),
        (*PREDICT, "{root}/text.jpg", "/nowhere.jpg"),
        (*PREDICT, ""),
        (*PREDICT, "{long}"),
        (*PREDICT, "{nul}"),
        (*PREDICT, "--device", "tpu", "{image}"),
        (*PREDICT, "--device", "cuda:99", "{image}"),
        (*PREDICT, "--backbone", "~nouser/x", "{image}"),
        ("predict", "--adapter", "{root}/bad.zip", "{image}"),
        ("predict", "--adapter", "", "{image}"),
        ("predict", "--adapter", "{nul}", "{image}"),
        ("zero-shot", "--task", ""),
        ("zero-shot", "--task", "{nul}"),
        ("zero-shot", "--task", "{long}"),
        ("zero-shot", "--task", "{root}/bad.zip"),
        ("zero-shot", "--task", "{root}/nothing.zip"),
        ("zero-shot", "--task", "hf://"),
        ("zero-shot", "--task", "{task}", "--labels", ","),
        ("zero-shot", "--task", "{task}", "--labels", "="),
        ("zero-shot", "--task", "{task}", "--backbone", "{long}"),
        ("zero-shot", "--task", "{task}", "--backbone", "{nul}"),
        ("zero-shot", "--task", "{task}", "--device", "tpu"),
        (*TUNE, "--shots", "0"),
        (*TUNE, "--shots", str(10**13)),
        (*TUNE, "--seed", "-1"),
        (*TUNE, "--seed", HUGE),
        (*TUNE, "--set", "nothing"),
        ("tune", "--task", "{task}", "--method", "linear_probe", "--set", "lr=nan"),
        (*COMPARE, "--seeds", HUGE),
        (*COMPARE, "--workers", "0", "--executor", "pool"),
        (*COMPARE, "--max-parameters", "nan"),
        (*COMPARE, "--max-seconds", "inf"),
        (*COMPARE, "--max-memory", "nan"),
        ("forecast", "--method", "lora", "--labels", "-1"),
        ("forecast", "--method", "lora", "--labels", HUGE),
        ("forecast", "--method", "gda", "--labels", "20000", "--shots", "10000"),
        ("forecast", "--method", "lora", "--backbone", "{long}"),
        (*CONTINUAL, "--seed", HUGE),
        (*CONTINUAL, "--tests", "-1"),
        (*CONTINUAL, "--steps", str(10**20)),
        (*REGIONS, "--out", "{root}/r", "--point", "nan,1"),
        (*REGIONS, "--out", "{root}/r", "--box", "nan,inf,1,1"),
        (*REGIONS, "--out", "{root}/r", "--point", "5,5", "--alpha", "nan"),
        (*REGIONS, "--out", "{root}/r", "--segmenter", "{nul}"),
        (*REGIONS, "--out", "{root}/r", "--segmenter", "{lines}"),
        ("export", "--adapter", "{adapter}", "--to", "open_clip", "{root}/file"),
    ],
    ids=" ".join,
)
def test_every_bad_option_has_its_sentence(arguments, places, capsys):
    code, _ = ends_well(arguments, places, capsys)
    assert code == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 10**30),
        ("seed", -1),
        ("labels", []),
        ("labels", "x"),
        ("labels", [1, 2]),
        ("templates", [3]),
        ("templates", []),
        ("targets", []),
        ("config", []),
        ("config", {"nope": 1}),
        ("backbone", None),
        ("method", "\ud800"),
        ("schema", "x"),
    ],
)
def test_a_recipe_that_lies_is_refused_or_its_lie_is_not_used(field, value, places, tmp_path, capsys):
    shutil.copytree(places["adapter"], tmp_path / "adapter")
    recipe = json.loads((tmp_path / "adapter" / "adapter.json").read_text(encoding="utf8")) | {field: value}
    (tmp_path / "adapter" / "adapter.json").write_text(json.dumps(recipe))
    ends_well(("predict", "--adapter", str(tmp_path / "adapter"), "{image}"), places, capsys)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe\x00", b"[1, 2]", b""])
def test_a_recipe_that_is_no_json_is_refused(content, places, tmp_path, capsys):
    shutil.copytree(places["adapter"], tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter.json").write_bytes(content)
    code, _ = ends_well(("predict", "--adapter", str(tmp_path / "adapter"), "{image}"), places, capsys)
    assert code == 2


def test_a_table_that_is_nested_too_deeply_is_named_and_the_images_are_read(places, capsys):
    code, said = ends_well(("zero-shot", "--task", "{deep}"), places, capsys)
    assert code == 0 and "labels.json" in said


@pytest.mark.parametrize("name", ["CTL_CACHE_MB", "CTL_MAX_IMAGES", "CTL_DEVICE", "CTL_CACHE"])
@pytest.mark.parametrize("value", ["abc", "nan", "/proc/x", "~nouser/x"])
def test_whatever_the_environment_holds_there_is_a_sentence(name, value, places, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    ends_well(COMPARE, places, capsys)


@pytest.mark.parametrize("place", ["", "{root}/file", "{root}/file/below", "/proc/x/y", "{nul}", "{long}", "~nouser/x"])
@pytest.mark.parametrize(
    "command",
    [
        (*TUNE, "--save"),
        (*COMPARE, "--csv"),
        (*COMPARE, "--report"),
        (*REGIONS, "--out"),
        (*CONTINUAL, "--state"),
    ],
    ids=lambda command: command[0] + command[-1],
)
def test_a_place_that_cannot_be_written_costs_no_work(command, place, places, capsys, monkeypatch):
    if place == "{root}/file" and command[-1] in ("--csv", "--report"):
        place = "{root}"  # a folder, where a file is to be written
    monkeypatch.setattr("engine.front_door.read_task", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr("engine.data.images.read_image", lambda *_, **__: pytest.fail("work was begun"))
    code, said = ends_well((*command, place), places, capsys)
    assert code == 2 and "cannot be written" in said


def test_what_fails_half_way_leaves_the_old_files(places, tmp_path):
    from engine.outputs import filling

    (tmp_path / "adapter.json").write_text("old")

    def half() -> None:
        with filling(tmp_path) as fresh:
            (fresh / "adapter.json").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
