"""What the page asks of the engine's torch side: zero-shot, runs, adapters, predictions. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from demo import tasks
from demo.screens.tune import sources
from demo.workspace import Baselines, DisplayedResult, Inputs, RunRecord, TunedModel, Workspace
from engine.data import episode
from engine.data.images import ImageFile
from engine.data.labels import as_text, parse_labels
from engine.errors import BadConfig, LabError, Untraceable
from engine.types import Episode, Label, LogitScale, Progress

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.costs.forecast import Forecast
    from engine.tuning.outcome import Outcome


def backbone_of(workspace: Workspace) -> Backbone:
    """Return the chosen backbone, loaded."""
    from engine.backbones import catalog

    return catalog.load(workspace.backbone)


def episode_of(workspace: Workspace, labels: tuple[Label, ...] | None = None) -> Episode:
    """Return what trains and what tests. Raises BadLabels."""
    return episode.of_images(
        labels or parse_labels(workspace.labels_text),
        workspace.images,
        workspace.shots,
        workspace.seed,
        workspace.template_set,
    )


# ---- zero-shot ----------------------------------------------------------------------------------


def zero_shot(workspace: Workspace) -> Iterator[Progress]:
    """Score all images with the labels; yields progress and leaves the result in ``workspace.shown``.

    A change of the workspace meanwhile throws the result away. Raises LabError.
    """
    from engine.backbones.base import FEATURES
    from engine.runs.run import zero_shot_scores
    from engine.tuning import features

    version, images, text = workspace.version, workspace.images, workspace.labels_text
    if not images or not text or workspace.shown is not None:
        return
    labels = parse_labels(text)
    yield Progress("features", 0, len(images))
    backbone = backbone_of(workspace)
    store = features.FeatureStore(backbone, images)
    for done, total in store.prefetch(FEATURES, range(len(images))):
        if workspace.version != version:
            return
        yield Progress("features", done, total)
    scores = zero_shot_scores(backbone, images, labels, workspace.template_set)
    prompts, sentences = [label.prompt for label in labels], episode.templates(workspace.template_set)
    arrays = {
        "ensemble": numpy_of(scores["zero_shot_ensemble"]),
        "zero_shot": numpy_of(scores["zero_shot"]),
        "image_before": numpy_of(store.features()),
        "text_before": numpy_of(features.text_features(backbone, prompts, sentences)),
    }
    shown = _baseline(workspace, images, labels, arrays, backbone.logit_scale)
    with workspace.lock:
        if workspace.version == version and workspace.shown is None:
            workspace.shown = shown


def _baseline(
    workspace: Workspace,
    images: tuple[ImageFile, ...],
    labels: tuple[Label, ...],
    arrays: dict[str, np.ndarray],
    scale: LogitScale,
) -> DisplayedResult:
    from engine.metrics import statistics

    arrays["tested"] = np.zeros(len(images), bool)
    index = {label.name: k for k, label in enumerate(labels)}
    targets = tuple(index.get(image.label or "", -1) for image in images)
    try:
        built = episode_of(workspace, labels)
    except LabError as error:
        return DisplayedResult(labels, images, targets, arrays, scale, None, (error.note,))
    tested = sorted({i for fold in built.folds for i in fold.test})
    arrays["tested"][tested] = True
    goal = np.asarray(targets)[tested]
    rates = {
        name: statistics.accuracy((arrays[key][tested].argmax(1) == goal).astype(float))
        for name, key in (("zero_shot", "zero_shot"), ("zero_shot_ensemble", "ensemble"))
    }
    figures = Baselines(
        accuracy={name: rate.value for name, rate in rates.items()},
        interval95={name: (rate.low, rate.high) for name, rate in rates.items()},
        tested=len(tested),
        labels=tuple(labels),
    )
    return DisplayedResult(labels, images, targets, arrays, scale, figures, built.notes)


def numpy_of(tensor: Any) -> np.ndarray:
    """Return a tensor as an array."""
    return tensor.detach().float().cpu().numpy()


# ---- runs ---------------------------------------------------------------------------------------


class UnknownForecast(NamedTuple):
    """In place of a forecast: what is known without one, and why there is none."""

    trainable_parameters: int
    total_parameters: int
    reason: LabError
    memory_bytes: None = None
    seconds: None = None


SHORT_SECONDS, LONG_SECONDS = 2.0, 60.0
"""What a run on kept features, and one through a tower, usually takes."""
SHORT_FAMILIES = ("head", "baseline")


def expected_seconds(workspace: Workspace) -> float:
    """Return about how long the chosen run will take, for its turn among others; at once, without a forecast."""
    from engine.tuning import registry

    return SHORT_SECONDS if registry.get(workspace.method).family in SHORT_FAMILIES else LONG_SECONDS


def forecast(workspace: Workspace) -> Forecast | UnknownForecast:
    """What the chosen run will need; where images or labels are missing, for five labels. Raises LabError where the
    run itself is not possible."""
    from engine.costs.forecast import forecast as expected
    from engine.tuning import features, registry

    spec, backbone = registry.get(workspace.method), backbone_of(workspace)
    config = spec.configure(workspace.preset, workspace.settings, workspace.shots)
    if obstacle := registry.obstacle(spec, backbone, config):
        raise obstacle
    labels: int | list[str] = 5
    support, images, folds, cached = 5 * workspace.shots, 10 * workspace.shots, 1, 0
    try:
        built = episode_of(workspace)
        labels, support = [label.prompt for label in built.labels], len(built.folds[0].support)
        images, folds = len(workspace.images), len(built.folds)
        cached = features.FeatureStore(backbone, workspace.images).cached()
    except LabError:
        pass
    named = sources.named(workspace)
    try:
        return expected(spec, config, backbone, labels, support, images, folds, cached_images=cached, sources=named)
    except Untraceable as reason:
        count = spec.count(backbone.shape, config, labels if isinstance(labels, int) else len(labels), support)
        return UnknownForecast(count, backbone.shape.parameters, reason)


def tune(workspace: Workspace, stop: threading.Event) -> Iterator[Progress | RunRecord]:
    """Run the chosen method; yields progress and at last the record, which is then shown. What was shown
    before stays until then. Raises LabError."""
    from engine.runs.run import Run
    from engine.tuning import registry
    from engine.tuning.outcome import Stopped
    from engine.types import RunSpec

    inputs = Inputs.of(workspace)
    version, task = workspace.version, tasks.title(workspace, "en")
    registry.get(workspace.method).configure(workspace.preset, workspace.settings, workspace.shots)
    built, backbone = episode_of(workspace), backbone_of(workspace)
    settings = tuple(inputs.settings.items())
    spec = RunSpec(backbone.id, inputs.method, built, inputs.preset, settings, inputs.seed)
    outcome, known = None, sources.named(workspace)
    try:
        for item in Run(spec, inputs.images, backbone, stop, sources=known, tells_strange=True).run():
            if isinstance(item, Progress):
                yield item
            else:
                outcome = item
    except Stopped:
        return
    assert outcome is not None
    yield Progress("evaluate", len(built.targets), len(built.targets))
    record = _keep(workspace, outcome, inputs, task)
    with workspace.lock:
        workspace.runs.append(record)
        if workspace.version == version:
            workspace.loaded, workspace.put_aside = None, False
            workspace.kept, workspace.stale = (
                TunedModel(record.id, outcome.tuner, outcome.setting, outcome.novelty),
                False,
            )
            workspace.shown = show_record(record)
            workspace.score_image = workspace.shown.order()[0]
        workspace.tidy()
    yield record


def _keep(workspace: Workspace, outcome: Outcome, inputs: Inputs, task: str) -> RunRecord:
    """Write a finished run's adapter, arrays and result."""
    from engine.runs import store

    folder = workspace.new_folder("runs")
    size = store.save(outcome, folder / "adapter")
    result = replace(outcome.result, cost=replace(outcome.result.cost, adapter_bytes=size))
    arrays, scale = outcome.arrays, outcome.setting.backbone.logit_scale
    kept = arrays | {"scale": np.asarray([scale.factor, *([] if scale.bias is None else [scale.bias])])}
    np.savez(folder / "arrays.npz", **kept)  # type: ignore[arg-type]
    (folder / "run.json").write_text(json.dumps(result.to_json(), ensure_ascii=False), encoding="utf8")
    return RunRecord(secrets.token_hex(6), time.time(), folder, task, result, inputs)


def show_record(record: RunRecord) -> DisplayedResult:
    """Return a run as it was."""
    with np.load(record.folder / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    scale = LogitScale(*np.atleast_1d(arrays.pop("scale")).tolist())
    labels = record.result.labels
    index, images = {label.name: k for k, label in enumerate(labels)}, record.inputs.images
    targets = tuple(index.get(image.label or "", -1) for image in images)
    return DisplayedResult(labels, images, targets, arrays, scale, result=record.result, run=record.id)


def reopen(workspace: Workspace, id: str) -> None:
    """Bring back a run with the inputs it had."""
    record = workspace.record(id)
    if record is None:
        return
    shown = show_record(record)
    with workspace.lock:
        record.inputs.restore(workspace)
        workspace.problems, workspace.understood, workspace.score_image = (), (), 0
        workspace.changed()
        workspace.shown, workspace.stale = shown, False
        workspace.loaded, workspace.put_aside = None, False


def on_disk(workspace: Workspace) -> tuple[str, str]:
    """The task's folder and its labels, as the command line takes them; the labels are empty where they are wrong."""
    try:
        labels = parse_labels(workspace.labels_text)
    except LabError:
        labels = ()
    task, sample = "YOUR_FOLDER_OR_ZIP", tasks.samples().get(workspace.sample or "")
    folders: dict[str, str] = {}
    if sample:
        task = f"assets/samples/{sample.id}"
        folders = sample.folders()
    named = ",".join(as_text([Label(folders.get(x.name, x.name), x.prompt)]).replace(" = ", "=") for x in labels)
    return task, named


def command(workspace: Workspace) -> str:
    """Return the same run on the command line."""
    import shlex

    task, named = on_disk(workspace)
    words = [
        "python -m engine tune",
        "--task",
        shlex.quote(task),
        "--method",
        workspace.method,
        "--shots",
        workspace.shots,
        "--seed",
        workspace.seed,
        "--preset",
        workspace.preset,
        "--templates",
        workspace.template_set,
        "--backbone",
        shlex.quote(workspace.backbone),
    ]
    words += ["--labels", shlex.quote(named)] if named else []
    for name, value in workspace.settings.items():
        words += ["--set", shlex.quote(f"{name}={sources.on_command_line(workspace, name, value)}")]
    return " ".join(map(str, words)) + " --save adapter"


def take_settings(workspace: Workspace, values: Mapping[str, Any]) -> None:
    """Take over the fields of the method's config that a form tells. Those that are not allowed stay as they were, and
    BadConfig is raised for one of them."""
    from engine.tuning import registry

    spec = registry.get(workspace.method)
    configure = partial(spec.configure, workspace.preset, shots=workspace.shots)
    usual, problem = configure().to_dict(), None
    with workspace.lock:
        try:
            config = configure(settings={**workspace.settings, **values})
        except BadConfig as error:
            problem, config = error, configure(settings=workspace.settings)
            for name, value in values.items():
                with suppress(BadConfig):
                    config = configure(settings={**config.to_dict(), name: value})
        workspace.settings = {name: value for name, value in config.to_dict().items() if value != usual[name]}
    if problem:
        raise problem
