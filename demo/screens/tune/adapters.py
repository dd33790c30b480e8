"""The tuned model after its run: new images, the WiSE-FT mix, adapters to and from disk. No gradio."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo.screens.tune.service import backbone_of, numpy_of
from demo.workspace import DisplayedResult, TunedModel, Workspace
from engine.data import episode
from engine.data.labels import as_text, parse_labels
from engine.errors import LabError
from engine.types import DIGITS, LogitScale

if TYPE_CHECKING:
    from engine.data.images import ImageFile
    from engine.export.files import Exported
    from engine.runs.store import Adapter
    from engine.tuning.tuner import Tuner


@dataclass(frozen=True)
class Scores:
    """One image's values a label, for the bars."""

    names: list[str]
    before: np.ndarray
    after: np.ndarray | None
    """Logits ``(K,)``."""
    scale: LogitScale
    likely: tuple[str, ...] = ()
    """Names of the tuned model's set of labels; empty where there is none."""
    unlike: bool | None = None
    """Whether the picture is unlike every label; None where that is not known."""


def tuned_model(workspace: Workspace) -> TunedModel | None:
    """Return the tuned model that is shown, read from disk where it is no longer in memory."""
    from engine.backbones import catalog
    from engine.runs import store

    with workspace.lock:
        shown, kept = workspace.shown, workspace.kept
        if shown is None or not shown.tuned:
            return None
        if kept and kept.run == shown.run:
            return kept
        record = workspace.record(shown.run or "")
        if record is None:
            return None
        adapter = store.load(record.folder / "adapter", catalog.load(record.result.backbone))
        workspace.kept = TunedModel(record.id, adapter.tuner, adapter.setting, adapter.novelty)
        return workspace.kept


def try_image(workspace: Workspace, path: str) -> tuple[Scores, str]:
    """Zero-shot and tuned values of a new image, and its problem's key or an empty text. Raises LabError."""
    import torch

    from engine.data.images import Limits, inspect
    from engine.metrics import sets
    from engine.tuning import features
    from engine.tuning.predict import predict

    image, _ = inspect(Path(path), Path(path).name, None, Limits.from_environment().megapixels)
    kept = tuned_model(workspace)
    if kept is not None:
        setting, backbone = kept.setting, kept.setting.backbone
        store, labels, text = features.FeatureStore(backbone, [image]), setting.labels, setting.ensemble
        after = numpy_of(predict(kept.active, store, [0]))[0]
    else:
        labels = parse_labels(workspace.labels_text)
        backbone, after = backbone_of(workspace), None
        store = features.FeatureStore(backbone, [image])
        sentences = episode.templates(workspace.template_set)
        text = features.text_features(backbone, [label.prompt for label in labels], sentences)
    before = numpy_of(backbone.logits(store.features(), text))[0]
    shown = workspace.shown
    names = shown.names if shown and len(shown.labels) == len(labels) else [label.name for label in labels]
    scores = Scores(names, before, after, backbone.logit_scale)
    if after is None or shown is None or shown.result is None or (kept and kept.mixed is not None):
        return scores, image.name
    row = numpy_of(backbone.probabilities(torch.from_numpy(after)))
    likely = tuple(names[k] for k in sets.likely(row, shown.result.sets))
    unlike = bool(kept.novelty.unlike(numpy_of(store.features()))[0]) if kept and kept.novelty else None
    return replace(scores, likely=likely, unlike=unlike), image.name


def can_mix(workspace: Workspace) -> bool:
    """Return whether the WiSE-FT slider makes sense: a method that mixes, measured on a held-out set, not mixed yet."""
    from engine.tuning import registry

    shown = workspace.shown
    result = shown.result if shown else None
    return bool(
        result
        and shown
        and shown.run
        and registry.get(result.method).tuner().mixes
        and result.folds == 1
        and result.config.get("mix") == 1
    )


def mix(workspace: Workspace, share: float) -> None:
    """Mix the tuned weights with the original ones and measure the result on the same images."""
    from engine.metrics import statistics
    from engine.tuning import features
    from engine.tuning.predict import describe

    kept = tuned_model(workspace)
    shown = workspace.shown
    if kept is None or shown is None or shown.result is None or not can_mix(workspace):
        return
    mixed = None if share == 1 else kept.tuner.mixed(share)
    tuner = mixed or kept.tuner
    store = features.FeatureStore(kept.setting.backbone, shown.images)
    after, moved = map(numpy_of, describe(tuner, store, range(len(shown.images))))
    arrays = {**shown.arrays, "tuned": after, "image_after": moved, "text_after": _text(tuner)}
    tested, goal = np.flatnonzero(arrays["tested"]), np.asarray(shown.targets)
    right = {key: (arrays[key].argmax(1) == goal)[tested].astype(float) for key in ("ensemble", "tuned")}
    rate = statistics.accuracy(right["tuned"])
    verdict = statistics.give_verdict(right["ensemble"], right["tuned"])
    old = shown.result
    result = replace(
        old,
        accuracy={**old.accuracy, "tuned": rate.value},
        interval95={**old.interval95, "tuned": (rate.low, rate.high)},
        verdict=verdict,
        chosen={} if share == 1 else {"mix": share},
    )
    with workspace.lock:
        kept.mixed, kept.share = mixed, share
        if workspace.shown is shown:
            workspace.shown = replace(shown, arrays=arrays, result=result)


def _text(tuner: Tuner) -> np.ndarray:
    import torch

    with torch.no_grad():
        return numpy_of(tuner.text_features())


def adapter_zip(workspace: Workspace) -> Path | None:
    """Return the shown run's adapter as a zip, mixed as the slider says; None where there is none."""
    from engine.runs import store
    from engine.tuning import adapter_files

    shown = workspace.shown
    record = workspace.record(shown.run) if shown and shown.run else None
    if record is None or shown is None or shown.result is None:
        return None
    source, kept = record.folder / "adapter", workspace.kept
    name = f"adapter-{record.result.method}-{record.id}"
    if kept and kept.run == record.id and kept.mixed is not None:
        source, name = record.folder / "mixed", f"{name}-mix{round(100 * kept.share)}"
        store.write(kept.mixed, kept.setting, shown.result, source)
    target = record.folder / f"{name}.zip"
    if kept is None or kept.mixed is None:
        return target if target.exists() else adapter_files.pack(source, target)
    return adapter_files.pack(source, target)


def adapter_folder(workspace: Workspace) -> Path | None:
    """Return where the shown run's adapter lies; None where no run is shown."""
    shown = workspace.shown
    record = workspace.record(shown.run) if shown and shown.run else None
    return record.folder / "adapter" if record else None


def export_zip(workspace: Workspace, form: str) -> tuple[Exported, Path]:
    """Write the shown run's model in a form that other programs read, as one zip; test images measure what it costs.
    Raises LabError."""
    from engine.backbones import catalog
    from engine.errors import BadAdapter
    from engine.export.write import export
    from engine.runs import store
    from engine.tuning import adapter_files

    archive, shown = adapter_zip(workspace), workspace.shown
    if archive is None or shown is None or shown.result is None:
        raise BadAdapter("adapter_missing", path="-", file=adapter_files.RECIPE)
    shutil.rmtree(workspace.folder / "exports", ignore_errors=True)  # the page has a copy of what was made before
    work = workspace.new_folder("exports")
    folder = adapter_files.unpack(archive, work / "adapter")
    adapter = store.load(folder, catalog.load(shown.result.backbone))
    tested = [image for image, there in zip(shown.images, shown.arrays["tested"], strict=True) if there]
    done = export(adapter, form, work / form, tested)
    return done, Path(shutil.make_archive(str(work / f"{archive.stem}-{form}"), "zip", work / form))


def load_adapter(workspace: Workspace, path: str) -> None:
    """Show a saved adapter's predictions on the current images, and on those to come. Raises LabError; then nothing
    changes."""
    import engine

    adapter = engine.load_adapter(path, backbone=backbone_of(workspace))
    shown = score(adapter, workspace.images)
    with workspace.lock:
        if not workspace.labels_text:
            workspace.labels_text = as_text(adapter.labels)
        workspace.changed()
        workspace.loaded, workspace.put_aside = adapter, False
        _show(workspace, adapter, shown)


def score_again(workspace: Workspace) -> bool:
    """Show the loaded adapter on images that have changed. One that no longer fits the labels or the backbone is put
    aside. Returns whether it is shown."""
    adapter, version = workspace.loaded, workspace.version
    if adapter is None or (workspace.shown and workspace.shown.tuned):
        return False
    if not _fits(workspace, adapter):
        workspace.loaded, workspace.put_aside = None, True
        return False
    shown = score(adapter, workspace.images)
    with workspace.lock:
        if workspace.version != version:
            return False  # whatever changed comes here by itself
        _show(workspace, adapter, shown)
    return True


def _fits(workspace: Workspace, adapter: Adapter) -> bool:
    """Whether the adapter's labels and backbone are those of the workspace."""
    try:
        labels = parse_labels(workspace.labels_text)
    except LabError:
        return False
    same = {label.name for label in labels} == {label.name for label in adapter.labels}
    return same and backbone_of(workspace).weight_hash == adapter.setting.backbone.weight_hash


def _show(workspace: Workspace, adapter: Adapter, shown: DisplayedResult) -> None:
    workspace.kept, workspace.stale = TunedModel(None, adapter.tuner, adapter.setting, adapter.novelty), False
    workspace.shown = shown


def score(adapter: Adapter, images: tuple[ImageFile, ...]) -> DisplayedResult:
    """Return an adapter's scores on images. Its figures are those of the labelled images that did not train it; where
    there is none, those of its own run."""
    from engine.metrics import statistics
    from engine.tuning import features
    from engine.tuning.predict import describe

    labels, setting, result = adapter.labels, adapter.setting, adapter.result
    rows = features.FeatureStore(setting.backbone, images)
    index = {label.name: k for k, label in enumerate(labels)}
    targets = np.asarray([index.get(image.label or "", -1) for image in images], int)
    learned = set(result.trained_on)
    fresh = np.asarray([image.digest[:DIGITS] not in learned for image in images], bool)
    tested = (targets >= 0) & fresh
    if images:
        logits, moved = describe(adapter.tuner, rows, range(len(rows)))
        scored = {
            "ensemble": setting.backbone.logits(rows.features(), setting.ensemble),
            "tuned": logits,
            "image_before": rows.features(),
            "image_after": moved,
        }
    else:
        scored = dict.fromkeys(("ensemble", "tuned"), setting.ensemble.new_zeros(0, len(labels)))
    arrays = {"tested": tested, "text_before": numpy_of(setting.ensemble), "text_after": _text(adapter.tuner)}
    arrays |= {name: numpy_of(tensor) for name, tensor in scored.items()}
    if adapter.novelty and images:
        arrays["unlike"] = adapter.novelty.unlike(arrays["image_before"])
    if tested.any():
        right = {key: (arrays[key].argmax(1) == targets)[tested].astype(float) for key in ("ensemble", "tuned")}
        rates = {
            name: statistics.accuracy(right[key])
            for name, key in (("zero_shot_ensemble", "ensemble"), ("tuned", "tuned"))
        }
        result = replace(
            result,
            accuracy={name: rate.value for name, rate in rates.items()},
            interval95={name: (rate.low, rate.high) for name, rate in rates.items()},
            verdict=statistics.give_verdict(right["ensemble"], right["tuned"]),
            folds=1,
        )
    scale = setting.backbone.logit_scale
    return DisplayedResult(labels, images, tuple(targets.tolist()), arrays, scale, result=result)
