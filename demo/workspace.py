"""One visitor's workspace: images, labels, runs and files, known by a secret id.

Gradio's session state holds only the id. Everything here is bounded: visitors, runs and bytes a
visitor, and hours without use, after which the folder is deleted.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from demo.model_download import Loading
from engine import temporary
from engine.data.images import ImageFile, Problem
from engine.errors import LabError, Note, messages
from engine.lru import LruStore
from engine.types import Label, LogitScale, RunResult

if TYPE_CHECKING:
    from engine.metrics.novelty import Novelty
    from engine.runs.store import Adapter
    from engine.tuning.tuner import Tuner, TunerContext

SettingValue = str | int | float | bool
messages(
    visitors_full="{most} visitors are at work here, more than this machine can serve. Wait some minutes and reload "
    "the page; nothing is lost by waiting.",
)

FULL = "full"
"""In place of a visitor's id: there was no place."""
MOST_VISITORS = 200
"""Workspaces at once; an empty one goes first, then the one unused for longest."""
MOST_RUNS = 20
"""Runs a visitor; the oldest goes first."""
MOST_BYTES = 2 << 30
"""Bytes of a visitor's folder; the oldest runs go first."""
MOST_UPLOADS = 4 << 30
"""Bytes of all files that browsers have sent and that no workspace has taken in; the oldest go first."""
GRACE = 30 * 60
"""Seconds that a workspace outlives its last open page, so that a reload finds everything."""


@dataclass(frozen=True)
class Baselines:
    """How both baselines do on the test images."""

    accuracy: Mapping[str, float]
    """``zero_shot`` and ``zero_shot_ensemble``, shares 0 to 1."""
    interval95: Mapping[str, tuple[float, float]]
    tested: int
    """Number of test images."""
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, eq=False)
class DisplayedResult:
    """What the right side of the Tune screen shows: zero-shot, and a run or loaded adapter beside it.

    ``arrays``: ``ensemble`` (N, K) logits, and but for a loaded adapter ``zero_shot`` (one template); ``tested`` (N,)
    bool, ``image_before`` (N, P), ``text_before`` (K, P); with a tuned model also ``tuned``, ``image_after``,
    ``text_after``.
    """

    labels: tuple[Label, ...]
    images: tuple[ImageFile, ...]
    targets: tuple[int, ...]
    arrays: dict[str, np.ndarray]
    scale: LogitScale
    zero_shot: Baselines | None = None
    """None beside a run, whose result holds them, and where nothing can be tested."""
    notes: tuple[Note, ...] = ()
    result: RunResult | None = None
    """Of the run, or of the run that a loaded adapter comes from."""
    run: str | None = None
    """Id of the run, None for zero-shot and for a loaded adapter."""

    @property
    def names(self) -> list[str]:
        """Label names in the order of the columns."""
        return [label.name for label in self.labels]

    @property
    def tuned(self) -> bool:
        """Whether there is a tuned model beside zero-shot."""
        return "tuned" in self.arrays

    def wrong(self) -> tuple[list[int], list[int], list[int]]:
        """Return positions of tested images: fixed, broken and still wrong; without a tuned model all that are wrong
        are still wrong."""
        fixed: list[int] = []
        broken: list[int] = []
        still: list[int] = []
        before = self.arrays["ensemble"].argmax(1)
        after = self.arrays["tuned"].argmax(1) if self.tuned else before
        for i in np.flatnonzero(self.arrays["tested"]).tolist():
            was, now = before[i] == self.targets[i], after[i] == self.targets[i]
            if not was or not now:
                (fixed if now else broken if was else still).append(i)
        return fixed, broken, still

    def order(self) -> list[int]:
        """Return all positions in the order in which they are worth a look: after tuning one that it fixed, one that it
        broke, then the others of both, those still wrong, and the rest."""
        if not self.tuned:
            return list(range(len(self.images)))
        fixed, broken, still = self.wrong()
        told = [*fixed[:1], *broken[:1], *fixed[1:], *broken[1:], *still]
        seen = set(told)
        return told + [i for i in range(len(self.images)) if i not in seen]


@dataclass(eq=False)
class TunedModel:
    """The tuned model in memory: a run's or a loaded adapter's."""

    run: str | None
    tuner: Tuner
    setting: TunerContext
    novelty: Novelty | None = None
    """Tells pictures that are unlike every label, where enough images trained."""
    share: float = 1.0
    """WiSE-FT share of ``mixed``."""
    mixed: Tuner | None = None

    @property
    def active(self) -> Tuner:
        """The tuner that predicts."""
        return self.tuner if self.mixed is None else self.mixed


@dataclass(frozen=True, eq=False)
class Inputs:
    """The fields of a workspace that decide a run."""

    images: tuple[ImageFile, ...]
    labels_text: str
    sample: str | None
    backbone: str
    template_set: str
    shots: int
    seed: int
    method: str
    preset: str
    settings: Mapping[str, SettingValue]

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """Return them as they are now."""
        found = {part.name: getattr(workspace, part.name) for part in fields(cls)}
        return cls(**found | {"settings": dict(workspace.settings)})

    def restore(self, workspace: Workspace) -> None:
        """Put them back into a workspace."""
        for part in fields(self):
            setattr(workspace, part.name, getattr(self, part.name))
        workspace.settings = dict(self.settings)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A finished run of this visitor; arrays and adapter lie in its folder."""

    id: str
    when: float
    folder: Path
    task: str
    result: RunResult
    inputs: Inputs


class Stoppable(Protocol):
    """Work of a screen that can be stopped."""

    stop: threading.Event | None


@dataclass(eq=False)
class Workspace:
    """Everything of one visitor."""

    id: str
    folder: Path
    images: tuple[ImageFile, ...] = ()
    problems: tuple[Problem, ...] = ()
    understood: tuple[Note, ...] = ()
    """How the folders and files of the last upload were read."""
    labels_text: str = ""
    sample: str | None = None
    backbone: str = "pocket"
    template_set: str = "general"
    shots: int = 8
    seed: int = 0
    method: str = "linear_probe"
    preset: str = "budget"
    settings: dict[str, SettingValue] = field(default_factory=dict)
    last_form_change: tuple[int, int] = (0, 0)
    """Which drawing of the form of settings told its last change, and which change of it that was."""
    guessed: frozenset[str] = frozenset()
    """Digests of images whose label is zero-shot's guess, taken over and not yet confirmed."""
    score_image: int = 0
    """Position of the image in Scores."""
    shown: DisplayedResult | None = None
    kept: TunedModel | None = None
    loaded: Adapter | None = None
    """The adapter from disk whose scores are shown for as long as it fits."""
    put_aside: bool = False
    """Whether it no longer fitted the labels or the backbone."""
    interrupted: bool = False
    """Whether work was stopped because its page was closed, and nobody has been told so."""
    compared: object = None
    """What the Compare screen shows; read by ``demo.screens.compare.service.compared_of``."""
    continual: object = None
    conversation: object = None
    """What the Ask screen shows."""
    """What the Continual screen shows; read by ``demo.screens.continual.service.learned_of``."""
    marked: Stoppable | None = None
    """The picture and regions of the Regions screen; read by ``demo.screens.regions.service.marked_of``."""
    runs: list[RunRecord] = field(default_factory=list)
    stale: bool = False
    """Whether a tuned result was on screen before the inputs changed."""
    version: int = 0
    """Grows with every change of images, labels or backbone."""
    stop: threading.Event | None = None
    """Stops the run in progress."""
    loading: Loading | None = None
    """The backbone that is on its way."""
    touched: float = field(default_factory=time.monotonic)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def thumbs(self) -> Path:
        """Folder of thumbnails."""
        return self.folder / "thumbs"

    def changed(self) -> int:
        """Note that what is shown no longer belongs to the inputs; returns the new version."""
        with self.lock:
            self.version += 1
            self.stale = self.stale or bool(self.shown and self.shown.run)
            self.shown = None
            return self.version

    @contextmanager
    def working(self) -> Iterator[threading.Event]:
        """Yield the stop event of work that begins. The work ends with the block; where the block ends because whoever
        listened has gone, the visitor is told when the page is opened again."""
        stop = self.stop = threading.Event()
        try:
            yield stop
        except GeneratorExit:
            self.interrupted |= not stop.is_set()
            raise
        finally:
            stop.set()
            if self.stop is stop:
                self.stop = None

    def halt(self) -> None:
        """Stop whatever is going on for this visitor, whose pages are closed."""
        if self.stop:
            self.interrupted |= not self.stop.is_set()
            self.stop.set()
        if self.loading:
            self.loading.stop.set()
        if self.marked and self.marked.stop:
            self.marked.stop.set()

    def record(self, id: str) -> RunRecord | None:
        """Return a run by id."""
        return next((run for run in self.runs if run.id == id), None)

    def new_folder(self, kind: str) -> Path:
        """Return a new empty folder of this visitor."""
        path = self.folder / kind / secrets.token_hex(6)
        path.mkdir(parents=True)
        return path

    def forget(self, id: str) -> None:
        """Delete a run and its files."""
        with self.lock:
            if (run := self.record(id)) is None:
                return
            self.runs.remove(run)
            shutil.rmtree(run.folder, ignore_errors=True)
            if self.kept and self.kept.run == id:
                self.kept = None
            if self.shown and self.shown.run == id:
                self.changed()
            self.tidy()

    def tidy(self) -> None:
        """Delete files that neither the images nor a kept run need; drop old runs over the limits."""
        with self.lock:
            while len(self.runs) > MOST_RUNS or (len(self.runs) > 1 and size_of(self.folder) > MOST_BYTES):
                old = self.runs.pop(0)
                shutil.rmtree(old.folder, ignore_errors=True)
            needed = {image.path for image in self.images}
            for run in self.runs:
                needed |= {image.path for image in run.inputs.images}
            for path in (p for kind in ("uploads", "zips") for p in (self.folder / kind).rglob("*")):
                if path.is_file() and str(path) not in needed:
                    path.unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Return bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


class Workspaces:
    """All visitors of this process."""

    def __init__(self, root: Path | None = None, hours: float | None = None, most: int = MOST_VISITORS):
        self.seconds = 3600 * (float(os.environ.get("CTL_SESSION_HOURS") or 6) if hours is None else hours)
        self.root = root or temporary.make()
        self._known: LruStore[str, Workspace] = LruStore(most)
        self._pages: dict[str, str] = {}  # gradio's session hash -> workspace id
        self._lock = threading.Lock()
        atexit.register(shutil.rmtree, self.root, ignore_errors=True)

    def get(self, id: object) -> Workspace | None:
        """Return the workspace of an id, if it is there still."""
        with self._lock:  # no sweep between the two lines
            found = self._known.get(id) if isinstance(id, str) else None
            if found:
                found.touched = time.monotonic()
            return found

    def open(self, id: object = None, page: str | None = None) -> Workspace:
        """Return the workspace of an id, or a new one with a new secret id. Raises LabError where all places are taken
        by visitors who are here with work."""
        found = self.get(id)
        self.sweep()  # those that have expired make room before those that are in use
        if found is None:
            self._make_room()
            secret = secrets.token_urlsafe(24)
            found = Workspace(secret, self.root / secrets.token_hex(12))
            for _, unused in self._known.put(secret, found):
                _end(unused)
        if page:
            with self._lock:
                self._pages[page] = found.id
        return found

    def _make_room(self) -> None:
        """Where all places are taken, let one workspace go: an empty one before one with work that nobody looks at, of
        several the one unused for longest; one that is looked at and holds work never goes."""
        with self._lock:
            known, here = self._known.items(), set(self._pages.values())
            if len(known) < self._known.limit:
                return
            order = {id: (bool(workspace.images or workspace.runs), id in here) for id, workspace in known}
            victim = min(order, key=lambda id: order[id] if order[id][0] else (False, False))
            if order[victim] == (True, True):
                raise LabError("visitors_full", most=self._known.limit)
            leaving = self._known.pop(victim)
        if leaving:
            _end(leaving)

    def left(self, page: str | None) -> None:
        """A page was closed: stop its run; without another page the workspace soon expires."""
        with self._lock:
            id = self._pages.pop(page or "", None)
            found = dict(self._known.items()).get(id or "")
            if not found or id in self._pages.values():
                return
            found.touched = min(found.touched, time.monotonic() - self.seconds + min(GRACE, self.seconds))
        found.halt()

    def sweep(self, now: float | None = None) -> None:
        """Delete the workspaces that have expired."""
        now = time.monotonic() if now is None else now
        with self._lock:
            expired = [id for id, workspace in self._known.items() if now - workspace.touched > self.seconds]
            leaving = [self._known.pop(id) for id in expired]
        for workspace in filter(None, leaving):
            _end(workspace)

    def keep_sweeping(self, every: float = 60, uploads: Path | None = None) -> threading.Thread:
        """Sweep in the background for as long as the process lives; of ``uploads``, which nobody's workspace counts,
        ``MOST_UPLOADS`` bytes stay."""

        def loop() -> None:
            while True:
                time.sleep(every)
                self.sweep()
                if uploads:
                    temporary.trim(uploads, MOST_UPLOADS)

        thread = threading.Thread(target=loop, daemon=True, name="sweep")
        thread.start()
        return thread


def _end(workspace: Workspace) -> None:
    """Stop what is going on in a workspace and delete its files."""
    workspace.halt()
    shutil.rmtree(workspace.folder, ignore_errors=True)
