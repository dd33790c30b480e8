"""What the Continual screen asks of the engine: streams, strategies, states, new labels. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.screens.tune import service as tuning
from demo.workspace import Workspace
from engine.data import uploads
from engine.data.images import ImageFile
from engine.data.labels import parse_labels
from engine.errors import BadImage, BadLabels, Note
from engine.types import Label, Progress

if TYPE_CHECKING:
    from engine.continual.results import StrategyResult

QUICK = ("zero_shot", "sequential", "joint", "replay", "prototypes", "gaussian", "ranpac", "rail")
"""Strategies that are chosen at first: none takes more than a second or two."""


@dataclass(frozen=True)
class Request:
    """What a visitor asked for."""

    strategies: tuple[str, ...]
    steps: str
    """A number, or labels by hand: ``a, b; c``."""
    orders: int
    lwf: float
    """Weight of distillation of the strategy ``lwf``."""


@dataclass(eq=False)
class Learned:
    """What the Continual screen shows: strategies on orders of the labels, and labels that were added."""

    version: int
    """The workspace's when it was started."""
    backbone: str
    orders: int = 1
    rows: dict[tuple[int, str], StrategyResult] = field(default_factory=dict)
    """(order, strategy) -> the newest result, which grows step by step."""
    now: str = ""
    """Strategy at work."""
    added: StrategyResult | None = None
    """After the last label that was added."""

    @property
    def first(self) -> list[StrategyResult]:
        """Results of the first order, whose matrices are shown."""
        return [row for (order, _), row in self.rows.items() if order == 0]


def folder_of(workspace: Workspace, strategy: str) -> Path:
    """Return where a strategy's state lies."""
    return workspace.folder / "continual" / strategy


def start(workspace: Workspace, request: Request) -> Learned:
    """Put a new comparison in place of the last one. Raises LabError."""
    if not request.strategies:
        raise BadLabels("continual_no_strategy")
    _groups(parse_labels(workspace.labels_text), request.steps, 0)  # raises before anything is shown
    shutil.rmtree(workspace.folder / "continual", ignore_errors=True)
    workspace.continual = found = Learned(workspace.version, workspace.backbone, request.orders)
    return found


def learned_of(workspace: Workspace) -> Learned | None:
    """Return what the Continual screen shows; None before the first comparison."""
    return workspace.continual if isinstance(workspace.continual, Learned) else None


def _groups(labels: Sequence[Label], steps: str, order: int) -> list[tuple[str, ...]]:
    """Return the labels of each step in an order. Raises LabError."""
    from engine.continual import tasks

    names = [label.name for label in labels]
    if steps.strip().isdigit():
        return tasks.split_labels(tasks.shuffled(names, order), int(steps))
    by_hand = tasks.parse_steps(steps)
    tasks.check_steps(by_hand, names)
    return [by_hand[int(k)] for k in tasks.shuffled([str(k) for k in range(len(by_hand))], order)]


def run(workspace: Workspace, found: Learned, request: Request, stop: threading.Event) -> Iterator[Progress]:
    """Learn with each strategy in each order; results are kept as they come. Raises LabError."""
    from engine.continual.run import StreamRun
    from engine.continual.tasks import build_stream
    from engine.tuning.outcome import Stopped

    labels, backbone = parse_labels(workspace.labels_text), tuning.backbone_of(workspace)
    images = workspace.images
    for order in range(request.orders):
        seed = workspace.seed + order
        stream = build_stream(
            labels, [image.label for image in images], _groups(labels, request.steps, order), workspace.shots, seed
        )
        for name in request.strategies:
            found.now = name
            settings = {"lwf": request.lwf} if name == "lwf" else None
            turn = StreamRun(name, stream, images, backbone, settings, seed, order, workspace.template_set, stop)
            try:
                for item in turn.run():
                    if isinstance(item, Progress):
                        yield item
                    else:
                        found.rows[order, name] = item
            except Stopped:
                return
            if order == 0 and not found.rows[order, name].stopped:
                turn.save(folder_of(workspace, name))


def add_label(
    workspace: Workspace, strategy: str, name: str, paths: Sequence[str], stop: threading.Event
) -> Iterator[Progress | StrategyResult]:
    """Teach a strategy one more label from a few photos; what it learned before is not touched again.

    Where the strategy has learned nothing yet, it first learns the labels of the Tune screen in one step. Half of the
    photos train, the others measure. Raises LabError.
    """
    from engine.continual import state
    from engine.continual.run import StreamRun

    images = _photos(workspace, name, paths)
    backbone, folder = tuning.backbone_of(workspace), folder_of(workspace, strategy)
    if not folder.is_dir():
        yield from _first(workspace, strategy, folder, stop)
    before = state.load(folder, backbone)
    label = Label(name.strip(), name.strip().replace("_", " "))
    stream, all_images = before.continued([label], images, [(label.name,)], max(1, len(images) // 2))
    turn = StreamRun(
        strategy, stream, all_images, backbone, before.config, before.seed, 0, before.template_set, stop, before=before
    )
    yield from turn.run()
    turn.save(folder)


def _photos(workspace: Workspace, name: str, paths: Sequence[str]) -> tuple[ImageFile, ...]:
    """Return the new label's photos. Raises LabError."""
    if not name.strip():
        raise BadLabels("continual_no_name")
    if not paths:
        raise BadLabels("continual_no_photos")
    intake = uploads.collect(list(paths), workspace.new_folder("added"))
    if not intake.images:
        reason = intake.problems[0].note if intake.problems else Note("none")
        raise BadImage("continual_bad_photos", reason=reason)
    return tuple(replace(image, label=name.strip()) for image in intake.images)


def _first(workspace: Workspace, strategy: str, folder: Path, stop: threading.Event) -> Iterator[Progress]:
    """Learn the labels that are there already, in one step."""
    from engine.continual.run import StreamRun
    from engine.continual.tasks import build_stream

    labels = parse_labels(workspace.labels_text)
    stream = build_stream(
        labels,
        [image.label for image in workspace.images],
        [tuple(x.name for x in labels)],
        workspace.shots,
        workspace.seed,
    )
    turn = StreamRun(
        strategy,
        stream,
        workspace.images,
        tuning.backbone_of(workspace),
        None,
        workspace.seed,
        0,
        workspace.template_set,
        stop,
    )
    for item in turn.run():
        if isinstance(item, Progress):
            yield item
    turn.save(folder)


def advice(found: Learned) -> list[Note]:
    """Return the recommendation in words."""
    from engine.continual.advice import advise

    return advise(list(found.rows.values()))


def strategies() -> tuple[Any, ...]:
    """Return the records of all strategies."""
    from engine.continual import strategy

    return strategy.strategies()
