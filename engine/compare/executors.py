"""Where runs are done: in this process, one after the other. Other places have the same interface."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch

from engine import temporary
from engine.backbones.base import Backbone
from engine.compare.plan import Job
from engine.compare.results import Measured, measured
from engine.data.images import ImageFile
from engine.errors import LabError, Note, messages
from engine.runs import store
from engine.runs.run import Run
from engine.tuning import registry
from engine.tuning.features import SHARED, Cache
from engine.tuning.outcome import Stopped
from engine.types import Progress

messages(
    compare_no_memory="{method} ran out of memory, and the other runs went on. Choose a method that trains less, a "
    "smaller batch_size or a smaller backbone.",
    compare_broke="{method} stopped because of an unexpected error ({reason}), and the other runs went on.",
)


@dataclass(frozen=True, eq=False)
class RunContext:
    """What all runs of a comparison share."""

    images: tuple[ImageFile, ...]
    backbone: Backbone
    cache: Cache = SHARED
    """Holds the features of all images when the first run starts."""


@dataclass(frozen=True, eq=False)
class JobUpdate:
    """News of a job: it starts (neither field), goes on, or has ended."""

    job: Job
    progress: Progress | None = None
    ended: Measured | Note | None = None
    """What it measured, or why it failed."""


class Executor(Protocol):
    """Does jobs. A job that fails ends with a note; no job's failure ends another."""

    def run(self, bench: RunContext, jobs: Iterable[Job], stop: threading.Event) -> Iterator[JobUpdate]:
        """Do the jobs in about their order; each one's last turn has ``ended``. Returns soon after ``stop`` is set;
        jobs under way then end without a last turn."""


class InProcess:
    """One run after the other, here; with progress."""

    def run(self, bench: RunContext, jobs: Iterable[Job], stop: threading.Event) -> Iterator[JobUpdate]:
        """See :class:`Executor`."""
        for job in jobs:
            if stop.is_set():
                return
            yield JobUpdate(job)
            try:
                with closing(attempt(job, bench, stop)) as news:
                    for item in news:
                        progress, ended = (item, None) if isinstance(item, Progress) else (None, item)
                        yield JobUpdate(job, progress, ended)
            except Stopped:
                return


def attempt(job: Job, bench: RunContext, stop: threading.Event) -> Generator[Progress | Measured | Note]:
    """Do one run; the last item is what it measured, or a note about what went wrong. Raises Stopped."""
    method = registry.get(job.spec.method)
    ended: Measured | Note | None = None
    try:
        for item in Run(job.spec, bench.images, bench.backbone, stop, bench.cache).run():
            if isinstance(item, Progress):
                yield item
            else:
                with temporary.folder() as folder:
                    ended = measured(item, store.save(item, folder))
                del item  # the tuner goes before the next run comes
    except Stopped:
        raise
    except LabError as error:
        ended = error.note
    except Exception as error:  # whatever a method does, the other runs go on
        ended = unexpected(method.title, error)
    if method.recomputes.towers:  # twins of a tower hold each other in circles
        gc.collect()
    if isinstance(ended, Note) and bench.backbone.device.type == "cuda":
        torch.cuda.empty_cache()
    assert ended is not None, "a run ends with its outcome"
    yield ended


def unexpected(method: Note, error: Exception) -> Note:
    """Return the sentence for an error that is none of the lab's own."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text:
        return Note("compare_no_memory", (("method", method),))
    reason = f"{type(error).__name__}: {text.splitlines()[0]}" if text.strip() else type(error).__name__
    return Note("compare_broke", (("method", method), ("reason", reason[:200])))
