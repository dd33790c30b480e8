"""The engine's functions for a notebook, and the README's example as it stands there."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import engine
from engine import compare, load_adapter, load_backbone, predict, read_task, tune, zero_shot
from engine.backbones import catalog
from engine.compare import Constraints, Results
from engine.errors import BackboneUnavailable, BadConfig, BadLabels, BadTask
from engine.tuning.outcome import Stopped
from engine.types import Label

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def task(task_folder):
    return read_task(task_folder)


@pytest.fixture(scope="module")
def tuned(task, tiny):
    return tune(task, "linear_probe", tiny, shots=4, seed=1, epochs=3)


def test_the_example_in_the_readme_runs(task_folder, tmp_path, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text(encoding="utf8").split("## In a notebook\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.+?)```", section, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    shutil.copytree(task_folder, tmp_path / "photos")
    (tmp_path / "new_photos").mkdir()
    for colour in ("red", "blue"):
        shutil.copy(task_folder / colour / "00.png", tmp_path / "new_photos" / f"{colour}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "adapter" / "adapter.safetensors").is_file()
    *_, blue, red = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"new_photos/blue\.png (red|green|blue) \d+%", blue) and red.startswith("new_photos/red.png ")
    assert names["tuned"].result.config["epochs"] == 100
    assert {row.method for row in names["found"].done} == {"zero_shot_ensemble", "tip_adapter", "linear_probe"}


def test_importing_the_engine_is_cheap():
    code = "import sys, engine; print('torch' in sys.modules, 'engine.compare' in sys.modules, *engine.__all__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[:2] == ["False", "False"], done.stderr
    assert set(done.stdout.split()[2:]) == {
        "export_adapter",
        "load_backbone",
        "read_task",
        "zero_shot",
        "tune",
        "compare",
        "predict",
        "load_adapter",
    }
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        engine.nothing_of_the_kind  # noqa: B018


def test_compare_is_a_function_and_a_package():
    code = "from engine import compare; import engine.compare.plan; print(callable(compare), engine.compare is compare)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert compare is engine.compare is sys.modules["engine.compare"] and callable(compare)
    assert list(inspect.signature(compare).parameters)[:3] == ["task", "methods", "backbone"]


def test_every_function_says_what_it_does():
    for name in engine.__all__:
        function = engine.front_door.compare if name == "compare" else getattr(engine, name)
        assert len(inspect.getdoc(function)) > 60 and "return" in function.__annotations__
        unnamed = set(inspect.signature(function).parameters) - function.__annotations__.keys()
        assert not unnamed, name


def test_a_task_is_read_from_folder_and_zip(task_folder, tmp_path):
    (tmp_path / "note.jpg").write_text("no picture")
    archive = tmp_path / "task.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in [*task_folder.glob("*/0*.png")]:
            packed.write(file, file.relative_to(task_folder))
        packed.write(tmp_path / "note.jpg", "red/note.jpg")
    task = read_task(archive)
    assert len(task.images) == 30 and [label.name for label in task.labels] == ["blue", "green", "red"]
    assert len(task.problems) == 1 and "note.jpg" in task.problems[0].message and "30 images" in repr(task)
    unpacked = Path(task.images[0].path)
    assert unpacked.is_file()
    del task
    assert not unpacked.exists()  # the temporary folder goes with the task
    with pytest.raises(BadTask):
        read_task(tmp_path / "nowhere")


def test_labels_as_people_give_them(task_folder):
    wanted = (Label("red", "red square"), Label("blue", "blue"))
    for labels in ("red = red square, blue", {"red": "red square", "blue": "blue"}, [wanted[0], "blue"]):
        assert read_task(task_folder, labels).labels == wanted
    for labels in ([], ["red", "Red"], "red, red"):
        with pytest.raises(BadLabels):
            read_task(task_folder, labels)


def test_zero_shot_gives_intervals_and_logits(task, tiny):
    found = zero_shot(task, tiny)
    assert found.tested == 36 and found.logits["zero_shot_ensemble"].shape == (36, 3)
    targets = [[label.name for label in task.labels].index(image.label) for image in task.images]
    for name, share in found.accuracy.items():
        right = (found.logits[name].argmax(1).tolist()[i] == target for i, target in enumerate(targets))
        assert share.value == pytest.approx(sum(right) / 36) and share.low <= share.value <= share.high
    assert json.loads(json.dumps(found.to_json()))["test"] == 36


def test_tune_tells_its_progress_and_stops(task, tiny):
    moments, stop = [], threading.Event()
    tune(task, "linear_probe", tiny, 2, progress=moments.append, epochs=3)
    assert [m.done for m in moments if m.stage == "train"] == [1, 2, 3]
    with pytest.raises(Stopped):
        tune(task, "linear_probe", tiny, 2, progress=lambda moment: stop.set(), stop=stop, epochs=3)
    with pytest.raises(BadConfig, match="no_such_setting"):
        tune(task, "linear_probe", tiny, no_such_setting=1)


def test_a_tuned_model_predicts_as_its_saved_adapter_does(task, tuned, tiny, task_folder, tmp_path):
    assert tuned.result.shots == 4 and tuned.result.seed == 1
    assert "linear_probe on 24 test images" in repr(tuned)
    assert tuned.save(tmp_path / "adapter") == (tmp_path / "adapter" / "adapter.safetensors").stat().st_size
    adapter = load_adapter(tmp_path / "adapter", backbone=tiny)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "adapter")
    every = predict(tuned, task)
    assert every == predict(adapter, task) == predict(load_adapter(archive, backbone=tiny), task)
    assert [row.image for row in every] == [image.name for image in task.images]
    one = every[0]
    assert sum(one.tuned.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert one.probability == max(one.tuned.probabilities.values()) == one.tuned.probabilities[one.label]
    (single,) = predict(adapter, task_folder / "blue" / "00.png")
    for side in ("tuned", "zero_shot"):  # alone or in a batch
        alone, among = getattr(single, side), getattr(one, side)
        assert alone.label == among.label and alone.probabilities == pytest.approx(among.probabilities, abs=1e-5)
    assert len(predict(adapter, [task_folder / "red", task.images[0]])) == 13
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.warns(UserWarning, match=r"broken\.jpg"):
        assert predict(adapter, [tmp_path / "broken.jpg", task_folder / "blue" / "00.png"]) == [single]


def test_predictions_keep_order_full_names_and_repeats(tuned, task_folder, tmp_path):
    for place, colour in (("b", "red"), ("a", "blue")):
        (tmp_path / place).mkdir()
        shutil.copy(task_folder / colour / "00.png", tmp_path / place / "10.png")
    given = [tmp_path / name for name in ("b/10.png", "a/10.png", "b/10.png", "a")]
    found = predict(tuned, given)
    assert [row.image for row in found] == [*map(str, given[:3]), str(tmp_path / "a" / "10.png")]
    assert found[0] == found[2] != found[1] and found[1].tuned == found[3].tuned
    with pytest.raises(BadTask, match=r"None of the images can be read.*nowhere"):
        predict(tuned, [tmp_path / "nowhere.jpg"])


def test_an_adapter_finds_its_backbone_by_its_weights(tuned, tmp_path, monkeypatch):
    tuned.save(tmp_path / "adapter")
    recipe = tmp_path / "adapter" / "adapter.json"
    content = json.loads(recipe.read_text(encoding="utf8")) | {"backbone": "gone/for-ever-x@y"}
    recipe.write_text(json.dumps(content))
    moved = replace_id(tuned.outcome.setting.backbone, "/elsewhere/tiny")
    monkeypatch.setattr(catalog, "with_weights", lambda *_: None)
    assert load_adapter(tmp_path / "adapter", backbone=moved).setting.backbone is moved
    with pytest.raises(BackboneUnavailable, match="Say where it lies"):
        load_adapter(tmp_path / "adapter")
    monkeypatch.setattr(catalog, "with_weights", lambda *_: moved)
    assert load_adapter(tmp_path / "adapter").setting.backbone is moved


def replace_id(backbone, id):
    other = backbone.twin()
    other.id = id
    return other


def test_compare_ranks_within_limits(task, tiny, tmp_path):
    events = []
    found = compare(
        task,
        "linear_probe, tip_adapter",
        tiny,
        shots=2,
        seeds=0,
        results=Results(tmp_path),
        limits=Constraints(parameters=0),
        progress=events.append,
    )
    assert {row.method for row in found.done} == {"zero_shot_ensemble", "linear_probe", "tip_adapter"}
    assert [method for method, _ in found.advice.excluded] == ["linear_probe"]
    assert events[0].kind == "planned" and events[-1].comparison is found
    with pytest.raises(BadConfig):
        compare(task, [], tiny)


def test_a_backbone_goes_by_its_name_too(task, pocket):
    assert load_backbone("pocket", "cpu").id == "pocket" == zero_shot(task).backbone


def test_pictures_of_something_else_are_told(task_folder, tiny, tmp_path):
    task = read_task(task_folder)
    tuned = tune(task, "linear_probe", tiny, shots=6)
    figures = tuned.result.novelty
    assert figures["images"] == len(tuned.result.trained_on) and 0 <= figures["noticed"] <= 1
    tuned.save(tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter", backbone=tiny)
    sides = [[row.unlike for row in predict(ready, task)] for ready in (tuned, loaded)]
    assert sides[0] == sides[1] and sum(sides[0]) <= 4
    loaded.novelty = replace(loaded.novelty, threshold=-1e9)
    assert all(row.unlike for row in predict(loaded, task))
    without = tune(task, "linear_probe", tiny, shots=1)
    assert without.result.novelty == {} and {row.unlike for row in predict(without, task)} == {None}
