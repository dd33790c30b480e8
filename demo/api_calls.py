"""What every endpoint does: files and labels as the engine takes them, the device's queue, plain sentences."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from demo.job_queue import SHARED
from engine.errors import BadConfig, LabError, messages

EVERY = 0.5
"""Seconds between two messages of progress."""
SECONDS = 30.0
"""What a call is taken to last, where it is decided who comes first."""
Json = dict[str, Any]
Report = Callable[[Json], None]

messages(
    api_no_task="No photos were sent. Send one zip with a folder a label.",
    api_no_images="No image was sent. Send image files or a zip.",
    api_no_adapter="No adapter was sent. Send the zip that tune returned.",
    api_numbers="{name} {text!r} is not a list of whole numbers by comma, such as 0,1,2.",
)


def on_device(
    work: Callable[[Report, threading.Event], Any],
    of_progress: Callable[[Json], Any] = lambda moment: moment,
    files: Sequence[str] | None = None,
) -> Iterator[Any]:
    """Do ``work(report, stop)`` in the device's queue: yields its progress and at last what it returned. A caller who
    has gone stops it. Raises gr.Error with the sentence of a LabError, in which the ``files`` that were sent have their
    own names."""
    stop, latest, found = threading.Event(), list[Json](), list[Any]()

    def run() -> Iterator[Any]:
        found.append(work(lambda moment: latest.__setitem__(slice(None), [moment]), stop))
        return iter(())

    try:
        with plainly(files or ()):
            job = SHARED.submit(run, stop, SECONDS)
            for _ in job.watch(EVERY):
                yield of_progress(latest[0] if latest else {"stage": "running" if job.started.is_set() else "waiting"})
            if found:
                yield found[0]
    finally:
        stop.set()


@contextmanager
def plainly(files: Sequence[str] = ()) -> Iterator[None]:
    """A LabError leaves as gradio's error with the same sentence."""
    try:
        yield
    except LabError as error:
        raise gr.Error(named(str(error), files), print_exception=False) from error


def named(text: str, files: Sequence[str]) -> str:
    """Return a text in which sent files have their own names, without the folder where they lie here."""
    for file in files:
        text = text.replace(f"{Path(file).parent}{os.sep}", "")
    return text


def task_of(files: list[str] | None, labels: str) -> Any:
    """Return the task that was sent. Raises LabError."""
    from engine import front_door

    if not files:
        raise BadConfig("api_no_task")
    return front_door.read_task(files, labels or None)


def problems_of(task: Any) -> list[str]:
    """Return how a task was understood, and what was left out of it."""
    return [*map(str, task.understood), *(problem.message for problem in task.problems)]


def adapter_of(file: str | None) -> str:
    """Return the zip that was sent. Raises BadConfig where there is none."""
    if not file:
        raise BadConfig("api_no_adapter")
    return file


def numbers_of(name: str, text: str) -> tuple[int, ...]:
    """Return whole numbers by comma. Raises BadConfig."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise BadConfig("api_numbers", name=name, text=text) from None


def scorer_of(labels: str, adapter: str | None) -> Any:
    """Return what scores regions: a tuned model, or zero-shot with labels; None without either. Raises LabError."""
    from engine import front_door
    from engine.backbones import catalog
    from engine.data.labels import parse_labels
    from engine.regions.scores import Scorer

    if adapter:
        loaded = front_door.load_adapter(adapter)
        return Scorer(loaded.setting, loaded.tuner)
    return Scorer.zero_shot(catalog.load(), parse_labels(labels), "general") if labels.strip() else None


def zipped(folder: Path) -> str:
    """Return a folder as one zip beside it."""
    return shutil.make_archive(str(folder), "zip", folder)
