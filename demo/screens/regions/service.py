"""What is marked on a picture of the Regions screen: regions from clicks, boxes and a search. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.job_queue import Job
from demo.workspace import Workspace
from engine.data.images import ImageFile, Limits, inspect, read_checked

if TYPE_CHECKING:
    from PIL import Image

    from engine.regions.marks import Style
    from engine.regions.scores import RegionScore, Scorer
    from engine.regions.segmenter import Scene
    from engine.regions.shortcut import Shortcut
    from engine.regions.types import Region

MODES = ("new", "more", "less", "box", "select")
"""What a click does: a new region, more or less of the chosen one, the corner of a box, or choosing."""
MOST_STEPS = 50
"""Steps that can be undone."""
LEAST_SIDE = 720
"""Pixels of the longest side of what is drawn."""
MOST_REGIONS = 200
"""Regions of one picture on the screen."""


@dataclass(frozen=True)
class Step:
    """The regions at a time."""

    regions: tuple[Region, ...] = ()
    sizes: tuple[Region, ...] = ()
    """Other masks of the last click: a part, the object, a group."""
    chosen: int | None = None
    """Number of the region that stands out."""
    corner: tuple[float, float] | None = None
    """First corner of a box, in pixels."""


@dataclass(eq=False)
class Marked:
    """One visitor's picture, and what is marked on it."""

    segmenter: str = "pocket"
    image: ImageFile | None = None
    scene: Scene | None = None
    step: Step = field(default_factory=Step)
    past: list[Step] = field(default_factory=list)
    granularity: str = "parts"
    view: str = "crop"
    scores: dict[tuple[Region, str], RegionScore] = field(default_factory=dict)
    scored_by: tuple[Any, ...] = ()
    """What :attr:`scores` were computed with."""
    scorer: Scorer | None = None
    shortcut: tuple[Region, Shortcut] | None = None
    stop: threading.Event | None = None
    """Stops a search for everything."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def shown(self) -> tuple[Region, ...]:
        """The regions that the granularity shows, by number."""
        from engine.regions.types import GRANULARITIES

        fine = GRANULARITIES[: GRANULARITIES.index(self.granularity) + 1]
        found = (r for r in self.step.regions if not r.granularity or r.granularity in fine)
        return tuple(sorted(found, key=lambda region: region.number))

    @property
    def chosen(self) -> Region | None:
        """The region that stands out."""
        return next((region for region in self.shown if region.number == self.step.chosen), None)

    def take(self, step: Step) -> None:
        """Go on to a step; the one before can be brought back."""
        self.past = [*self.past, self.step][-MOST_STEPS:]
        self.step = step


def marked_of(workspace: Workspace) -> Marked:
    """Return the visitor's picture and marks."""
    if not isinstance(workspace.marked, Marked):
        workspace.marked = Marked()
    return workspace.marked


def overlay(marked: Marked, style: Style, highlight: bool = True) -> Image.Image | None:
    """Return the picture with its regions drawn on it, the chosen one standing out; None without a picture."""
    from engine.regions import marks

    if marked.scene is None:
        return None
    picture = marked.scene.picture
    if max(picture.size) < LEAST_SIDE:  # a small one is shown larger, with fine lines and readable marks
        factor = LEAST_SIDE / max(picture.size)
        picture = picture.resize((round(factor * picture.width), round(factor * picture.height)))
    return marks.draw(picture, marked.shown, style, marked.step.chosen if highlight else None).image


# ---- the picture ------------------------------------------------------------------------------------


def take_file(workspace: Workspace, path: str) -> None:
    """Put an uploaded picture on the segmenter. Raises LabError; then the one before stays."""
    image, _ = inspect(Path(path), Path(path).name, None, Limits.from_environment().megapixels)
    kept = workspace.folder / "regions" / f"{image.digest}{Path(path).suffix}"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, kept)
    _put(marked_of(workspace), replace(image, path=str(kept)))
    for old in kept.parent.iterdir():
        if old != kept:
            old.unlink(missing_ok=True)


def take_image(workspace: Workspace, position: int) -> None:
    """Put one of the task's images on the segmenter. Raises LabError."""
    if 0 <= position < len(workspace.images):
        _put(marked_of(workspace), workspace.images[position])


def fresh(workspace: Workspace) -> int | None:
    """Return the position of the image that is open in Tune, where nothing else is being worked on."""
    marked, images = marked_of(workspace), workspace.images
    position = min(workspace.score_image, len(images) - 1)
    if not images or marked.stop is not None or marked.step.regions or marked.past:
        return None
    own = marked.image is not None and marked.image not in images
    return None if own or marked.image == images[position] else position


def _put(marked: Marked, image: ImageFile) -> None:
    from engine.regions import catalog

    scene = catalog.load(marked.segmenter).set_image(read_checked(image))
    with marked.lock:
        stop(marked)
        marked.image, marked.scene = image, scene
        marked.step, marked.past, marked.shortcut = Step(), [], None
        marked.scores.clear()


def choose_segmenter(workspace: Workspace, id: str) -> None:
    """Go on with another segmenter, which is on this machine; the regions stay. Raises LabError."""
    from engine.regions import catalog

    marked = marked_of(workspace)
    segmenter = catalog.load(id)
    image = marked.image
    scene = segmenter.set_image(read_checked(image)) if image else None
    with marked.lock:
        stop(marked)
        marked.segmenter, marked.scene = id, scene
        # A further click cannot start from another model's logits.
        plain = tuple(replace(region, logits=None) for region in marked.step.regions)
        marked.step, marked.past = replace(marked.step, regions=plain, sizes=(), corner=None), []


# ---- marking ----------------------------------------------------------------------------------------


def click(marked: Marked, x: float, y: float, mode: str) -> None:
    """A click at ``x``, ``y`` (0 to 1 of the width and height) in one of ``MODES``. Raises BadRegion."""
    with marked.lock:
        if marked.scene is None:
            return
        width, height = marked.scene.size
        point = (min(x * width, width - 1e-3), min(y * height, height - 1e-3))
        if mode == "select":
            select_region(marked, at(marked, point))
        elif mode == "box":
            _corner(marked, point)
        elif mode == "new" or marked.chosen is None:
            found = marked.scene.click([point], [0 if mode == "less" else 1])
            _add(marked, found)
        else:
            _refine(marked, marked.chosen, point, int(mode == "more"))


def _corner(marked: Marked, point: tuple[float, float]) -> None:
    first = marked.step.corner
    if first is None:
        marked.take(replace(marked.step, corner=point))
    else:
        marked.step = replace(marked.step, corner=None)  # also where there is nothing in the box
        _box(marked, (*first, *point))


def box(marked: Marked, corners: Sequence[float]) -> None:
    """A box between two corners, 0 to 1 of the width and height. Raises BadRegion."""
    with marked.lock:
        if marked.scene is not None:
            width, height = marked.scene.size
            _box(marked, tuple(n * side for n, side in zip(corners, (width, height) * 2, strict=True)))


def _box(marked: Marked, corners: Sequence[float]) -> None:
    assert marked.scene is not None
    _add(marked, marked.scene.box(corners))


def _add(marked: Marked, found: Sequence[Region]) -> None:
    """A new region, with its other sizes."""
    regions = marked.step.regions[-MOST_REGIONS + 1 :]
    number = 1 + max((region.number for region in marked.step.regions), default=0)
    sizes = tuple(replace(region, number=number) for region in found)
    marked.take(replace(marked.step, regions=(*regions, sizes[0]), sizes=sizes, chosen=number, corner=None))


def _refine(marked: Marked, region: Region, point: tuple[float, float], label: int) -> None:
    """More or less of a region, which keeps its number."""
    assert marked.scene is not None
    previous = region if region.logits is not None or region.prompt.box else None
    points, labels = [*region.prompt.points, point], [*region.prompt.labels, label]
    found = marked.scene.click(points, labels, previous)
    _replace(marked, replace(found[0], number=region.number), ())


def _replace(marked: Marked, region: Region, sizes: tuple[Region, ...]) -> None:
    regions = tuple(region if old.number == region.number else old for old in marked.step.regions)
    marked.take(replace(marked.step, regions=regions, sizes=sizes, chosen=region.number))


def other_size(marked: Marked) -> None:
    """The next mask of the last click."""
    with marked.lock:
        sizes, chosen = marked.step.sizes, marked.chosen
        if len(sizes) > 1 and chosen is not None and chosen.number == sizes[0].number:
            place = next((k for k, region in enumerate(sizes) if region == chosen), 0)
            _replace(marked, sizes[(place + 1) % len(sizes)], sizes)


def can_resize(marked: Marked) -> bool:
    """Return whether the chosen region has other sizes."""
    return len(marked.step.sizes) > 1 and marked.step.chosen == marked.step.sizes[0].number


def select_region(marked: Marked, number: int | None) -> None:
    """Let a region stand out; None for none. Choosing is no step that is undone."""
    with marked.lock:
        marked.step = replace(marked.step, chosen=number, corner=None)


def at(marked: Marked, point: tuple[float, float]) -> int | None:
    """Return the number of the smallest region that is shown at a place in pixels."""
    for region in sorted(marked.shown, key=lambda region: region.area):
        left, top, width, height = region.bbox
        if left <= point[0] < left + width and top <= point[1] < top + height:
            (x, y), part = region.part(region.size)
            row, column = int(point[1]) - y, int(point[0]) - x
            if 0 <= row < part.shape[0] and 0 <= column < part.shape[1] and part[row, column]:
                return region.number
    return None


def remove(marked: Marked) -> None:
    """Take out the chosen region."""
    with marked.lock:
        if (chosen := marked.chosen) is not None:
            left = tuple(region for region in marked.step.regions if region.number != chosen.number)
            marked.take(replace(marked.step, regions=left, sizes=(), chosen=None))


def clear(marked: Marked) -> None:
    """Take out all regions."""
    with marked.lock:
        if marked.step != Step():
            marked.take(Step())


def undo(marked: Marked) -> None:
    """Bring back what was there before the last step."""
    with marked.lock:
        if marked.past:
            marked.step = marked.past.pop()


class _Stopped(Exception):
    """The search was stopped."""


def stop(marked: Marked) -> None:
    """End a search for everything."""
    if marked.stop:
        marked.stop.set()


def find_everything(marked: Marked, every: float = 0.2) -> Iterator[tuple[int, int]]:
    """Look for everything in the picture; yields (steps done, of how many) each ``every`` seconds. Raises LabError.

    The regions take the place of what was marked before, which can be brought back. A search that is stopped, and one
    whose picture was changed meanwhile, leave everything as it was.
    """
    scene = marked.scene
    if scene is None:
        return

    def report(done: int, total: int) -> None:
        if job.stop.is_set():
            raise _Stopped
        job.report((done, total))

    def work() -> Iterator[tuple[int, int]]:
        scene.everything("all", report)
        yield from ()

    job = Job(work)
    marked.stop = job.stop
    job.start("regions")
    ended = False
    try:
        yield from filter(None, job.watch(every))
        ended = not job.stop.is_set()
    finally:
        job.stop.set()
        if marked.stop is job.stop:
            marked.stop = None
    with marked.lock:
        if ended and marked.scene is scene:
            marked.take(Step(scene.everything("all")))
