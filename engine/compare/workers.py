"""Runs in other processes of this machine, and what such a process needs.

A worker gets what all runs share once, as plain data: the images (as files here, as bytes where the
worker does not have the files), the backbone's name and the features of all images. Only the process that
started it writes results.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from engine import temporary
from engine.backbones import catalog
from engine.compare.executors import JobUpdate, RunContext, attempt, unexpected
from engine.compare.plan import Job
from engine.compare.results import Measured
from engine.costs.forecast import free_bytes
from engine.data.images import ImageFile
from engine.errors import BadConfig, LabError, Note, messages
from engine.tuning import registry
from engine.tuning.features import Cache, FeatureStore
from engine.tuning.outcome import Stopped

PROCESS_BYTES = 700 << 20
"""Bytes that Python and its libraries take in a worker before it has loaded anything."""
TRIES = 2
"""Times that a job is done when its worker dies, which may be another job's fault."""
POLL = 0.2
"""Seconds between looks at whether to stop."""

messages(
    compare_worker_died="{method} ended with its worker process, most likely because memory ran out; the other runs "
    "went on. Use fewer workers, or a method that trains less.",
    compare_worker_weights="The worker has other weights of {backbone} (hash {found}, here {wanted}). Use the same "
    "version of the backbone on every machine.",
)


@dataclass(frozen=True, eq=False)
class SerializedContext:
    """A bench as plain data, for another process."""

    images: tuple[ImageFile, ...]
    files: tuple[bytes, ...]
    """The images' bytes; empty where the worker sees the same files."""
    backbone: str
    weight_hash: str
    device: str
    features: np.ndarray
    """``(N, P)`` float32: the features of all images."""

    @classmethod
    def of(cls, bench: RunContext, with_files: bool) -> SerializedContext:
        """Pack a bench."""
        backbone = bench.backbone
        features = FeatureStore(backbone, bench.images, bench.cache).features().cpu().numpy()
        files = tuple(Path(image.path).read_bytes() for image in bench.images) if with_files else ()
        return cls(bench.images, files, backbone.id, backbone.weight_hash, backbone.device.type, features)

    def open(self) -> RunContext:
        """Return the bench in this process, its features ready. Raises LabError where the backbone is not the same."""
        backbone = catalog.load(self.backbone, self.device)
        if backbone.weight_hash != self.weight_hash:
            raise BadConfig(
                "compare_worker_weights", backbone=self.backbone, found=backbone.weight_hash, wanted=self.weight_hash
            )
        images = self.images
        if self.files:
            folder = temporary.make()
            images = tuple(replace(image, path=str(folder / image.digest)) for image in images)
            for image, content in zip(images, self.files, strict=True):
                Path(image.path).write_bytes(content)
        cache = Cache()
        FeatureStore(backbone, images, cache).fill(torch.from_numpy(self.features.copy()))
        return RunContext(images, backbone, cache)


_opened: tuple[str, RunContext] | None = None
"""In a worker: the parcel's name and its bench."""


def perform(job: Job, name: str, parcel: Callable[[], SerializedContext], stop: Any) -> Measured | Note | None:
    """Do a job to its end in a worker; None where it was stopped.

    Args:
        name: of the parcel; one of another name takes the place of the bench that is there.
        parcel: fetches it, where it is not open yet.
        stop: has ``is_set``.
    """
    global _opened
    try:
        if _opened is None or _opened[0] != name:
            torch.set_num_threads(1)
            _opened = (name, parcel().open())
        *_, ended = attempt(job, _opened[1], stop)
    except Stopped:
        return None
    except LabError as error:
        return error.note
    return ended if isinstance(ended, (Measured, Note)) else None


_given: tuple[SerializedContext, Any] | None = None
"""In a worker of the pool: the parcel, and the event that stops."""


def _start_worker(parcel: SerializedContext, stop: Any) -> None:
    """First thing in a worker of the pool."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _given = (parcel, stop)


def _end_with(parent: int) -> None:
    """End this worker when the process that started it has gone, killed perhaps."""
    with suppress(psutil.Error):
        psutil.Process(parent).wait()
    os._exit(1)


def _work(job: Job) -> Measured | Note | None:
    assert _given is not None, "a worker starts with its parcel"
    parcel, stop = _given
    return perform(job, "pool", lambda: parcel, stop)


class Pool:
    """Several processes of this machine, each with one torch thread. A job waits until those under way leave it the
    memory that it is expected to need.

    Args:
        workers: most processes; by default as many as there are processors.
    """

    def __init__(self, workers: int | None = None):
        self.workers = workers or os.cpu_count() or 1

    def run(self, bench: RunContext, jobs: Iterable[Job], stop: threading.Event) -> Iterator[JobUpdate]:
        """See :class:`engine.compare.executors.Executor`."""
        yield from _PoolRun(self.workers, bench, jobs, stop).run()


class _PoolRun:
    """The pool's workers during one comparison.

    When a worker dies all jobs under way are lost. They are then done one at a time, so that the one that kills its
    worker is found and the others are not blamed.
    """

    def __init__(self, workers: int, bench: RunContext, jobs: Iterable[Job], stop: threading.Event):
        self.workers, self.jobs, self.stop = workers, iter(jobs), stop
        self.context = multiprocessing.get_context("spawn")
        self.flag, self.parcel = self.context.Event(), SerializedContext.of(bench, with_files=False)
        self.room = free_bytes(bench.backbone.device.type)
        self.process = PROCESS_BYTES if bench.backbone.device.type == "cpu" else 0
        self.running: dict[Future, Job] = {}
        self.waiting: Job | None = None
        self.suspects: deque[Job] = deque()
        self.deaths: Counter[str] = Counter()

    def run(self) -> Iterator[JobUpdate]:
        going = True
        while going and not self.stop.is_set():
            pool = ProcessPoolExecutor(self.workers, self.context, _start_worker, (self.parcel, self.flag))
            try:
                yield from self._serve(pool)
                going = False
            except BrokenProcessPool:
                yield from self._lost()
            finally:
                if not going or self.running:  # the comparison is over, or was left
                    self.flag.set()
                pool.shutdown(cancel_futures=True)

    def _serve(self, pool: ProcessPoolExecutor) -> Iterator[JobUpdate]:
        while not self.stop.is_set():
            for job in self._next_jobs():
                try:
                    self.running[pool.submit(_work, job)] = job
                except BrokenProcessPool:  # a worker died in between: this job was not under way
                    self.suspects.append(job)
                    raise
                yield JobUpdate(job)
            if not self.running:
                return
            for future in wait(self.running, POLL, FIRST_COMPLETED).done:
                ended: Measured | Note | None
                try:
                    ended = future.result()
                except BrokenProcessPool:
                    raise
                except Exception as error:  # a result that cannot be sent
                    ended = unexpected(registry.get(self.running[future].spec.method).title, error)
                job = self.running.pop(future)
                if ended is not None:
                    yield JobUpdate(job, ended=ended)

    def _next_jobs(self) -> Iterator[Job]:
        """Jobs that may start now; each must be in ``running`` before the next is asked for."""
        if self.suspects:
            if not self.running:
                yield self.suspects.popleft()
            return
        while len(self.running) < self.workers:
            self.waiting = self.waiting or next(self.jobs, None)
            if self.waiting is None or not self._fits(self.waiting):
                return
            job, self.waiting = self.waiting, None
            yield job

    def _fits(self, job: Job) -> bool:
        """Whether a job's memory is free beside the jobs under way; a single job always starts, and one whose memory
        is unknown is alone."""
        together = [*self.running.values(), job]
        known = [j.memory_bytes + self.process for j in together if j.memory_bytes is not None]
        return len(together) == 1 or (len(known) == len(together) and sum(known) <= self.room)

    def _lost(self) -> Iterator[JobUpdate]:
        """After a worker's death: try again what was under way, or give it up."""
        lost, self.running = list(self.running.values()), {}
        for job in lost:
            self.deaths[job.key] += 1
            if self.deaths[job.key] < TRIES:
                self.suspects.append(job)
            else:
                name = registry.get(job.spec.method).title
                yield JobUpdate(job, ended=Note("compare_worker_died", (("method", name),)))
