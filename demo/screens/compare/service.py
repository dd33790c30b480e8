"""What the Compare screen asks of the engine: forecasts, runs, advice, damage, wrong labels, files. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import tasks
from demo.screens.tune import service as tuning
from demo.workspace import Workspace
from engine.data import episode
from engine.data.images import ImageFile
from engine.data.labels import parse_labels
from engine.types import BASELINE, Label, Progress
from engine.units import MB

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.checks.label_errors import LabelErrorReport, Suspect
    from engine.compare import Advice, Comparison, Constraints, Event, Request, Results, Row


SEARCH_SECONDS = 60.0
"""How long "Find the best method" may be expected to take."""


@dataclass(eq=False)
class Compared:
    """What the Compare screen shows: a comparison in progress or done, and what was looked for afterwards."""

    version: int
    """The workspace's when it was started."""
    request: Request
    images: tuple[ImageFile, ...]
    labels: tuple[Label, ...]
    backbone: str
    title: str
    disk: tuple[str, str]
    """Folder and labels for the command line."""
    started: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)
    total: int = 0
    seconds_left: float | None = None
    comparison: Comparison | None = None
    """None until it has ended."""
    damage: dict[str, Forgetting] = field(default_factory=dict)
    check: LabelErrorReport | None = None
    decided: set[str] = field(default_factory=set)
    """Digests of suspects that the visitor has decided about."""

    @property
    def suspects(self) -> list[Suspect]:
        """Suspects that are still open, the most suspicious first."""
        found = self.check.suspects if self.check else ()
        return [suspect for suspect in found if self.images[suspect.image].digest not in self.decided]


@dataclass(frozen=True)
class Outlook:
    """What a comparison is expected to take."""

    runs: int
    """Left to run."""
    reused: int
    """There already."""
    seconds: float
    complete: bool
    """Whether every run that can be forecast is in :attr:`seconds`."""


def request_of(workspace: Workspace, methods: list[str], shots: list[int], seeds: int) -> Request:
    """Return what to compare; ``seeds`` is how many."""
    from engine.compare import Request

    return Request(
        tuple(methods), tuple(sorted(shots)), tuple(range(max(1, seeds))), template_set=workspace.template_set
    )


def compared_of(workspace: Workspace) -> Compared | None:
    """Return what the Compare screen shows; None before the first comparison."""
    return workspace.compared if isinstance(workspace.compared, Compared) else None


def results_of(workspace: Workspace) -> Results:
    """Return where the visitor's results lie: with all else that is deleted with the workspace."""
    from engine.compare import Results

    return Results(workspace.folder / "results")


def most_shots(workspace: Workspace) -> int:
    """Return the largest number of training images a label that leaves one to test with."""
    counts = tasks.counts(workspace)[1]
    return max(1, max(counts, default=0) - 1)


def outlook(workspace: Workspace, request: Request) -> Iterator[Outlook]:
    """How long a comparison would take, surer with every item. Raises LabError."""
    from engine.compare.plan import forecasts, make_plan, not_quick

    labels, version = parse_labels(workspace.labels_text), workspace.version
    backbone, results = tuning.backbone_of(workspace), results_of(workspace)
    plan = make_plan(request, workspace.images, labels, backbone)
    left = [job for job in plan.jobs if results.find(job) is None]
    reused, seconds, runs = len(plan.jobs) - len(left), 0.0, len(left)
    yield Outlook(runs, reused, 0.0, not left)
    for jobs in forecasts(plan, left, backbone):
        if workspace.version != version:
            return
        slow = [job for job in jobs if not_quick(plan, job)]
        runs -= len(slow)
        seconds += sum(job.seconds or 0.0 for job in jobs if job not in slow)  # what is unknown adds nothing
        yield Outlook(runs, reused, seconds, False)
    yield Outlook(runs, reused, seconds, True)


def search(workspace: Workspace) -> Request:
    """Return what "Find the best method" compares: of the recommended methods those that are expected to be done within
    ``SEARCH_SECONDS``, at least the two cheapest, with up to three draws of as many training images as the Tune screen
    has. Raises LabError."""
    from engine.compare import Request
    from engine.compare.plan import RECOMMENDED, SHOTS, cheapest_first, forecasts, make_plan

    labels, backbone = parse_labels(workspace.labels_text), tuning.backbone_of(workspace)
    shots = max(count for count in SHOTS if count <= max(1, min(workspace.shots, most_shots(workspace))))
    request = Request((RECOMMENDED,), (shots,), (0,), template_set=workspace.template_set)
    plan = make_plan(request, workspace.images, labels, backbone)
    methods: list[str] = []
    spent = 0.0
    for job in cheapest_first([job for jobs in forecasts(plan, plan.jobs, backbone) for job in jobs]):
        seconds = job.seconds if job.seconds is not None else SEARCH_SECONDS
        if job.spec.method != BASELINE and (len(methods) < 2 or spent + seconds <= SEARCH_SECONDS):
            methods.append(job.spec.method)
            spent += seconds
    draws = next((count for count in (3, 2) if count * spent <= SEARCH_SECONDS), 1)
    return replace(request, methods=tuple(methods), seeds=tuple(range(draws)))


def start(workspace: Workspace, request: Request, language: str) -> Compared:
    """Put a new comparison in place of the last one. Raises LabError."""
    labels = parse_labels(workspace.labels_text)
    found = Compared(
        workspace.version,
        request,
        workspace.images,
        labels,
        workspace.backbone,
        tasks.title(workspace, language),
        tuning.on_disk(workspace),
    )
    workspace.compared = found
    return found


def run(workspace: Workspace, found: Compared, stop: threading.Event) -> Iterator[Event]:
    """Run the comparison; rows are kept as they come. Raises LabError."""
    from engine.compare import compare

    backbone = tuning.backbone_of(workspace)
    for event in compare(found.request, found.images, found.labels, backbone, results=results_of(workspace), stop=stop):
        if event.kind not in ("features", "forecast"):
            found.total, found.seconds_left = event.total, event.seconds_left
        if event.row is not None:
            found.rows.append(event.row)
        if event.comparison is not None:
            found.comparison = event.comparison
        yield event


def end(found: Compared) -> None:
    """Rank what is there, where a comparison was stopped."""
    from engine.compare import Comparison, advise, rank

    if found.comparison is not None:
        return
    rows = tuple(found.rows)
    ranking = rank(rows) if any(row.status == "done" for row in rows) else None
    names = tuple(image.name for image in found.images)
    found.comparison = Comparison(
        found.request,
        found.backbone,
        found.labels,
        names,
        rows,
        ranking,
        advise(ranking) if ranking else None,
        (),
        time.monotonic() - found.started,
        True,
    )


def limits(
    memory_mb: float | None, seconds: float | None, parameters: float | None, file_mb: float | None, keep: bool
) -> Constraints:
    """Limits as typed; empty and zero mean none."""
    from engine.compare import Constraints

    return Constraints(
        int(memory_mb * MB) if memory_mb else None,
        seconds or None,
        int(parameters) if parameters else None,
        int(file_mb * MB) if file_mb else None,
        KEEPS if keep else None,
    )


KEEPS = 0.02
"""Most accuracy, as a share, that a method may lose on other labels and still count as keeping them."""


def advice(found: Compared, constraints: Constraints) -> Advice | None:
    """Return the advice within some limits; nothing is run."""
    from engine.compare import advise

    ranking = found.comparison.ranking if found.comparison else None
    return advise(ranking, constraints) if ranking else None


def choose(workspace: Workspace, method: str) -> None:
    """Make a method the one to tune, on all photos: with nothing held back, each is tested in turn by models that did
    not see it, and the adapter that is kept has seen them all. Zero-shot learns of none, so the split stays."""
    from engine.tuning import registry

    with workspace.lock:
        workspace.method, workspace.preset, workspace.settings = method, "budget", {}
        if registry.get(method).family == "baseline":
            return
        shots = max(tasks.counts(workspace)[1], default=1)
        if workspace.shots != shots:
            workspace.shots = shots
            workspace.changed()


# ---- labels that were not tuned on ----------------------------------------------------------------


def able(found: Compared) -> list[str]:
    """Compared methods that can score labels that they were not tuned on, the quickest first."""
    from engine.backbones import catalog
    from engine.compare import able

    ranking = found.comparison.ranking if found.comparison else None
    return able(ranking, catalog.load(found.backbone)) if ranking else []


def hold_back(workspace: Workspace, found: Compared, methods: list[str], stop: threading.Event) -> Iterator[Progress]:
    """Tune on half of the labels and test on the others, method by method. Raises LabError."""
    from engine.compare import hold_back

    assert found.comparison is not None
    for item in hold_back(found.comparison, methods, found.images, tuning.backbone_of(workspace), stop):
        if isinstance(item, Progress):
            yield item
        else:
            _take_in(found, item)


def _take_in(found: Compared, damage: Forgetting) -> None:
    """Note what a method loses, so that advice can count it."""
    from engine.compare import with_damage

    assert found.comparison is not None
    found.damage[damage.method] = damage
    found.comparison = with_damage(found.comparison, [damage])
    found.rows = list(found.comparison.rows)


# ---- labels that may be wrong -----------------------------------------------------------------------


def check_labels(workspace: Workspace, found: Compared, stop: threading.Event) -> Iterator[Progress]:
    """Look for images whose label may be wrong. Raises LabError."""
    from engine.checks import label_errors

    built = episode.of_images(found.labels, found.images, workspace.shots, 0, found.request.template_set)
    for item in label_errors.check(built, found.images, tuning.backbone_of(workspace), stop=stop):
        if isinstance(item, Progress):
            yield item
        else:
            found.check = item


def decide(workspace: Workspace, found: Compared, what: str) -> None:
    """``relabel`` or ``drop`` the first open suspect's image, or leave it (``keep_label``)."""
    if not found.suspects:
        return
    suspect = found.suspects[0]
    image = found.images[suspect.image]
    found.decided.add(image.digest)
    index = next((i for i, other in enumerate(workspace.images) if other.digest == image.digest), None)
    if index is None:
        return
    if what == "relabel":
        tasks.set_image_label(workspace, index, found.labels[suspect.suggested].name)
    elif what == "drop":
        tasks.remove_image(workspace, index)


# ---- files ------------------------------------------------------------------------------------------


def write_files(workspace: Workspace, found: Compared, advised: Advice | None, t: Any) -> dict[str, Path]:
    """Return the comparison as ``csv``, ``json`` and ``html``, with the advice that is on screen."""
    from engine.compare.export import write_csv
    from engine.report.document import command_line, write_report

    assert found.comparison is not None
    shown = replace(found.comparison, advice=advised)
    folder = workspace.folder / "comparison"
    folder.mkdir(exist_ok=True)
    paths = {kind: folder / f"comparison.{kind}" for kind in ("csv", "json", "html")}
    write_csv(shown, paths["csv"])
    content = shown.to_json() | {
        "damage": [damage.to_json() for damage in found.damage.values()],
        "mislabelled": found.check.to_json() if found.check else None,
    }
    paths["json"].write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf8")
    write_report(
        shown,
        paths["html"],
        images=found.images,
        task=found.title,
        command=command_line(shown, *found.disk),
        damage=list(found.damage.values()),
        check=found.check,
        words=t,
    )
    return paths
