"""Runs on a Ray cluster. Ray is optional: ``pip install -r requirements-ray.txt``."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.compare.executors import JobUpdate, RunContext, unexpected
from engine.compare.plan import Job
from engine.compare.results import Measured
from engine.compare.workers import POLL, SerializedContext, perform
from engine.errors import BadConfig, Note, messages
from engine.tuning import registry

ROOT = Path(__file__).resolve().parents[2]
RETRIES = 2
"""Times that Ray does a job again whose worker died."""

messages(
    compare_no_ray="Ray is not installed here. Install it with: pip install -r requirements-ray.txt",
    compare_ray_address="No Ray cluster answers at {address!r} ({reason}). Start one with 'ray start --head', or leave "
    "--address out to use this machine.",
)


def load_ray() -> ModuleType:
    """Return the library. Raises BadConfig saying how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    try:
        import ray
    except ImportError as error:
        raise BadConfig("compare_no_ray") from error
    return ray


def work(box: list[Any], name: str, job: Job) -> Measured | Note | None:
    """Return a job on a worker of the cluster. ``box`` holds the parcel's reference, which is fetched once a worker."""
    return perform(job, name, lambda: load_ray().get(box[0]), threading.Event())


class OnRay:
    """A Ray cluster; a job whose worker or machine dies is done again elsewhere.

    Every machine needs this checkout at the same path, its requirements, and the backbone. Images and their features
    travel through Ray; results come back here.

    Args:
        address: of a cluster, ``auto`` for the one that runs on this machine; None starts one here for this comparison.
        workers: most jobs at once; by default what the cluster has processors (graphics cards with CUDA) for.
    """

    def __init__(self, address: str | None = None, workers: int | None = None):
        self.address, self.workers = address, workers
        self.ray = load_ray()

    def run(self, bench: RunContext, jobs: Iterable[Job], stop: threading.Event) -> Iterator[JobUpdate]:
        """See :class:`engine.compare.executors.Executor`."""
        with self._cluster():
            yield from self._serve(bench, iter(jobs), stop)

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """Connected, and no longer afterwards; a cluster that was connected before stays so."""
        if self.ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {"address": self.address} if self.address else {"num_cpus": self.workers}
        try:
            self.ray.init(
                include_dashboard=None if self.address else False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
                **options,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BadConfig("compare_ray_address", address=self.address or "", reason=reason) from error
        try:
            yield
        finally:
            self.ray.shutdown()

    def _serve(self, bench: RunContext, jobs: Iterator[Job], stop: threading.Event) -> Iterator[JobUpdate]:
        part = "GPU" if bench.backbone.device.type == "cuda" else "CPU"
        window = self.workers or max(1, int(self.ray.cluster_resources().get(part, 1)))
        task = self.ray.remote(num_cpus=1, num_gpus=int(part == "GPU"), max_retries=RETRIES)(work)
        box, name = [self.ray.put(SerializedContext.of(bench, with_files=True))], uuid.uuid4().hex
        running: dict[Any, Job] = {}
        try:
            while not stop.is_set():
                while len(running) < window and (job := next(jobs, None)):
                    running[task.remote(box, name, job)] = job
                    yield JobUpdate(job)
                if not running:
                    return
                for reference in self.ray.wait(list(running), num_returns=1, timeout=POLL)[0]:
                    job = running.pop(reference)
                    if (ended := self._result(reference, job)) is not None:
                        yield JobUpdate(job, ended=ended)
        finally:
            for reference in running:
                self.ray.cancel(reference, force=True)

    def _result(self, reference: Any, job: Job) -> Measured | Note | None:
        """What a job ended with."""
        name = registry.get(job.spec.method).title
        try:
            return self.ray.get(reference)
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError):
            return Note("compare_worker_died", (("method", name),))
        except self.ray.exceptions.RayError as error:
            return unexpected(name, error)
