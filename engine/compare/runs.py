"""A comparison in progress: what is on disk already, the rest cheapest first, row by row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.backbones.base import FEATURES, Backbone
from engine.compare.advice import NO_LIMITS, Advice, Constraints, advise
from engine.compare.executors import Executor, InProcess, RunContext
from engine.compare.plan import Job, Plan, Request, cheapest_first, forecasts, make_plan, not_quick
from engine.compare.ranking import Ranking, rank
from engine.compare.results import DONE, FAILED, SKIPPED, Results, Row
from engine.data.images import ImageFile
from engine.errors import BadConfig, Note, messages
from engine.tuning.features import SHARED, Cache, FeatureStore
from engine.tuning.outcome import Stopped
from engine.types import Label, Progress

messages(
    compare_all_failed="None of the {count} runs could be done. The first one: {reason}",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The rows of a comparison, in the order in which they came."""

    request: Request
    backbone: str
    labels: tuple[Label, ...]
    image_names: tuple[str, ...]
    rows: tuple[Row, ...]
    ranking: Ranking | None
    """None where no run has a result."""
    advice: Advice | None
    notes: tuple[Note, ...]
    """What there is to know about the split."""
    seconds: float
    """Spent now, results that were there already not counted."""
    stopped: bool

    @property
    def done(self) -> tuple[Row, ...]:
        """Rows with a result."""
        return tuple(row for row in self.rows if row.status == DONE)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "backbone": self.backbone,
            "labels": [asdict(label) for label in self.labels],
            "images": len(self.image_names),
            "image_names": list(self.image_names),
            "notes": [note.to_json() for note in self.notes],
            "request": asdict(self.request),
            "runs": [row.to_json() for row in self.rows],
            "ranking": self.ranking and self.ranking.to_json(),
            "curves": [curve.to_json() for curve in self.ranking.curves] if self.ranking else [],
            "recommendation": self.advice and self.advice.to_json(),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    @classmethod
    def from_json(
        cls, found: Mapping[str, Any], results: Results | None = None, constraints: Constraints = NO_LIMITS
    ) -> Comparison:
        """Return the comparison that :meth:`to_json` wrote, ranked and advised anew.

        Args:
            results: where the runs' arrays lie, the user's cache folder by default. A ranking needs them: without
                those of every run that was done there is none.
            constraints: of the advice.
        """
        place = results or Results()
        rows = tuple(Row.from_json(row, place) for row in found["runs"])
        done = [row for row in rows if row.status == DONE]
        ranked = done and all(row.file for row in done)
        ranking = rank(rows, found["ranking"]["shots"] if found["ranking"] else None) if ranked else None
        request: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found["request"].items()
        }
        return cls(
            request=Request(**request),
            backbone=found["backbone"],
            labels=tuple(Label(label["name"], label["prompt"]) for label in found["labels"]),
            image_names=tuple(found.get("image_names", ("",) * found["images"])),
            rows=rows,
            ranking=ranking,
            advice=advise(ranking, constraints) if ranking else None,
            notes=tuple(Note.of(note["key"], **note["values"]) for note in found.get("notes", ())),
            seconds=found["seconds"],
            stopped=found["stopped"],
        )


@dataclass(frozen=True, eq=False)
class Event:
    """A moment of a comparison."""

    kind: str
    """``planned``, ``features``, ``forecast``, ``started``, ``progress``, ``row`` or, at last, ``finished``."""
    done: int
    """Rows that are there; images, for ``features``; methods, for ``forecast``."""
    total: int
    """Rows that there will be; images, for ``features``; methods, for ``forecast``."""
    job: Job | None = None
    """Of ``started`` and ``progress``."""
    progress: Progress | None = None
    """Of ``progress``."""
    row: Row | None = None
    """Of ``row``."""
    seconds_left: float | None = None
    """Expected for the runs that are left, in view of how long those before took; None where that is unknown."""
    comparison: Comparison | None = None
    """Of ``finished``."""


def compare(
    request: Request,
    images: Sequence[ImageFile],
    labels: Sequence[Label],
    backbone: Backbone,
    results: Results | None = None,
    executor: Executor | None = None,
    stop: threading.Event | None = None,
    constraints: Constraints = NO_LIMITS,
    fresh: bool = False,
    cache: Cache = SHARED,
) -> Iterator[Event]:
    """Run methods x shots x seeds and yield what happens.

    All methods see the same split for a number of shots and a seed. What was run before on the same pictures, weights
    and settings is not run again, so a comparison that was interrupted goes on where it was. A run that fails is a
    row with its error, and the others go on.

    Args:
        images: the labelled task.
        results: where results are kept; the user's cache folder by default.
        executor: where runs are done; in this process by default.
        stop: set it to stop soon; what is done stays.
        constraints: of the advice; :func:`engine.compare.advise` gives it for others at once.
        fresh: run everything, also what is there already.

    Raises:
        LabError: before the first event, where the request cannot be met; at the end, where no run could be done.
    """
    plan = make_plan(request, images, labels, backbone)
    bench = RunContext(plan.images, backbone, cache)
    running = _Running(plan, bench, results or Results(), executor or InProcess(), stop or threading.Event())
    yield from running.run(constraints, fresh)


class Clock:
    """How long the runs that are left will take: their forecasts, times how much longer than its own each method's
    finished runs took, or all finished runs where it has none. Runs that cannot be forecast count nothing.

    Args:
        ahead: key of a run -> (its method, forecast seconds).
        now: a clock in seconds.
    """

    TRUST = 10.0
    """Seconds of finished runs from which on what was measured of all counts more than the forecasts."""

    def __init__(self, ahead: Mapping[str, tuple[str, float]], now: Callable[[], float] = time.perf_counter):
        self.ahead, self.now = dict(ahead), now
        self.last = now()
        self.passed: dict[str, tuple[float, float]] = {}
        """Method -> (forecast, measured seconds) of its runs that have ended."""

    def ended(self, key: str) -> None:
        """Note that a run has ended."""
        if key in self.ahead:
            method, expected = self.ahead.pop(key)
            forecast, spent = self.passed.get(method, (0.0, 0.0))
            now = self.now()
            self.passed[method] = forecast + expected, spent + now - self.last
            self.last = now

    def left(self) -> float | None:
        """Return seconds; None where nothing that was forecast is left."""
        if not self.ahead:
            return None
        forecast, spent = (sum(part) + self.TRUST for part in zip((0, 0), *self.passed.values(), strict=True))
        own = {method: spent / forecast for method, (forecast, spent) in self.passed.items() if forecast > 0}
        runs = [expected * own.get(method, spent / forecast) for method, expected in self.ahead.values()]
        return max(0.0, sum(runs) - min(self.now() - self.last, max(runs))) or None


class _Running:
    """The state of one comparison."""

    def __init__(self, plan: Plan, bench: RunContext, results: Results, executor: Executor, stop: threading.Event):
        self.plan, self.bench, self.results, self.executor, self.stop = plan, bench, results, executor, stop
        self.rows: list[Row] = []
        self.total = len(plan.jobs) + len(plan.skipped)
        self.clock = Clock({})

    def run(self, constraints: Constraints, fresh: bool) -> Iterator[Event]:
        started = time.perf_counter()
        yield Event("planned", 0, self.total)
        for method, reason in self.plan.skipped:
            yield self._row(Row("", method, None, None, SKIPPED, error=reason))
        left = []
        for job in self.plan.jobs:
            row = None if fresh else self.results.find(job)
            if row:
                yield self._row(row)
            else:
                left.append(job)
        if left:
            try:
                yield from self._features()
                yield from self._run(left)
            except Stopped:
                pass
        self.results.prune({job.key for job in self.plan.jobs})
        yield self._finished(constraints, time.perf_counter() - started)

    def _features(self) -> Iterator[Event]:
        """The one pass over all images that every run needs."""

        def check() -> None:
            if self.stop.is_set():
                raise Stopped

        store = FeatureStore(self.bench.backbone, self.bench.images, self.bench.cache, check)
        for done, total in store.prefetch(FEATURES, range(len(store))):
            yield Event("features", done, total)

    def _run(self, left: Sequence[Job]) -> Iterator[Event]:
        jobs: list[Job] = []
        methods = len({job.spec.method for job in left})
        for done, some in enumerate(forecasts(self.plan, left, self.bench.backbone), 1):
            if self.stop.is_set():
                raise Stopped
            jobs += some
            yield Event("forecast", done, methods)
        late = {job.key: reason for job in jobs if (reason := not_quick(self.plan, job))}
        for job in jobs:
            if job.key in late:
                yield self._row(Row.without(job, SKIPPED, late[job.key]))
        jobs = cheapest_first([job for job in jobs if job.key not in late])
        self.clock = Clock({job.key: (job.spec.method, job.seconds or 0.0) for job in jobs})
        for turn in self.executor.run(self.bench, jobs, self.stop):
            if isinstance(turn.ended, Note):
                yield self._row(Row.without(turn.job, FAILED, turn.ended))
            elif turn.ended is not None:
                yield self._row(self.results.keep(turn.job, turn.ended))
            else:
                kind = "progress" if turn.progress else "started"
                yield self._event(kind, job=turn.job, progress=turn.progress)

    def _row(self, row: Row) -> Event:
        self.rows.append(row)
        self.clock.ended(row.key)
        return self._event("row", row=row)

    def _event(self, kind: str, **fields: Any) -> Event:
        return Event(kind, len(self.rows), self.total, seconds_left=self.clock.left(), **fields)

    def _finished(self, constraints: Constraints, seconds: float) -> Event:
        plan = self.plan
        failed = [row for row in self.rows if row.status == FAILED]
        if failed and not any(row.status == DONE for row in self.rows) and not self.stop.is_set():
            raise BadConfig("compare_all_failed", count=len(failed), reason=failed[0].error)
        ranking = rank(self.rows) if any(row.status == DONE for row in self.rows) else None
        advice = advise(ranking, constraints) if ranking else None
        notes = dict.fromkeys(note for episode in plan.episodes for note in episode.notes)
        comparison = Comparison(
            plan.request,
            self.bench.backbone.id,
            plan.labels,
            tuple(image.name for image in plan.images),
            tuple(self.rows),
            ranking,
            advice,
            tuple(notes),
            seconds,
            self.stop.is_set(),
        )
        return self._event("finished", comparison=comparison)
