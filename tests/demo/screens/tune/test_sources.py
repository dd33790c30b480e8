"""What the page lets a setting name: samples, this visitor's earlier tasks and runs, and no files."""

from __future__ import annotations

import shutil

import pytest

from demo import tasks
from demo.screens.tune import service as tuning
from demo.screens.tune import sources
from demo.words import Translator
from engine.errors import BadTask
from tests.demo.test_workspace import (
    filled,  # noqa: F401
    run,
    workspaces,  # noqa: F401
)

T = Translator("en")


@pytest.fixture
def after_a_run(filled, tmp_path):  # noqa: F811
    """A visitor whose earlier task has a run, and who has gone on to another task."""
    record = run(filled)
    tasks.clear(filled)
    other = tmp_path / "other"
    for colour in ("red", "blue"):
        shutil.copytree(tmp_path / "unpacked" / colour, other / colour)
    assert tasks.add_files(filled, [shutil.make_archive(str(tmp_path / "other"), "zip", other)])
    return filled, record


@pytest.fixture(autouse=True)
def unpacked(task_folder, tmp_path):
    shutil.copytree(task_folder, tmp_path / "unpacked")


def test_earlier_tasks_and_samples_are_offered(after_a_run):
    workspace, record = after_a_run
    workspace.method = "multitask_prompt"
    rows = sources.offered(workspace, "tasks", T)
    assert [name for _, name in rows][: len(tasks.samples())] == [f"assets/samples/{id}" for id in tasks.samples()]
    (title, name) = rows[-1]
    assert title == name and "," not in name and record.task.split(",")[0] in name
    task = sources.named(workspace).tasks[name]
    assert [label.name for label in task.labels] == ["blue", "green", "red"] and len(task.images) == 36
    tuning.reopen(workspace, record.id)
    workspace.method = "multitask_prompt"
    assert name not in sources.named(workspace).tasks  # it is the present task again
    tasks.load_sample(workspace, "hardware", "ko")
    assert "assets/samples/hardware" not in sources.named(workspace).tasks
    korean = {name: title for title, name in sources.offered(workspace, "tasks", Translator("ko"))}
    assert korean["assets/samples/materials"] == tasks.samples()["materials"].title("ko")


def test_files_of_the_server_are_refused(after_a_run, task_folder):
    workspace, _ = after_a_run
    with pytest.raises(BadTask, match="no earlier task"):
        run(workspace, "multitask_prompt", sources=str(task_folder), epochs=1)


def test_a_run_learns_from_an_earlier_task_and_an_earlier_run_teaches(after_a_run):
    workspace, record = after_a_run
    workspace.method = "multitask_prompt"
    name = sources.offered(workspace, "tasks", T)[-1][1]
    assert run(workspace, "multitask_prompt", sources=name, epochs=1, source_epochs=1).result.config["sources"] == name
    assert "--set sources=YOUR_OTHER_FOLDER_OR_ZIP" in tuning.command(workspace)
    assert sources.on_command_line(workspace, "sources", "assets/samples/materials") == "assets/samples/materials"
    workspace.method = "distill"
    teachers = [name for _, name in sources.offered(workspace, "teachers", T)]
    assert teachers[0] == "zero_shot" and "linear_probe" in teachers and sources.adapter_name(record) in teachers
    workspace.settings = {"teacher": sources.adapter_name(record)}
    assert "--set teacher=YOUR_ADAPTER" in tuning.command(workspace)
