"""ONNX files: run by onnxruntime alone, in fp32 and int8."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil

import numpy as np
import onnx
import pytest
import torch

from engine import export_adapter, predict, read_task, tune
from engine.data.images import read_checked
from engine.errors import BadExport
from engine.export import onnx_file
from tests import families

METHODS = ["lora", "clip_adapter", "visual_prompt", "conditional_prompt", "image_prompt", "tip_adapter", "prolip"]


@pytest.fixture(scope="module")
def task(task_folder):
    return read_task(task_folder)


def probabilities(session, backbone, image):
    return onnx_file.run(session, backbone.load_pixels([read_checked(image)]).numpy())


def check(tuned, task, folder):
    """Both rows of the fp32 file are the adapter's own, for images of the task."""
    done = export_adapter(tuned, "onnx", folder)
    assert done.difference < 1e-5
    session = onnx_file.open_session(folder / "model.onnx")
    backbone = tuned.outcome.setting.backbone
    for wanted, image in zip(predict(tuned, task), task.images[::12], strict=False):
        assert wanted.image == image.name
        found = probabilities(session, backbone, image)
        for row, scores in zip(found, (wanted.tuned, wanted.zero_shot), strict=True):
            assert row[0] == pytest.approx(list(scores.probabilities.values()), abs=1e-5)
        break
    return done


@pytest.mark.parametrize("method", METHODS)
def test_any_method_gives_the_same_scores(method, task, tiny, tmp_path):
    settings = {"epochs": 2} if method != "tip_adapter" else {}
    done = check(tune(task, method, tiny, shots=4, **settings), task, tmp_path / "out")
    assert str(done.notes[0]).startswith("How much accuracy int8 costs was not measured")


@pytest.mark.parametrize("kind", families.KINDS)
def test_every_family_gives_the_same_scores(kind, task, tmp_path):
    backbone = families.make(kind, tmp_path)
    method = "lora" if backbone.linear_names("vision", ["fc1"]) else "linear_probe"
    settings = {"targets": "fc1"} if method == "lora" else {}
    check(tune(task, method, backbone, shots=2, epochs=2, **settings), task, tmp_path / "out")


def test_int8_is_smaller_and_what_it_costs_is_measured(task, pocket, task_folder, tmp_path, monkeypatch):
    tuned = tune(task, "lora", pocket, shots=4, epochs=3)
    done = export_adapter(tuned, "onnx", tmp_path / "out", task)
    assert done.files["model.onnx"] < 30e6 and done.files["model-int8.onnx"] < 8e6
    assert done.tested == 24, "without the twelve images that trained"
    assert done.accuracy["fp32"] == pytest.approx(tuned.result.accuracy["tuned"], abs=1e-9)
    assert done.accuracy["int8"] >= done.accuracy["fp32"] - 0.1
    assert f"{done.accuracy['int8']:.1%} in int8" in str(done.notes[0])
    assert str(done.notes[0]) in (tmp_path / "out" / "README.md").read_text("utf8")
    (code,) = re.findall(r"```python\n(.+?)```", (tmp_path / "out" / "README.md").read_text("utf8"), re.DOTALL)
    shutil.copy(task_folder / "red" / "00.png", tmp_path / "out" / "photo.jpg")
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    (wanted,) = predict(tuned, "photo.jpg")
    assert names["scores"] == pytest.approx(dict(wanted.tuned.probabilities), abs=0.1)


def test_weights_that_both_towers_share_are_there_once(task, tiny, tmp_path):
    export_adapter(tune(task, "lora", tiny, shots=2, epochs=1), "onnx", tmp_path / "out")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    weights = [np.asarray(onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer]
    large = [weight.tobytes() for weight in weights if weight.size >= tiny.vision.width**2]
    assert len(large) == len(set(large))
    assert {entry.domain for entry in model.opset_import} == {""}


def test_large_convolutions_keep_a_scale_for_each_channel(tmp_path):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(16, 8, 3)
    with torch.no_grad():
        layer.weight[3] = 0
        layer.weight[5] *= 100
        inputs = torch.rand(1, 16, 5, 5)
        torch.onnx.export(layer, (inputs,), tmp_path / "conv.onnx", dynamo=False, input_names=["x"])
        wanted = layer(inputs).numpy()
    onnx_file.quantize_convolutions(tmp_path / "conv.onnx")
    (found,) = onnx_file.open_session(tmp_path / "conv.onnx").run(None, {"x": inputs.numpy()})
    error = np.abs(found - wanted).max((0, 2, 3))
    assert (error <= 0.01 * np.abs(layer.weight.detach().numpy()).max((1, 2, 3)) * 16 * 9 / 2 + 1e-6).all()
    assert (tmp_path / "conv.onnx").stat().st_size < 2500 < layer.weight.numel() * 4


def test_a_missing_package_is_named(task, tiny, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(BadExport, match="pip install onnxruntime"):
        export_adapter(tune(task, "zero_shot", tiny, shots=2), "onnx", tmp_path / "out")
    assert json.dumps([file.name for file in tmp_path.iterdir()]) == "[]"
