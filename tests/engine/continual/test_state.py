"""A saved state goes on as if nothing had happened, and a damaged one is refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.continual import state
from engine.continual.results import StrategyResult
from engine.continual.run import StreamRun
from engine.errors import BadAdapter, BadLabels
from engine.types import Label
from tests.engine.continual.conftest import NAMES, make_stream
from tests.tiny import make_tiny


def last(run) -> StrategyResult:
    return [item for item in run.run() if isinstance(item, StrategyResult)][-1]


def parts(images, names):
    return tuple(image for image in images if image.label in names), [Label(name, name) for name in names]


def saved(name, tiny, images, folder):
    """Learn red and green and save."""
    from engine.continual.tasks import build_stream

    two, labels = parts(images, NAMES[:2])
    run = StreamRun(name, build_stream(labels, [i.label for i in two], [("red",), ("green",)], 4), two, tiny)
    last(run)
    run.save(folder)
    return folder


def go_on(folder, tiny, images, groups=(("blue",),), **options):
    before = state.load(folder, tiny)
    one, labels = parts(images, options.pop("names", ("blue",)))
    stream, both = before.continued(labels, one, groups, 4)
    return StreamRun(before.strategy, stream, both, tiny, before.config, before.seed, before=before)


def test_going_on_gives_what_no_break_gives(tiny, task_images, every_strategy, tmp_path):
    whole = last(StreamRun(every_strategy, make_stream(task_images), task_images, tiny))
    run = go_on(saved(every_strategy, tiny, task_images, tmp_path / "s"), tiny, task_images)
    found = last(run)
    np.testing.assert_allclose(found.matrix[-1], whole.matrix[-1], atol=0.13)  # half precision, other places in batches
    assert np.isnan(found.matrix[0, 2]) and found.tested == whole.tested and run.learner.seen == [0, 1, 2]
    assert found.to_json()["matrix"][0][2] is None


def test_test_images_that_are_gone_leave_a_gap(tiny, task_images, tmp_path):
    folder = saved("prototypes", tiny, task_images, tmp_path / "s")
    for path in (folder / "tests").iterdir():
        path.unlink()
    found = last(go_on(folder, tiny, task_images))
    assert np.isnan(found.matrix[-1, :2]).all() and np.isfinite(found.measures["accuracy"])


def test_labels_that_were_learned_before(tiny, task_images, tmp_path):
    folder = saved("prototypes", tiny, task_images, tmp_path / "s")
    with pytest.raises(BadLabels, match="label green was learned before, in step 2"):
        go_on(folder, tiny, task_images, (("green",),), names=("green",))


def test_another_backbone_and_other_weights(tiny, task_images, tmp_path):
    folder = saved("prototypes", tiny, task_images, tmp_path / "s")
    with pytest.raises(BadAdapter, match="belongs to the backbone tiny, not to other"):
        state.load(folder, make_tiny(id="other"))
    with pytest.raises(BadAdapter, match="other weights"):
        state.load(folder, make_tiny(seed=1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "state.json").unlink(), "state.json is missing"),
        (lambda f: (f / "state.safetensors").unlink(), "state.safetensors is missing"),
        (lambda f: (f / "state.json").write_text("{"), "state.json cannot be read"),
        (lambda f: (f / "state.safetensors").write_bytes(b"x" * 40), "state.safetensors cannot be read"),
        (lambda f: change(f, schema=9), "format 9"),
        (lambda f: change(f, labels=[]), "lacks labels"),
        (lambda f: change(f, steps=[["red"]]), "lacks steps"),
        (lambda f: change(f, tests=[{"path": "x.png"}]), None),
        (lambda f: change(f, tests=[3]), "state.json cannot be read"),
    ],
)
def test_damage(damage, words, tiny, task_images, tmp_path):
    folder = saved("prototypes", tiny, task_images, tmp_path / "s")
    damage(folder)
    if words is None:  # an image that is not there any more
        assert state.load(folder, tiny).tests == ()
        return
    with pytest.raises(BadAdapter, match=words):
        state.load(folder, tiny)


def change(folder, **fields):
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_tensors_of_another_shape_and_no_numbers(tiny, task_images, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = saved("gaussian", tiny, task_images, tmp_path / "s")
    path = folder / "state.safetensors"
    tensors = load_file(path)
    before = state.load(folder, tiny)
    other = replace(before, tensors={**before.tensors, "moment": torch.zeros(2, 2)})
    stream, both = other.continued([Label("blue", "blue")], parts(task_images, ("blue",))[0], [("blue",)], 4)
    with pytest.raises(BadAdapter, match="lacks moment"):
        StreamRun("gaussian", stream, both, tiny, before=other)
    save_file({**tensors, "sums": tensors["sums"] * float("nan")}, path)
    with pytest.raises(BadAdapter, match="sums holds values that are no numbers"):
        state.load(folder, tiny)
