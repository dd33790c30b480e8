"""Saved adapters: what is in them, and every way in which one can be wrong."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.backbones import entries
from engine.data import episode
from engine.errors import BadAdapter
from engine.runs import store
from engine.runs.run import Run, score_with
from engine.tuning import adapter_files
from engine.types import Label, RunResult, RunSpec
from tests.tiny import make_tiny

LABELS = (Label("red", "red"), Label("green", "green"), Label("파랑", "blue"))


@pytest.fixture(scope="module")
def outcomes(task_images, tiny):
    names = [{"blue": "파랑"}.get(image.label, image.label) for image in task_images]
    chosen = episode.build(LABELS, names, 4)
    done = {}
    for method, settings in {"lora": (("epochs", 2),), "tip_adapter": (), "linear_probe": ()}.items():
        *_, done[method] = Run(RunSpec("tiny", method, chosen, settings=settings), task_images, tiny).run()
    return done


@pytest.fixture
def saved(outcomes, tmp_path):
    folder = tmp_path / "adapter"
    store.save(outcomes["lora"], folder)
    return folder


def edit(folder, **changes):
    path = folder / "adapter.json"
    recipe = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in recipe.items() if v is not None}))


def refused(folder, backbone) -> BadAdapter:
    before = [p.clone() for p in backbone.model.parameters()]
    with pytest.raises(BadAdapter) as caught:
        store.load(folder, backbone)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.model.parameters(), strict=True))
    return caught.value


def test_folder_holds_recipe_tensors_and_card(saved, outcomes):
    recipe = json.loads((saved / "adapter.json").read_text())
    assert recipe["labels"][2] == {"name": "파랑", "prompt": "blue"}
    for key in ("schema", "method", "config", "backbone", "weight_hash", "templates", "seed", "versions", "accuracy"):
        assert key in recipe
    assert set(load_file(saved / "adapter.safetensors")) == set(outcomes["lora"].tuner.trained())
    card = (saved / "README.md").read_text()
    assert "파랑 (read as: blue)" in card
    assert card.startswith("---\nlibrary_name: peft\npipeline_tag: zero-shot-image-classification\n")
    assert "base_model" not in card.split("---")[1], "which is no name of the hub"


def test_no_path_of_this_machine_is_saved(task_images, pocket, tmp_path):
    chosen = episode.build([*LABELS[:2], Label("blue", "blue")], [image.label for image in task_images], 2)
    spec = RunSpec("pocket", "lora", chosen, settings=(("epochs", 1), ("last_blocks", 1)))
    *_, outcome = Run(spec, task_images, pocket).run()
    store.save(outcome, tmp_path)
    root = str(entries.POCKET_FOLDER.parents[1])
    assert not [file.name for file in tmp_path.iterdir() if root in file.read_text(errors="ignore")]


def test_peft_reads_its_own_format(saved, outcomes, tiny):
    from peft import PeftModel

    model = PeftModel.from_pretrained(tiny.twin(share=False).model, saved)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        theirs = model.get_image_features(pixel_values=pixels).pooler_output
        ours = outcomes["lora"].tuner.tuned.encode_image(pixels)
    torch.testing.assert_close(torch.nn.functional.normalize(theirs, dim=-1), ours, atol=1e-5, rtol=0)


def test_zip_round_trip(saved, tiny, tmp_path):
    packed = adapter_files.pack(saved, tmp_path / "adapter.zip")
    adapter = store.load(adapter_files.unpack(packed, tmp_path / "again"), tiny)
    assert [label.name for label in adapter.labels] == ["red", "green", "파랑"]


def test_reloaded_adapter_scores_images_alike(outcomes, saved, task_images, tiny):
    before, after = score_with(store.load(saved, tiny), task_images)
    torch.testing.assert_close(after, torch.tensor(outcomes["lora"].arrays["tuned"]).softmax(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(before, torch.tensor(outcomes["lora"].arrays["ensemble"]).softmax(-1), atol=1e-6, rtol=0)


def test_wrong_backbone(saved, pocket):
    assert refused(saved, pocket).key == "adapter_backbone"


def test_other_weights(saved):
    assert refused(saved, make_tiny(seed=1)).key == "adapter_weights"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"labels": []}, "adapter_field"),
        ({"labels": ["red"]}, "adapter_field"),
        ({"method": None}, "adapter_field"),
        ({"method": "magic"}, "adapter_json"),
        ({"schema": 99}, "adapter_schema"),
        ({"config": {"r": 0}}, "adapter_json"),
        ({"config": {"r": 4}}, "adapter_shape"),
        ({"method": "linear_probe", "config": {}}, "adapter_extra"),
    ],
)
def test_wrong_recipes(saved, tiny, changes, key):
    edit(saved, **changes)
    assert refused(saved, tiny).key == key


def test_wrong_number_of_labels(outcomes, tiny, tmp_path):
    store.save(outcomes["linear_probe"], tmp_path)
    edit(tmp_path, labels=[{"name": "red", "prompt": "red"}, {"name": "green", "prompt": "green"}])
    assert refused(tmp_path, tiny).key == "adapter_shape"


def test_support_targets_outside_the_labels(outcomes, tiny, tmp_path):
    store.save(outcomes["tip_adapter"], tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    tensors["targets"] += 7
    save_file(tensors, tmp_path / "adapter.safetensors")
    assert refused(tmp_path, tiny).key == "adapter_shape"


def test_missing_key_and_wrong_shape(saved, tiny):
    path = saved / "adapter.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    assert refused(saved, tiny).key == "adapter_key"
    save_file(tensors | {name: torch.zeros(3, 3)}, path)
    assert refused(saved, tiny).key == "adapter_shape"


@pytest.mark.parametrize("content", ["truncated", "pickle", "empty", "text"])
def test_damaged_tensors(saved, tiny, content):
    path = saved / "adapter.safetensors"
    path.write_bytes(
        {
            "truncated": path.read_bytes()[:-50],
            "pickle": pickle.dumps({"a": 1}),
            "empty": b"",
            "text": b"hello" * 100,
        }[content]
    )
    assert refused(saved, tiny).key == "adapter_tensors"


def test_pickles_are_never_run(saved, tiny):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    (saved / "adapter.safetensors").write_bytes(pickle.dumps(Evil()))
    assert refused(saved, tiny).key == "adapter_tensors"


def test_missing_files_and_broken_zips(saved, tiny, tmp_path):
    (saved / "adapter.safetensors").unlink()
    assert refused(saved, tiny).key == "adapter_missing"
    (saved / "adapter.json").write_text("{")
    assert refused(saved, tiny).key == "adapter_json"
    (saved / "adapter.json").unlink()
    assert refused(saved, tiny).key == "adapter_missing"
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(BadAdapter, match=r"broken\.zip"):
        adapter_files.unpack(broken, tmp_path / "x")


def test_zip_paths_stay_inside(tmp_path):
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../adapter.json", "{}")
        archive.writestr("notes.txt", "nobody reads this")
    adapter_files.unpack(evil, tmp_path / "in")
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["adapter.json"]
    assert not (tmp_path.parent / "adapter.json").exists()


@pytest.mark.parametrize("parameters", [None, 5_000_000])
def test_a_zip_that_unpacks_to_far_more_is_refused_before_it_does(parameters, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_files, "SUPPORT_LIMIT", 0)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=0 if parameters else 9) as archive:
        archive.writestr("adapter.safetensors", bytes(60_000_000))
    with pytest.raises(BadAdapter, match="unpacks to more than"):
        adapter_files.unpack(bomb, tmp_path / "in", parameters)
    assert (tmp_path / "in" / "adapter.safetensors").stat().st_size < 30_000_000


def test_a_zip_of_countless_files_is_refused(tmp_path):
    crowd = tmp_path / "crowd.zip"
    with zipfile.ZipFile(crowd, "w") as archive:
        for k in range(1001):
            archive.writestr(f"{k}", "")
    with pytest.raises(BadAdapter, match="more than 1,000 files"):
        adapter_files.unpack(crowd, tmp_path / "in")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(saved, tiny, value):
    tensors = load_file(saved / "adapter.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = value
    save_file(tensors, saved / "adapter.safetensors")
    assert refused(saved, tiny).key == "adapter_finite"


@pytest.mark.parametrize(("field", "value"), [("curve", "x"), ("interval95", {"tuned": 1}), ("accuracy", None)])
def test_a_recipe_with_a_damaged_result_is_refused(saved, tiny, field, value):
    recipe = json.loads((saved / "adapter.json").read_text())
    (saved / "adapter.json").write_text(json.dumps(recipe | {field: value}))
    assert refused(saved, tiny).key == "adapter_json"


def test_a_result_is_read_back_as_it_was_written(outcomes):
    for outcome in outcomes.values():
        written = json.loads(json.dumps(outcome.result.to_json()))
        assert RunResult.from_json(written).to_json() == written
        assert RunResult.from_json(written).verdict == outcome.result.verdict


def test_a_result_of_an_older_version_is_read_too(outcomes):
    written = next(iter(outcomes.values())).result.to_json()
    for late in ("trained_on", "precision", "forecast_parts", "forecast_seconds", "chosen", "notes"):
        del written[late]
    found = RunResult.from_json(written)
    assert found.trained_on == () and found.precision == "fp32" and found.cost.forecast_parts == {}
    assert found.accuracy == written["accuracy"]
