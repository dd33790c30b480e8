"""Tuned models as folders of transformers and open_clip: read by those alone, as the card says."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from engine import export_adapter, load_adapter, load_backbone, predict, read_task, tune
from engine.cli import main
from engine.errors import BadExport
from tests import families

QUICK = {
    "lora": {"epochs": 2},
    "bias_tuning": {"epochs": 2},
    "prompt_tuning": {"epochs": 2},
    "prolip": {"blend": "off"},
}


@pytest.fixture(scope="module")
def task(task_folder):
    return read_task(task_folder)


@pytest.fixture(scope="module")
def open_clip_vit(tmp_path_factory):
    folder = families.save_open_clip("vit", tmp_path_factory.mktemp("vit"))
    return load_backbone(str(folder), "cpu")


def run_card(folder, photo, monkeypatch) -> dict[str, float]:
    """Run the card's example on a photo, in the folder."""
    (code,) = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text("utf8"), re.DOTALL)
    shutil.copy(photo, folder / "photo.jpg")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names["scores"]


def check(tuned, to, folder, photo, monkeypatch):
    """Export and compare what the card's example says of a photo with the adapter's own words."""
    done = export_adapter(tuned, to, folder)
    assert done.difference < 1e-5
    assert set(done.files) == {file.name for file in folder.iterdir()}
    (wanted,) = predict(tuned, photo)
    scores = run_card(folder, photo, monkeypatch)
    assert scores == pytest.approx(dict(wanted.tuned.probabilities), abs=1e-5)
    return done


@pytest.mark.parametrize("method", ["zero_shot", "lora", "bias_tuning", "prompt_tuning", "taskres", "prolip"])
def test_transformers_alone_gives_the_same_scores(method, task, tiny, task_folder, tmp_path, monkeypatch):
    tuned = tune(task, method, tiny, shots=4, **QUICK.get(method, {}))
    check(tuned, "transformers", tmp_path / "out", task_folder / "red" / "00.png", monkeypatch)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["CLIPModel"]
    known = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert known["labels"] == ["blue", "green", "red"]
    assert bool(known["prompts"]) == (method in ("zero_shot", "lora", "bias_tuning"))


@pytest.mark.parametrize("kind", families.TRANSFORMERS)
def test_other_families_of_transformers(kind, task, task_folder, tmp_path, monkeypatch):
    backbone = families.make(kind, tmp_path)
    tuned = tune(task, "lora", backbone, shots=4, epochs=2)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    check(tuned, "transformers", tmp_path / "out", task_folder / "green" / "03.png", monkeypatch)


@pytest.mark.parametrize("method", ["lora", "dora", "full", "linear_probe", "prolip"])
def test_open_clip_alone_gives_the_same_scores(method, task, open_clip_vit, task_folder, tmp_path, monkeypatch):
    tuned = tune(task, method, open_clip_vit, shots=4, **QUICK.get(method, {"epochs": 2}))
    check(tuned, "open_clip", tmp_path / "out", task_folder / "blue" / "00.png", monkeypatch)


def test_merging_leaves_the_frozen_backbone_alone(task, tiny, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    export_adapter(tune(task, "lora", tiny, shots=4, epochs=2), "transformers", tmp_path / "out")
    assert all(tensor.equal(before[name]) for name, tensor in tiny.model.state_dict().items())


UNFOLDABLE = [("clip_adapter", "weighted sum"), ("visual_prompt", "image tower"), ("prolip", "mixed")]


@pytest.mark.parametrize(("method", "word"), UNFOLDABLE)
def test_what_cannot_be_folded_says_so(method, word, task, tiny, tmp_path):
    tuned = tune(task, method, tiny, shots=4, epochs=2)
    with pytest.raises(BadExport, match=word):
        export_adapter(tuned, "transformers", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_full_folder_and_another_family_are_refused(task, tiny, tmp_path):
    tuned = tune(task, "zero_shot", tiny, shots=4)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(BadExport, match="other files"):
        export_adapter(tuned, "transformers", tmp_path)
    with pytest.raises(BadExport, match="no architecture"):
        export_adapter(tuned, "open_clip", tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_from_the_command_line(task, pocket, tmp_path, capsys):
    tune(task, "lora", pocket, shots=2, epochs=1).save(tmp_path / "adapter")
    command = ["export", "--adapter", tmp_path / "adapter", "--to", "transformers", "--json", tmp_path / "out"]
    assert main.main(list(map(str, command))) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["difference"] < 1e-5 and said["files"]["model.safetensors"] > 40e6
    header = yaml.safe_load((tmp_path / "out" / "README.md").read_text("utf8").split("---")[1])
    assert header["library_name"] == "transformers" and "base_model" not in header
    assert header["license"] == "apache-2.0"
    assert load_adapter(tmp_path / "adapter").recipe["accuracy"]["tuned"] == pytest.approx(
        header["model-index"][0]["results"][0]["metrics"][0]["value"], abs=1e-4
    )
    assert main.main(list(map(str, command))) == 2
    assert "other files" in capsys.readouterr().err
