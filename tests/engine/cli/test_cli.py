"""The command line, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.cli import main
from engine.runs.run import Run
from engine.tuning import registry

ROOT = Path(__file__).resolve().parents[3]


def call(capsys, *arguments: str):
    code = main.main([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def result(task_folder, tmp_path_factory):
    """One tuned run with its adapter."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    command = [sys.executable, "-m", "engine", "tune", "--task", task_folder, "--method", "tip_adapter", "--shots", "4"]
    command += ["--save", folder, "--json", "--labels", "red,green,blue"]
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_tune_json_holds_everything(result):
    run, folder = result
    for key in (
        "backbone",
        "method",
        "preset",
        "config",
        "seed",
        "labels",
        "support",
        "test",
        "accuracy",
        "interval95",
        "verdict",
        "p_value",
        "trainable_parameters",
        "total_parameters",
        "peak_memory_bytes",
        "memory_kind",
        "forecast_memory_bytes",
        "forecast_parts",
        "seconds",
        "forecast_seconds",
        "adapter_bytes",
        "curve",
        "learned",
    ):
        assert key in run, key
    assert set(run["accuracy"]) == {"zero_shot", "zero_shot_ensemble", "tuned"} == set(run["interval95"])
    assert set(run["seconds"]) == {"features", "train", "evaluate"}
    assert (run["support"], run["test"]) == (12, 24)
    assert run["adapter_bytes"] == (folder / "adapter.safetensors").stat().st_size
    assert run["memory_kind"] == "process"
    assert run["peak_memory_bytes"] > 50_000_000


def test_predict_with_the_saved_adapter(result, task_folder, capsys):
    _, folder = result
    code, out, _ = call(capsys, "predict", "--adapter", folder, "--json", task_folder / "red" / "00.png")
    assert code == 0
    (prediction,) = json.loads(out)["predictions"]
    for side in ("zero_shot", "tuned"):
        assert set(prediction[side]["probabilities"]) == {"red", "green", "blue"}
        assert sum(prediction[side]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_same_command_twice_same_numbers(task_folder, capsys):
    command = ("tune", "--task", task_folder, "--method", "lora", "--shots", 2, "--set", "epochs=2", "--json")
    first, second = (json.loads(call(capsys, *command)[1]) for _ in range(2))
    for changing in ("seconds", "forecast_seconds", "peak_memory_bytes", "forecast_memory_bytes"):
        first.pop(changing), second.pop(changing)
    assert first == second


def test_learned_words_are_in_the_json(task_folder, capsys):
    command = ("tune", "--task", task_folder, "--method", "prompt_tuning", "--shots", 2, "--set", "epochs=1", "--json")
    (part,) = json.loads(call(capsys, *command)[1])["learned"]
    assert part["layout"] == ["[v1]", "[v2]", "[v3]", "[v4]", "blue."]
    assert [token["start"] for token in part["tokens"]] == ["a", "photo", "of", "a"]
    assert part["tokens"][1]["nearest"][0][0] == "photo"


def test_zip_and_folder_give_the_same(task_folder, tmp_path, capsys):
    packed = tmp_path / "task.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(task_folder.rglob("*.png")):
            archive.write(file, file.relative_to(task_folder))
    results = [json.loads(call(capsys, "zero-shot", "--task", task, "--json")[1]) for task in (task_folder, packed)]
    assert results[0] == results[1]
    assert results[0]["test"] == 36


def test_methods_and_backbones_list_all(capsys):
    listed = json.loads(call(capsys, "methods", "--json")[1])["methods"]
    assert [m["id"] for m in listed] == [spec.id for spec in registry.methods()]
    table = call(capsys, "methods")[1]
    assert all(spec.id in table for spec in registry.methods())
    backbones = json.loads(call(capsys, "backbones", "--json")[1])["backbones"]
    assert backbones[0]["id"] == "pocket"
    assert backbones[0]["cached"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "nowhere", "--method", "lora"), "nowhere"),
        (("--task", "{task}", "--method", "magic"), "no method 'magic'"),
        (("--task", "{task}", "--method", "lora", "--set", "rank=2"), "rank"),
        (("--task", "{task}", "--method", "lora", "--set", "r"), "name=value"),
        (("--task", "{task}", "--method", "lora", "--preset", "huge"), "preset"),
        (("--task", "{task}", "--method", "lora", "--labels", "red"), "only one label"),
        (("--task", "{task}", "--method", "lora", "--labels", "red,blue"), "green"),
        (("--task", "{task}", "--method", "lora", "--templates", "none"), "template set"),
        (("--task", "{task}", "--method", "lora", "--shots", "0"), "between 1 and"),
        (("--task", "{task}", "--method", "lora", "--backbone", "no/such"), "no/such"),
    ],
)
def test_user_errors_exit_2_with_a_sentence(arguments, words, task_folder, capsys):
    code, out, err = call(capsys, "tune", *(a.replace("{task}", str(task_folder)) for a in arguments))
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_forecast_needs_no_weights_of_a_known_backbone(capsys):
    command = ("forecast", "--method", "lora", "--backbone", "openai/clip-vit-base-patch32", "--labels", 4)
    code, out, err = call(capsys, *command, "--batch", 8, "--shots", 4, "--set", "r=4", "--device", "cpu", "--json")
    assert (code, err) == (0, "")
    needed = json.loads(out)
    assert needed["total_parameters"] == 151_277_313
    assert needed["trainable_parameters"] == 12 * 2 * 4 * (2 * 768 + 2 * 512)
    assert needed["config"]["batch_size"] == 8
    assert needed["support"] == 16
    assert needed["total_bytes"] == sum(needed["memory"].values()) > 600_000_000
    assert set(needed["seconds"]) == {"features", "train", "evaluate"}
    assert needed["fits"]["8 GB"] is True
    table = call(capsys, "forecast", "--method", "linear_probe", "--device", "cpu")[1]
    assert "activations" in table
    assert "80 GB: yes" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "magic"), "no method 'magic'"),
        (("--method", "lora", "--backbone", "no/such"), "no/such"),
        (("--method", "lora", "--labels", "1"), "--labels must be from 2"),
        (("--method", "lora", "--shots", "0"), "--shots must be from 1"),
        (("--method", "lora", "--images", "-3"), "--images must be from 1"),
        (("--method", "lora", "--batch", "0"), "--batch must be from 1"),
    ],
)
def test_forecast_errors_are_sentences(arguments, words, capsys):
    code, out, err = call(capsys, "forecast", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_ctrl_c_exits_3(monkeypatch, capsys, task_folder):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "run", interrupt)
    assert call(capsys, "tune", "--task", task_folder, "--method", "tip_adapter")[0] == 3


def test_an_unknown_forecast_is_said_once(value_reader, task_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CTL_CACHE", str(tmp_path))
    code, out, err = call(capsys, "forecast", "--method", value_reader.id)
    assert code == 2 and not out and "Value reader needs is unknown" in err and "Traceback" not in err
    task = ("--task", task_folder, "--labels", "red,green,blue")
    code, out, _ = call(capsys, "tune", *task, "--method", value_reader.id, "--shots", 2, "--set", "epochs=2")
    assert code == 0 and out.count("forecast: unknown") == 1 and "verdict:" in out
    command = ("compare", *task, "--methods", f"{value_reader.id},linear_probe", "--shots", 1, "--seeds", 0)
    code, out, err = call(capsys, *command, "--csv", tmp_path / "runs.csv", "--report", tmp_path / "report.html")
    assert code == 0 and "Traceback" not in err
    assert out.count("Value reader needs is unknown") == 1 and "linear_probe" in out
    assert (tmp_path / "report.html").read_text(encoding="utf8").count("Value reader needs is unknown") == 1
    assert len((tmp_path / "runs.csv").read_text(encoding="utf8").splitlines()) == 4
