"""One thread that does all training, in the order in which it was asked for.

The page only listens: a stopped listener is free at once, even while a long step is still being
computed, and the next run starts when that step has ended and its memory is back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Job:
    """Work that was handed to the device."""

    def __init__(self, work: Callable[[], Iterator[Any]], stop: threading.Event):
        self.work, self.stop = work, stop
        self.started, self.finished = threading.Event(), threading.Event()
        self.items: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def listen(self, every: float = 0.1) -> Iterator[tuple[str, Any]]:
        """Yield (kind, item): ``waiting`` before the start, ``item`` for each thing the work yields (``idle``
        where nothing came for ``every`` seconds), then ``done`` or ``error``, or ``stopped`` at once when
        the stop event is set."""
        while True:
            if self.stop.is_set():
                yield "stopped", None
                return
            try:
                kind, item = self.items.get(timeout=every)
            except queue.Empty:
                yield ("idle" if self.started.is_set() else "waiting"), None
                continue
            if self.stop.is_set():
                continue
            yield kind, item
            if kind in ("done", "error"):
                return


class Device:
    """The thread and its queue."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], Iterator[Any]], stop: threading.Event) -> Job:
        """Put work at the end of the queue. ``work`` must look at ``stop`` itself while it runs."""
        job = Job(work, stop)
        self._jobs.put(job)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, daemon=True, name="device")
                self._thread.start()
        return job

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            job.started.set()
            self._do(job)
            job.finished.set()
            del job
            give_back_memory()

    @staticmethod
    def _do(job: Job) -> None:
        try:
            if not job.stop.is_set():
                for item in job.work():
                    job.items.put(("item", item))
                    if job.stop.is_set():
                        break
            job.items.put(("done", None))
        except BaseException as error:  # handed to the listener; the thread must live on
            error.__traceback__ = error.__traceback__ if not job.stop.is_set() else None
            job.items.put(("error", error))


def give_back_memory() -> None:
    """Free what a run has left: cycles, and pages that the allocator holds for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


SHARED = Device()
"""The process's device thread."""
