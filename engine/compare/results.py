"""Results of runs on disk, found by their content, and the rows of a comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.compare.plan import FORMAT, Job
from engine.data.images import variable
from engine.errors import BadConfig, Note, messages, reason_of
from engine.outputs import Replacing
from engine.paths import cache_folder
from engine.tuning.outcome import Outcome
from engine.types import RunResult
from engine.units import MB

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
CACHE_MB = 500
"""Default of CTL_CACHE_MB: some fifty thousand results of a task of 500 images."""

messages(
    compare_disk="Results cannot be written to {folder} ({reason}). Free some space there, or let CTL_CACHE name "
    "another folder.",
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run leaves: plain data and arrays of its n test images.

    ``arrays``: ``tested`` ``(n,)`` int32 positions of the images, ``target`` and ``predicted`` ``(n,)`` int32 classes,
    ``correct`` ``(n,)`` float32 share of the image's tests that were right, 0 to 1 (folds that repeat test an image
    more than once), ``probabilities`` ``(n, K)`` float16 of the tuned model.
    """

    result: RunResult
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Row:
    """A run of a comparison, or a method that did not run."""

    key: str
    method: str
    shots: int | None
    seed: int | None
    """None, like ``shots``, where the method does not run at all."""
    status: str
    """``done``, ``failed``, or ``skipped``: the backbone lacks something, or the method is not quick here."""
    result: RunResult | None = None
    loss: float | None = None
    """Share of accuracy lost on labels that were not tuned on, where that was measured."""
    error: Note | None = None
    """Why it failed or was skipped."""
    reused: bool = False
    """Whether the result was there already."""
    file: Path | None = None
    """Its arrays."""

    @classmethod
    def without(cls, job: Job, status: str, error: Note) -> Row:
        """Return the row of a run that has no result."""
        return cls(job.key, job.spec.method, job.spec.episode.shots, job.spec.seed, status, error=error)

    @property
    def message(self) -> str:
        """The error's sentence in English; empty without an error."""
        return str(self.error or "")

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        if self.file is None:
            raise ValueError(f"the run of {self.method} has no arrays: it is {self.status}")
        return read_arrays(self.file)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of :class:`Measured`, read when they are first asked for."""
        return self._arrays

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``tune --json`` with the row's status and error."""
        error = self.error.to_json() if self.error else None
        own = {"key": self.key, "status": self.status, "reused": self.reused, "error": error}
        run = self.result.to_json() if self.result else {}
        damage = {} if self.loss is None else {"damage": {"loss": self.loss}}
        return {**own, "method": self.method, "shots": self.shots, "seed": self.seed, **run, **damage}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], results: Results) -> Row:
        """Return the row that :meth:`to_json` wrote.

        Args:
            results: where its arrays lie, if they are there still.
        """
        error, file = found["error"], results.arrays_of(found["key"])
        return cls(
            found["key"],
            found["method"],
            found["shots"],
            found["seed"],
            found["status"],
            RunResult.from_json(found) if found["status"] == DONE else None,
            found.get("damage", {}).get("loss"),
            Note.of(error["key"], **error["values"]) if error else None,
            found["reused"],
            file if found["status"] == DONE and file.is_file() else None,
        )


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a ``.npz``."""
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def check_arrays(arrays: Mapping[str, np.ndarray], labels: int) -> None:
    """Raise ValueError where arrays are not those that :class:`Measured` describes."""
    n = len(arrays["tested"])
    wanted = {"tested": (n,), "target": (n,), "predicted": (n,), "correct": (n,), "probabilities": (n, labels)}
    for name, shape in wanted.items():
        if arrays[name].shape != shape or arrays[name].dtype.kind not in "if":
            raise ValueError(f"{name} is not what was written")


class Results:
    """Results by key in a folder: ``KEY.json``, and ``KEY.npz`` beside it. The first is written last and in one go,
    so that a run that was cut short has none.

    Args:
        folder: ``results`` in :func:`engine.paths.cache_folder` by default.
        most_bytes: what :meth:`prune` leaves; CTL_CACHE_MB by default.

    Raises BadConfig where CTL_CACHE_MB is no number above 0.
    """

    def __init__(self, folder: str | Path | None = None, most_bytes: int | None = None):
        self.folder = Path(folder) if folder else cache_folder() / "results"
        limit = variable("CTL_CACHE_MB", CACHE_MB) * MB
        self.most_bytes = int(limit if most_bytes is None else most_bytes)

    def find(self, job: Job) -> Row | None:
        """Return the row of a run that was done before; None where there is none, or it cannot be read."""
        file = self._file(job.key, "json")
        try:
            found = json.loads(file.read_text(encoding="utf8"))
            if found["format"] != FORMAT:
                return None
            result = RunResult.from_json(found["result"])
            check_arrays(read_arrays(file.with_suffix(".npz")), len(result.labels))
        except Exception:  # on damaged bytes json, zipfile and numpy raise nearly everything
            return None
        with suppress(OSError):  # where nothing can be written, nothing is pruned either
            os.utime(file)
        return self._row(job, result, True)

    def keep(self, job: Job, measured: Measured) -> Row:
        """Write a result; returns its row. Raises BadConfig where the folder cannot be written to."""
        file = self._file(job.key, "json")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with Replacing(file.with_suffix(".npz")) as fresh, fresh.open("wb") as stream:
                np.savez_compressed(stream, **measured.arrays)  # type: ignore[arg-type]
            with Replacing(file) as fresh:
                content = {"format": FORMAT, "result": measured.result.to_json()}
                fresh.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")
        except OSError as error:
            raise BadConfig("compare_disk", folder=str(self.folder), reason=reason_of(error)) from error
        return self._row(job, measured.result, False)

    def prune(self, keep: Collection[str]) -> int:
        """Delete the results that were not asked for the longest, as long as all are larger than the limit.

        Args:
            keep: keys of results that stay in any case.

        Returns how many were deleted.
        """
        groups: dict[str, list[Path]] = {}
        for path in self.folder.glob("*/*"):
            groups.setdefault(path.name.lstrip(".").split(".")[0], []).append(path)
        found = [(max(times), sum(sizes), key) for key, (times, sizes) in _stats(groups).items()]
        total, gone = sum(size for _, size, _ in found), 0
        for _, size, key in sorted(found):
            if total <= self.most_bytes:
                break
            if key not in keep:
                for path in sorted(groups[key]):  # KEY.json before KEY.npz
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                total, gone = total - size, gone + 1
        return gone

    def arrays_of(self, key: str) -> Path:
        """Return where the arrays of a run lie."""
        return self._file(key, "npz")

    def _row(self, job: Job, result: RunResult, reused: bool) -> Row:
        file = self.arrays_of(job.key)
        return Row(
            job.key, job.spec.method, job.spec.episode.shots, job.spec.seed, DONE, result, reused=reused, file=file
        )

    def _file(self, key: str, ending: str) -> Path:
        return self.folder / key[:2] / f"{key}.{ending}"


def _stats(groups: Mapping[str, Sequence[Path]]) -> dict[str, tuple[list[float], list[int]]]:
    """Times of last use and sizes of each group's files, without those that another process has just deleted."""
    found: dict[str, tuple[list[float], list[int]]] = {}
    for key, paths in groups.items():
        for path in paths:
            with suppress(OSError):
                state = path.stat()
                times, sizes = found.setdefault(key, ([], []))
                times.append(state.st_mtime)
                sizes.append(state.st_size)
    return found


def measured(outcome: Outcome, adapter_bytes: int) -> Measured:
    """Return what is kept of a finished run; nothing of the tuner."""
    result, arrays = outcome.result, outcome.arrays
    tested = np.flatnonzero(arrays["tested"])
    logits = arrays["tuned"][tested]
    targets = np.asarray(outcome.spec.episode.targets)[tested]
    scale = outcome.setting.backbone.logit_scale
    return Measured(
        replace(result, cost=replace(result.cost, adapter_bytes=adapter_bytes)),
        {
            "tested": tested.astype(np.int32),
            "target": targets.astype(np.int32),
            "predicted": logits.argmax(1).astype(np.int32),
            "correct": arrays["correct"][tested].astype(np.float32),
            "probabilities": scale.probabilities(logits).astype(np.float16),
        },
    )
