"""Work in the background, and the one thread that does all training, short work before long.

A job's turn is decided by when it was asked for plus the seconds that it is expected to take, the smaller first: a head
of a second need not wait for a LoRA of five minutes that was asked for just before, and nothing waits for what was
asked for later than it would have taken itself.

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
import time
from collections.abc import Callable, Iterator
from typing import Any


class Job:
    """Work in the background: in the device's queue (:meth:`Device.submit`) or in a thread of its own (:meth:`start`).

    Args:
        work: what to do; each thing that it yields, or hands to :meth:`report`, is progress.
        stop: set it to end the work, which must look at it itself while it runs.
        seconds: that it is expected to take.
    """

    def __init__(self, work: Callable[[], Iterator[Any]], stop: threading.Event | None = None, seconds: float = 0.0):
        self.work, self.stop, self.seconds = work, stop or threading.Event(), seconds
        self.due = time.monotonic() + seconds
        self.latest: Any = None
        """The last progress, None before the first."""
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

    def watch(self, every: float = 0.3) -> Iterator[Any]:
        """Yield :attr:`latest` each ``every`` seconds until the work has ended or is stopped. Raises its error."""
        last = time.monotonic()
        for kind, item in self.listen():
            if kind == "error":
                raise item
            if time.monotonic() - last >= every:
                last = time.monotonic()
                yield self.latest

    def report(self, item: Any) -> None:
        """Hand progress to whoever listens; for work that tells it in a callback."""
        self.latest = item
        self.items.put(("item", item))

    def start(self, name: str) -> None:
        """Begin at once, in a thread of its own: for work that need not wait for the device."""
        threading.Thread(target=Device.do, args=(self,), daemon=True, name=name).start()


class Device:
    """The thread and its queue."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._now: tuple[Job, float] | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def submit(self, work: Callable[[], Iterator[Any]], stop: threading.Event, seconds: float = 0.0) -> Job:
        """Let work wait for its turn. ``work`` must look at ``stop`` itself while it runs; ``seconds`` is what it is
        expected to take."""
        job = Job(work, stop, seconds)
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, daemon=True, name="device")
                self._thread.start()
        return job

    def place(self, job: Job) -> tuple[int, float]:
        """Return how many jobs come before one that waits, the running one among them, and the seconds that they are
        expected to take still. What was stopped does not count."""
        with self._changed:
            before = [other for other in self._waiting if other.due < job.due and not other.stop.is_set()]
            left = 0.0
            if self._now:
                running, started = self._now
                left = max(0.0, running.seconds - (time.monotonic() - started))
            return len(before) + bool(self._now), left + sum(other.seconds for other in before)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                job = min(self._waiting, key=lambda job: (job.stop.is_set(), job.due))
                self._waiting.remove(job)
                self._now = job, time.monotonic()
            self.do(job)
            del job
            with self._changed:
                self._now = None
            give_back_memory()

    @staticmethod
    def do(job: Job) -> None:
        """Do a job in this thread."""
        job.started.set()
        try:
            if not job.stop.is_set():
                for item in job.work():
                    job.report(item)
                    if job.stop.is_set():
                        break
            job.items.put(("done", None))
        except BaseException as error:  # handed to the listener; the thread must live on
            error.__traceback__ = error.__traceback__ if not job.stop.is_set() else None
            job.items.put(("error", error))
        finally:
            job.finished.set()


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
