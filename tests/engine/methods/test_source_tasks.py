"""Tasks beside the run's own: where multitask prompt tuning finds them, what it takes of them, what they cost."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from engine.costs import forecast
from engine.costs.machine import Speed
from engine.costs.trace import trace_step
from engine.data import episode
from engine.errors import BadConfig, BadTask
from engine.methods import multitask_prompt
from engine.runs.run import Run
from engine.tuning import loop, registry
from engine.tuning.features import Cache, FeatureStore
from engine.tuning.sources import NamedSources, SourceTask
from engine.types import Label, RunSpec
from tests.tiny import picture

LABELS = (Label("red", "red square"), Label("green", "green square"), Label("blue", "blue square"))
SUPPORT = [0, 1, 12, 13, 24, 25]


def folder_of(path: Path, colours: dict[str, tuple[int, int, int]], each: int) -> Path:
    """A task folder of coloured pictures."""
    for k, (name, colour) in enumerate(colours.items()):
        (path / name).mkdir(parents=True)
        for i in range(each):
            picture(colour, 900 + 50 * k + i).save(path / name / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    colours = {"pale_grey": (180, 180, 180), "dark": (40, 40, 40)}
    return folder_of(tmp_path_factory.mktemp("source") / "shades", colours, 5)


def a_run(task_images, tiny, known: NamedSources | None = None, **settings) -> Run:
    chosen = episode.build(LABELS, [image.label for image in task_images], 4)
    spec = RunSpec("tiny", "multitask_prompt", chosen, settings=tuple(settings.items()))
    return Run(spec, task_images, tiny, cache=Cache(), sources=known)


def gathered(run: Run, support=SUPPORT):
    """(setting of the other tasks, task of each of their labels)."""
    return multitask_prompt.other_tasks(run.config, run._setting(support), run.store, support)


def test_folders_and_zips_are_read_as_tasks(source, task_folder, task_images, tiny, tmp_path):
    packed = tmp_path / "other.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(source.rglob("*.png")):
            archive.write(file, file.relative_to(source))
    run = a_run(task_images, tiny, sources=f"{source}, {packed}", source_shots=3)
    setting, tasks = gathered(run)
    names = [(label.name, label.prompt) for label in setting.labels]
    assert sorted(names[:2]) == [("dark", "dark"), ("pale_grey", "pale grey")]
    assert names[:2] == names[2:] and tasks.tolist() == [0, 0, 1, 1]
    assert setting.targets.tolist() == [k for k in range(4) for _ in range(3)]
    assert torch.equal(setting.support[:6], setting.support[6:])
    images = NamedSources().task(str(source), tmp_path).images
    known = FeatureStore(tiny, images, Cache()).features()
    for row, target in zip(setting.support, setting.targets.tolist(), strict=True):
        near = [image.label for image, f in zip(images, known, strict=True) if torch.allclose(f, row, atol=1e-5)]
        assert near == [setting.labels[target].name]
    assert torch.equal(gathered(run)[0].support, setting.support)


def test_images_that_test_teach_nothing(task_folder, task_images, tiny):
    """The task itself, given as another one: only its support images are left of it."""
    run = a_run(task_images, tiny, sources=str(task_folder))
    setting, _ = gathered(run)
    wanted = run.store.features(SUPPORT)
    assert len(setting.support) == len(SUPPORT)
    for row in setting.support:
        assert any(torch.allclose(row, f, atol=1e-6) for f in wanted)
    with pytest.raises(BadTask, match="cannot teach anything here"):
        gathered(run, support=[0, 1])


def test_earlier_tasks_by_name(source, task_images, tiny, tmp_path):
    task = NamedSources().task(str(source), tmp_path)
    assert [label.prompt for label in task.labels] == [x.replace("_", " ") for x in (y.name for y in task.labels)]
    named = SourceTask((Label("밝음", "pale grey"), Label("dark", "dark")), task.images)
    known = NamedSources(tasks={"shades": named, "shades 2": task}, files=False)
    with pytest.raises(BadTask, match="cannot teach"):  # its images have no label of the name
        gathered(a_run(task_images, tiny, known, sources="shades"))
    assert gathered(a_run(task_images, tiny, known, sources="shades 2"))[1].tolist() == [0, 0]
    with pytest.raises(BadTask, match="Choose among: shades, shades 2"):
        gathered(a_run(task_images, tiny, known, sources=str(source)))
    with pytest.raises(BadTask, match="nowhere"):
        gathered(a_run(task_images, tiny, sources="nowhere"))


def test_groups_and_other_tasks_exclude_each_other():
    with pytest.raises(BadConfig, match="groups and sources contradict"):
        registry.get("multitask_prompt").configure(settings={"groups": "a, b | c, d", "sources": "x"})


def test_a_source_prompt_is_prompt_tuning_on_its_own_task(source, task_images, tiny):
    run = a_run(task_images, tiny, sources=str(source), batch_size=4)
    setting, tasks = gathered(run)
    teacher = multitask_prompt.SourcePrompts(run.config, setting, tasks)
    spec = registry.get("prompt_tuning")
    plain_config = spec.configure(settings={"batch_size": 4, "epochs": 4})
    plain = spec.tuner()(plain_config, setting)
    for tuner in (teacher, plain):
        list(loop.fit(tuner, setting.support[None], setting.targets, plain_config, 0))
    torch.testing.assert_close(teacher.own[0], plain.context, atol=1e-5, rtol=1e-4)


def test_a_run_with_two_other_tasks(source, task_images, tiny, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(source, other)
    settings = {"source_epochs": 3, "epochs": 2, "batch_size": 8}
    run = a_run(task_images, tiny, sources=f"{source},{other}", **settings)
    *progress, outcome = run.run()
    moments = [(p.done, p.total) for p in progress if p.stage == "prepare"]
    assert moments == [(k, 18) for k in range(1, 19)]  # twice 3 epochs of 20 images in batches of 8
    *_, grouped = a_run(task_images, tiny, **settings).run()
    assert outcome.result.config["sources"] == f"{source},{other}"
    assert not torch.equal(outcome.tuner.prompt.embedding.weight, grouped.tuner.prompt.embedding.weight)


def test_the_source_stage_is_in_the_forecast(tiny):
    spec = registry.get("multitask_prompt")
    steps, seconds = {}, {}
    for sources in ("", "one", "one, two"):
        config = spec.configure(settings={"sources": sources, "batch_size": 8, "source_epochs": 5})
        step = trace_step(spec, config, tiny, ["red square", "green square", "blue square", "x"], 16)
        steps[sources] = [number for _, number in step.pretraining_stages]
        plan = forecast.workload_of(spec, config, 16, 32, 0, 1)
        speed = Speed(1e9, 1.0, 1e9, 1e-6, 0.0, 0.0)
        seconds[sources] = forecast.seconds(step, plan, speed)["train"]
        alone = forecast.seconds(type(step)(**{**step.__dict__, "pretraining_stages": ()}), plan, speed)["train"]
        assert seconds[sources] > 1.2 * alone
    assert steps == {"": [10, 10], "one": [10, 10], "one, two": [20, 20]}
    assert seconds[""] < seconds["one, two"]
