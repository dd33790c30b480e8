"""The engine for a person at a notebook: from photos to a saved adapter in a few calls.

``from engine import read_task, tune, ...`` finds them here. The command line goes through the same functions.
"""

from __future__ import annotations

import shutil
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engine import temporary
from engine.backbones import catalog, vocabulary
from engine.backbones.base import Backbone
from engine.data import episode, hub_data
from engine.data.images import ImageFile, Problem
from engine.data.labels import check_labels, parse_labels, plain_name, usual_prompt
from engine.data.own_images import read_images, read_in_order
from engine.errors import Note
from engine.metrics import sets, statistics
from engine.runs import store
from engine.runs.prediction import Prediction, Scores
from engine.runs.run import Run, score_with, strange, zero_shot_scores
from engine.runs.store import Adapter
from engine.tuning import adapter_files
from engine.tuning.outcome import Outcome
from engine.types import Episode, Interval, Label, Progress, RunResult, RunSpec

if TYPE_CHECKING:
    from engine.compare import Comparison, Constraints, Event, Executor, Request, Results
    from engine.export.files import Exported

PathOrText = str | PathLike[str]
LabelsLike = str | Sequence[str | Label] | Mapping[str, str]
"""Labels as people give them: text by comma (``cat, tabby = a tabby cat``), names, or name -> what it is read as."""


def load_backbone(id: str = "pocket", device: str | None = None) -> Backbone:
    """Load an image-text model, once for each name and device.

    Args:
        id: ``pocket`` (bundled), a local folder, a name of the Hugging Face hub or of open_clip.
        device: ``cpu`` or ``cuda``; CUDA where there is one by default.

    Raises:
        BackboneUnavailable: it cannot be loaded here; the message says what to do.
    """
    return catalog.load(id, device)


@dataclass(frozen=True, eq=False)
class Task:
    """Photos, what they show, and what was left out of them."""

    name: str
    images: tuple[ImageFile, ...]
    """In natural order of their names (img2 before img10)."""
    labels: tuple[Label, ...]
    problems: tuple[Problem, ...] = ()
    """A sentence for each file that was left out or that there is something to know about."""
    understood: tuple[Note, ...] = ()
    """How folders and files that tell labels were read, where that is not plain."""

    def __repr__(self) -> str:
        names = ", ".join(label.name for label in self.labels)
        return f"<Task {self.name}: {len(self.images)} images, labels {names}; {len(self.problems)} problems>"


def read_task(path: PathOrText | Sequence[PathOrText], labels: LabelsLike | None = None, fewest: int = 2) -> Task:
    """Read a task as people have it.

    That is a folder or zip with one sub-folder a label, with a split (train, val, test) or without; one zip a label;
    images beside a table of labels (csv, jsonl), COCO's or YOLO's files; a parquet table; or
    ``hf://datasets/OWNER/NAME``. ``understood`` says how it was read where that is not plain.

    A file that cannot be used is left out and has its sentence in ``problems``. What a zip holds lies in a temporary
    folder as long as the task is there.

    Args:
        path: one, or several that belong together.
        labels: by default the names of the sub-folders, each read as its name with spaces for underscores. Images of
            a sub-folder that is not among them have no label.
        fewest: labels that are enough; 1 where a saved state knows others.

    Raises:
        BadTask: there is no usable image, or the data set cannot be had.
        BadLabels: the labels are empty, too many or contradict each other.
    """
    paths = [path] if isinstance(path, (str, PathLike)) else list(path)
    given = None if labels is None else labels_of(labels, (), fewest)
    work = temporary.make()
    try:
        local = [hub_data.download(str(part)) if hub_data.is_on_hub(str(part)) else part for part in paths]
        intake = read_images(local, work, [label.name for label in given or ()])
        name = ", ".join(Path(part).name for part in paths)
        found = given or labels_of(None, intake.images, fewest)
        task = Task(name, intake.images, found, intake.problems, intake.understood)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    weakref.finalize(task, shutil.rmtree, work, ignore_errors=True)
    return task


def labels_of(labels: LabelsLike | None, images: Sequence[ImageFile], fewest: int = 2) -> tuple[Label, ...]:
    """Labels as given, or those of the images. Raises BadLabels."""
    if labels is None:
        labels = list(dict.fromkeys(image.label for image in images if image.label))
    if isinstance(labels, str):
        return parse_labels(labels, fewest)
    if isinstance(labels, Mapping):
        found = [Label(plain_name(name), prompt) for name, prompt in labels.items()]
    else:
        names = [label if isinstance(label, Label) else plain_name(label) for label in labels]
        found = [name if isinstance(name, Label) else Label(name, usual_prompt(name)) for name in names]
    return check_labels(found, fewest=fewest)


def split(task: Task, shots: int = 8, seed: int = 0, template_set: str = "general") -> Episode:
    """Choose what trains and what tests, as :func:`tune` does. Raises BadLabels and BadConfig."""
    return episode.of_images(task.labels, task.images, shots, seed, template_set)


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """What a backbone makes of a task without any training."""

    backbone: str
    labels: tuple[Label, ...]
    accuracy: Mapping[str, Interval]
    """``zero_shot`` (one template) and ``zero_shot_ensemble``, on the images that have a label."""
    tested: int
    """Number of these images."""
    logits: Mapping[str, Tensor]
    """The same two -> ``(N, K)`` float32, rows as the task's images, columns as its labels."""
    unfamiliar_words: tuple[str, ...]
    """Words of the labels that the backbone has hardly seen, as far as that is known."""

    def __repr__(self) -> str:
        rates = "; ".join(f"{name} {_percent(share)}" for name, share in self.accuracy.items())
        return f"<ZeroShot on {self.tested} images: {rates}>"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the logits."""
        return {
            "backbone": self.backbone,
            "labels": [label.name for label in self.labels],
            "test": self.tested,
            "unfamiliar_words": list(self.unfamiliar_words),
            "accuracy": {name: share.value for name, share in self.accuracy.items()},
            "interval95": {name: [share.low, share.high] for name, share in self.accuracy.items()},
        }


def zero_shot(task: Task, backbone: Backbone | str = "pocket", template_set: str = "general") -> ZeroShot:
    """Score every image without training: nothing is trained, so all labelled images test.

    Args:
        template_set: sentences around a label, such as ``general``, ``plain``.

    Raises:
        BackboneUnavailable, BadConfig: the backbone or the template set cannot be had.
    """
    model = _loaded(backbone)
    logits = zero_shot_scores(model, task.images, task.labels, template_set)
    index = {label.name: k for k, label in enumerate(task.labels)}
    known = [(i, index[image.label]) for i, image in enumerate(task.images) if image.label in index]
    accuracy = {
        name: statistics.accuracy([float(rows[i].argmax() == target) for i, target in known])
        for name, rows in logits.items()
    }
    unfamiliar = vocabulary.unfamiliar(model.id, task.labels)
    return ZeroShot(model.id, task.labels, accuracy, len(known), logits, unfamiliar)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A finished run: what it measured, and the adapter that can predict and be saved."""

    outcome: Outcome

    @property
    def result(self) -> RunResult:
        """Accuracy with its intervals, verdict, cost, curve, versions."""
        return self.outcome.result

    def save(self, folder: PathOrText) -> int:
        """Write the adapter into a folder, made if need be; return the bytes of its tensors' file."""
        return store.save(self.outcome, Path(folder))

    def __repr__(self) -> str:
        result = self.result
        rates = "; ".join(
            f"{name} {_percent(Interval(value, *result.interval95[name]))}" for name, value in result.accuracy.items()
        )
        return f"<{result.method} on {result.verdict.tested} test images: {rates}; {result.verdict.word}>"


def tune(
    task: Task,
    method: str = "lora",
    backbone: Backbone | str = "pocket",
    shots: int = 8,
    seed: int = 0,
    *,
    preset: str = "budget",
    template_set: str = "general",
    precision: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> Tuned:
    """Tune a method on some images of a task and test it on the others, beside zero-shot.

    Where too few images are left to test with, folds are trained and tested in turn.

    Args:
        method: id of a method, such as ``lora``, ``linear_probe``, ``prompt_tuning``.
        shots: most training images a label.
        seed: decides the draw of the training images and the random start.
        preset: ``budget``, or ``paper`` for the published schedule where a method has it.
        precision: of the training steps: ``auto``, ``fp32`` or ``bf16``.
        progress: called at least once a training step.
        stop: set it, from another thread, to end the run with Stopped.
        settings: fields of the method's config, such as ``epochs=10``.

    Raises:
        BadConfig, BadLabels: the method, its settings or the labels cannot be used.
        OutOfMemory: the run does not fit here; the message says what would.
    """
    model = _loaded(backbone)
    built = split(task, shots, seed, template_set)
    spec = RunSpec(model.id, method, built, preset, tuple(settings.items()), seed, precision)
    for item in Run(spec, task.images, model, stop, tells_strange=True).run():
        if not isinstance(item, Progress):
            return Tuned(item)
        if progress:
            progress(item)
    raise AssertionError("a run ends with its outcome")


def compare(
    task: Task,
    methods: str | Sequence[str] = "quick",
    backbone: Backbone | str = "pocket",
    shots: int | Sequence[int] = (),
    seeds: int | Sequence[int] = (0, 1, 2),
    *,
    preset: str = "budget",
    template_set: str = "general",
    precision: str = "auto",
    limits: Constraints | None = None,
    executor: Executor | None = None,
    results: Results | None = None,
    fresh: bool = False,
    progress: Callable[[Event], object] | None = None,
    stop: threading.Event | None = None,
) -> Comparison:
    """Run many methods on one task, rank them with their uncertainty and say which one to take.

    What was run before on the same images, weights and settings is not run again. A run that fails is a row.

    Args:
        methods: ids, ``quick``, ``all`` or families; a text may name several by comma.
        shots: training images a label; 1, 2, 4, 8, 16 as far as the images go by default.
        seeds: draws of the training images.
        limits: of the recommended method, such as ``engine.compare.Constraints(seconds=10)``.
        executor: where runs are done; in this process by default.
        results: where results are kept; the user's cache folder by default.
        fresh: run everything, also what is there already.
        progress: called with each moment of the comparison.
        stop: set it, from another thread, to end soon with what is done.

    Raises:
        BadConfig, BadLabels: the request cannot be met, or no run could be done.
    """
    from engine.compare import compare as run
    from engine.compare.advice import NO_LIMITS

    request = _request(methods, shots, seeds, preset, template_set, precision)
    model, found = _loaded(backbone), None
    for event in run(request, task.images, task.labels, model, results, executor, stop, limits or NO_LIMITS, fresh):
        if progress:
            progress(event)
        found = event.comparison
    assert found is not None, "a comparison ends with its last event"
    return found


def _request(
    methods: str | Sequence[str], shots: int | Sequence[int], seeds: int | Sequence[int], *rest: str
) -> Request:
    from engine.compare import Request

    names = methods.split(",") if isinstance(methods, str) else methods
    counts, draws = ((n,) if isinstance(n, int) else tuple(n) for n in (shots, seeds))
    return Request(tuple(name.strip() for name in names if name.strip()), counts, draws, *rest)


def load_adapter(path: PathOrText, device: str | None = None, backbone: Backbone | str | None = None) -> Adapter:
    """Load a saved adapter and the backbone that it belongs to, which is known by the hash of its weights.

    Args:
        path: folder or zip.
        device: ``cpu`` or ``cuda`` for the backbone.
        backbone: the adapter's, where it is loaded already, or where it lies now; by default one in memory with its
            weights, or else what it was called when the adapter was saved.

    Raises:
        BadAdapter: it is damaged or belongs to something else.
        BackboneUnavailable: its backbone cannot be loaded here.
    """
    with temporary.folder() as work:
        known = backbone.shape.parameters if isinstance(backbone, Backbone) else None
        folder, name = adapter_files.unpack(Path(path), Path(work), known), Path(path).name
        recipe = adapter_files.read_recipe(folder, name)
        model = _loaded(backbone, device) if backbone else store.backbone_of(recipe, device)
        return store.load(folder, model, name)


def export_adapter(
    adapter: Adapter | Tuned | PathOrText, to: str, folder: PathOrText, task: Task | None = None, **options: Any
) -> Exported:
    """Write a tuned model in a form that other programs read without this one.

    Args:
        adapter: loaded, just tuned, or the folder or zip of a saved one.
        to: a key of ``engine.export.targets.TARGETS``.
        folder: new or empty.
        task: images with labels, none of which trained, to measure what a form costs in accuracy.
        options: of that form.

    Raises:
        BadExport: the method or backbone has no such form, or it cannot be written here.
        BadAdapter, BackboneUnavailable: as :func:`load_adapter`.
    """
    from engine.export.write import export

    ready = load_adapter(adapter) if isinstance(adapter, (str, PathLike)) else adapter
    images = task.images if task else ()
    return export(ready.outcome if isinstance(ready, Tuned) else ready, to, Path(folder), images, **options)


def predict(adapter: Adapter | Tuned, images: Task | PathOrText | Sequence[PathOrText | ImageFile]) -> list[Prediction]:
    """Label images with a tuned model, and by zero-shot beside it.

    A file that cannot be used is left out with a warning that says why.

    Args:
        images: a task, or images, folders and zips by their paths.

    Returns:
        One prediction an image, in the order given and under the names given; what comes several times is there as
        often. Inside a folder or zip the order is natural (img2 before img10).

    Raises:
        BadTask: nothing of what was given can be read.
    """
    if isinstance(images, Task):
        return _predict(adapter, images.images)
    given = [images] if isinstance(images, (str, PathLike)) else list(images)
    with temporary.folder() as work:
        intake = read_in_order(given, Path(work))
        for problem in intake.problems:
            warnings.warn(problem.message, stacklevel=2)
        return _predict(adapter, intake.images)


def _predict(adapter: Adapter | Tuned, images: Sequence[ImageFile]) -> list[Prediction]:
    if not images:
        return []
    ready = adapter.outcome if isinstance(adapter, Tuned) else adapter
    names, calibrated = [label.name for label in ready.setting.labels], ready.result.sets

    def scores(row: Sequence[float]) -> Scores:
        return Scores(names[max(range(len(names)), key=row.__getitem__)], dict(zip(names, row, strict=True)))

    sides = [side.tolist() for side in score_with(ready, images)]
    unlike: Sequence[bool | None] = strange(ready, images) or [None] * len(images)
    return [
        Prediction(
            image.name,
            scores(before),
            scores(after),
            tuple(names[k] for k in sets.likely(after, calibrated)),
            other,
        )
        for image, before, after, other in zip(images, *sides, unlike, strict=True)
    ]


def _loaded(backbone: Backbone | str, device: str | None = None) -> Backbone:
    return load_backbone(backbone, device) if isinstance(backbone, str) else backbone


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
