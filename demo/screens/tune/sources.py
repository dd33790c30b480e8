"""What the settings of a run may name on the page: sample tasks, and this visitor's earlier tasks and runs.

Files of the server are not among them.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from demo import tasks
from demo.model_download import backbone_name
from demo.words import Translator
from demo.workspace import RunRecord, Workspace
from engine.data.labels import parse_labels
from engine.errors import LabError
from engine.tuning.sources import NamedSources, SourceTask
from engine.types import Label

SAMPLE_FOLDER = "assets/samples/"
"""What a sample's name begins with, so that the command line finds it too."""


def named(workspace: Workspace) -> NamedSources:
    """Return the tasks and adapters that a run of this visitor may name; empty where its method names none."""
    if not offers(workspace.method):
        return NamedSources(files=False)
    adapters = {adapter_name(run): run.folder / "adapter" for run in workspace.runs}
    return NamedSources({**sample_tasks(workspace), **earlier_tasks(workspace)}, adapters, files=False)


def sample_tasks(workspace: Workspace) -> dict[str, SourceTask]:
    """Return the samples by name, without the one that is being tuned on."""
    found = {}
    for id, sample in tasks.samples().items():
        if id != workspace.sample:
            labels = tuple(Label(folder, prompt) for folder, prompt in sample.prompts.items())
            found[f"{SAMPLE_FOLDER}{id}"] = SourceTask(labels, tasks.sample_images(id))
    return found


def earlier_tasks(workspace: Workspace) -> dict[str, SourceTask]:
    """Uploaded tasks of earlier runs by name, the latest first, each once and without the present one."""
    seen = {pictures(workspace.images)}
    found: dict[str, SourceTask] = {}
    for run in reversed(workspace.runs):
        images = run.inputs.images
        if run.inputs.sample or pictures(images) in seen:
            continue
        seen.add(pictures(images))
        try:
            labels = parse_labels(run.inputs.labels_text)
        except LabError:
            continue
        found[f"{clock(run)} {plain(run.task)}"] = SourceTask(labels, images)
    return found


def pictures(images: Any) -> frozenset[tuple[str, str | None]]:
    """Return what makes two tasks the same."""
    return frozenset((image.digest, image.label) for image in images)


def clock(run: RunRecord) -> str:
    """Return the run's time, to the second: a name must tell two runs apart."""
    return time.strftime("%H:%M:%S", time.localtime(run.when))


def plain(title: str) -> str:
    """Return a task's title without the commas that divide names."""
    return title.replace(",", "")


def adapter_name(run: RunRecord) -> str:
    """Return what a run's adapter is called in a setting."""
    return f"{clock(run)} {run.result.method} · {plain(run.task)}"


def offered(workspace: Workspace, kind: str, t: Translator) -> list[tuple[str, str]]:
    """Return (title, name) of what a setting may name, ``tasks`` or ``teachers``."""
    if kind == "tasks":
        samples = {f"{SAMPLE_FOLDER}{id}": sample.title(t.language) for id, sample in tasks.samples().items()}
        return [(samples.get(name, name), name) for name in named(workspace).tasks]
    from engine.backbones.entries import ENTRIES
    from engine.backbones.hub import on_this_machine
    from engine.methods.distill import heads

    rows = [(t.name(id), id) for id in heads()]
    rows += [(name, name) for name in reversed(tuple(named(workspace).adapters))]
    others = [e for e in ENTRIES if e.id != workspace.backbone and on_this_machine(e)]
    return rows + [(backbone_name(e.id, t), e.id) for e in others]


def offers(method: str) -> set[str]:
    """Settings of a method that name tasks or adapters."""
    from engine.tuning import registry

    return {field.name for field in dataclasses.fields(registry.get(method).config) if field.metadata.get("offers")}


def on_command_line(workspace: Workspace, name: str, value: Any) -> Any:
    """Return a setting's value with a placeholder for what only the page knows."""
    if name not in offers(workspace.method):
        return value
    known = named(workspace)
    if value in known.adapters:
        return "YOUR_ADAPTER"
    names = str(value).split(",")
    if not any(name in known.tasks for name in names):
        return value
    return ",".join(name if name.startswith(SAMPLE_FOLDER) else "YOUR_OTHER_FOLDER_OR_ZIP" for name in names)
