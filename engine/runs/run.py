"""Running a method: features, training, evaluation."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.backbones.base import FEATURES, Backbone
from engine.costs import meters
from engine.costs.forecast import Forecast, check_room, forecast
from engine.data.episode import templates
from engine.data.images import ImageFile
from engine.errors import Untraceable
from engine.metrics import novelty, sets, statistics, training
from engine.tuning import blend, registry
from engine.tuning.features import SHARED, Cache, FeatureStore, Views, label_features
from engine.tuning.loop import fit
from engine.tuning.outcome import Outcome, Stopped
from engine.tuning.precision import choose_precision
from engine.tuning.predict import describe, predict
from engine.tuning.sources import NamedSources
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext
from engine.types import DIGITS, Cost, Episode, Label, Progress, RunResult, RunSpec

if TYPE_CHECKING:
    from engine.runs.store import Adapter


class Run:
    """One run in progress. Iterate over :meth:`run`; the last item is an :class:`Outcome`."""

    def __init__(
        self,
        spec: RunSpec,
        images: Sequence[ImageFile],
        backbone: Backbone,
        stop: threading.Event | None = None,
        cache: Cache = SHARED,
        sources: NamedSources | None = None,
        tells_strange: bool = False,
    ):
        """``tells_strange``: whether the outcome can tell pictures that are unlike every label, which takes up to a
        second for hundreds of training images."""
        self.sources = sources or NamedSources()
        self.tells_strange = tells_strange
        self.spec, self.backbone, self.stop = spec, backbone, stop or threading.Event()
        self.method = registry.get(spec.method)
        self.config = self.method.configure(spec.preset, dict(spec.settings), spec.episode.shots)
        obstacle = registry.obstacle(self.method, backbone, self.config)
        if obstacle:
            raise obstacle
        self.spec = replace(spec, precision=choose_precision(spec.precision, self.method.recomputes, backbone))
        self.store, self.cache = FeatureStore(backbone, images, cache, check=self.check), cache
        self.watch = meters.Stopwatch()
        self.curve: list[tuple[int, float, float]] = []
        self.trainable = 0

    def check(self) -> None:
        """Raise Stopped where the user asked for it."""
        if self.stop.is_set():
            raise Stopped

    def run(self) -> Iterator[Progress | Outcome]:
        """Yield progress at least once a step, then the outcome. Raises Stopped, LabError."""
        episode = self.spec.episode
        expected = self._expected()
        with meters.MemoryMeter(self.backbone.device) as meter:
            with self.watch.part("features"):
                yield from self._features()
            out_of_fold: list[list[Tensor]] = [[] for _ in episode.targets]
            for number, fold in enumerate(episode.folds if episode.cross_validated else ()):
                tuner = yield from self._train(self._setting(fold.support), fold.support, number)
                with self.watch.part("evaluate"):
                    for i, row in zip(fold.test, predict(tuner, self.store, fold.test), strict=True):
                        out_of_fold[i].append(row)
            setting = self._setting(episode.final_support)
            trained_before = len(episode.folds) if episode.cross_validated else 0
            tuner = yield from self._train(setting, episode.final_support, trained_before)
            yield Progress("evaluate", 0, len(self.store))
            with self.watch.part("evaluate"):
                logits, moved = describe(tuner, self.store, range(len(self.store)))
                found = novelty.calibrate(*setting.support_arrays()) if self.tells_strange else None
            tuned = [rows or [row] for rows, row in zip(out_of_fold, logits, strict=True)]
        result, arrays = self._outcome(tuner, setting, tuned, moved, meter, expected)
        tells, figures = found or (None, {})
        if tells:
            arrays["unlike"] = tells.unlike(arrays["image_before"])
        yield Outcome(replace(result, novelty=figures), arrays, tuner, setting, self.spec, tells)

    def _expected(self) -> Forecast | None:
        """The forecast, None where it is unknown. Raises OutOfMemory where the run does not fit here."""
        try:
            expected = self.forecast()
        except Untraceable:
            return None
        self._check_room(expected)
        return expected

    def _check_room(self, expected: Forecast) -> None:
        """Raise OutOfMemory where the run does not fit here."""
        batch = 0
        if isinstance(self.config, TrainConfig) and not self.method.tuner().full_batch:
            batch = min(self.config.batch_size, len(self.spec.episode.folds[0].support))
        names = (self.method.name, self.backbone.id)
        check_room(expected, self.forecast, batch, names, self.backbone.device.type)

    def forecast(self, batch_size: int | None = None) -> Forecast:
        """What this run is expected to need, or would with another batch size. Raises Untraceable."""
        config = replace(self.config, batch_size=batch_size) if batch_size else self.config  # type: ignore[call-arg]
        episode = self.spec.episode
        prompts = [label.prompt for label in episode.labels]
        return forecast(
            self.method,
            config,
            self.backbone,
            prompts,
            len(episode.folds[0].support),
            len(self.store),
            len(episode.folds),
            self.spec.precision,
            self.store.cached(),
            sources=self.sources,
        )

    def _features(self) -> Iterator[Progress]:
        for done, total in self.store.prefetch(FEATURES, range(len(self.store))):
            yield Progress("features", done, total)

    def _setting(self, support: Sequence[int]) -> TunerContext:
        episode = self.spec.episode
        sentences = templates(episode.template_set)
        single, ensemble = label_features(self.backbone, episode.labels, sentences, self.cache)
        return TunerContext(
            self.backbone,
            episode.labels,
            sentences,
            single,
            ensemble,
            support=self.store.features(support),
            targets=torch.tensor([episode.targets[i] for i in support], device=self.backbone.device),
            seed=self.spec.seed,
            sources=self.sources,
        )

    def _train(self, setting: TunerContext, support: Sequence[int], number: int) -> Generator[Progress, None, Tuner]:
        """Train on one support set and choose its share beside zero-shot; the generator's return value is the tuner."""
        tuner = yield from self._fit(setting, support, number)
        if blend.wanted(self.config):
            inputs = self.store.stage(tuner.stage, support)
            with self.watch.part("train"):
                for done, total in blend.choose(tuner, self.config, setting, inputs, self.spec.seed):
                    self.check()
                    yield Progress("prepare", done, total)
        return tuner

    def _fit(self, setting: TunerContext, support: Sequence[int], number: int) -> Generator[Progress, None, Tuner]:
        """Train on one support set; the generator's return value is the tuner."""
        torch.manual_seed(self.spec.seed)
        with self.watch.part("train"):
            tuner = self.method.tuner()(self.config, setting)
        self.trainable = sum(p.numel() for p in tuner.trained().values())  # some drop a part of it at the end
        if not isinstance(self.config, TrainConfig):
            return tuner.eval()
        with self.watch.part("train"):
            for done, total in tuner.prepare(self.store, support):
                self.check()
                yield Progress("prepare", done, total)
        inputs = yield from self._inputs(tuner, support)
        trainings = len(self.spec.episode.folds) + 1 if self.spec.episode.cross_validated else 1
        self.curve.clear()
        started, spent = time.perf_counter(), self.watch.seconds["train"]
        turns = fit(tuner, inputs, setting.targets, self.config, self.spec.seed, self.spec.precision)
        for step, steps, loss, right in turns:
            self.check()
            self.curve.append((step, loss, right))
            elapsed = time.perf_counter() - started
            self.watch.seconds["train"] = spent + elapsed
            left = elapsed / step * (steps * (trainings - number) - step)
            yield Progress("train", number * steps + step, trainings * steps, loss, right, left)
        return tuner.eval().finished()

    def _inputs(self, tuner: Tuner, support: Sequence[int]) -> Generator[Progress, None, Tensor]:
        """Values of the support images at the tuner's stage, ``(V, N, ...)``; returned by the generator."""
        views = (
            Views(self.config.views, self.config.min_crop, self.spec.seed)
            if isinstance(self.config, TrainConfig)
            else Views()
        )
        rows = []
        with self.watch.part("features"):
            for view in range(views.count):
                for done, total in self.store.prefetch(tuner.stage, support, view, views):
                    yield Progress("features", done, total)
                rows.append(self.store.stage(tuner.stage, support, view, views))
        return torch.stack(rows)

    def _outcome(
        self,
        tuner: Tuner,
        setting: TunerContext,
        tuned: list[list[Tensor]],
        moved: Tensor,
        meter: meters.MemoryMeter,
        expected: Forecast | None,
    ) -> tuple[RunResult, dict[str, np.ndarray]]:
        episode = self.spec.episode
        with self.watch.part("evaluate"):
            arrays = collect_arrays(self.store, setting, tuner, tuned, moved)
            tested = sorted({i for fold in episode.folds for i in fold.test})
            arrays["tested"] = np.isin(np.arange(len(self.store)), tested)
            correct = correct_shares(episode, arrays, tuned)
            arrays["correct"] = np.array(correct["tuned"])
        shares = {name: statistics.accuracy([row[i] for i in tested]) for name, row in correct.items()}
        verdict = statistics.give_verdict(
            [correct["zero_shot_ensemble"][i] for i in tested],
            [correct["tuned"][i] for i in tested],
            fold_differences(episode, correct["zero_shot_ensemble"], tuned),
            tuned=self.method.family != "baseline",
            seed=self.spec.seed,
        )
        rows = self.backbone.probabilities(torch.from_numpy(arrays["tuned"][tested])).numpy()
        found = sets.calibrate(rows, [episode.targets[i] for i in tested])
        cost = Cost(
            self.trainable,
            self.backbone.shape.parameters,
            meter.peak,
            meter.kind,
            expected.memory_bytes if expected else None,
            dict(self.watch.seconds),
            forecast_seconds=expected.seconds if expected else None,
            forecast_parts=dict(expected.parts) if expected else {},
        )
        result = RunResult(
            backbone=self.spec.backbone,
            method=self.spec.method,
            preset=self.spec.preset,
            config=self.config.to_dict(),
            seed=self.spec.seed,
            precision=self.spec.precision,
            labels=episode.labels,
            template_set=episode.template_set,
            shots=episode.shots,
            folds=len(episode.folds),
            support=len(episode.folds[0].support),
            accuracy={name: share.value for name, share in shares.items()},
            interval95={name: (share.low, share.high) for name, share in shares.items()},
            verdict=verdict,
            cost=cost,
            curve=tuple(self.curve),
            training=training.judge(self.curve, tuner.converged),
            versions=meters.versions(),
            chosen=dict(tuner.chosen),
            trained_on=tuple(self.store.images[i].digest[:DIGITS] for i in episode.final_support),
            notes=tuple(note.key for note in episode.notes),
            sets=found.to_json() if found else {},
        )
        return result, arrays


@torch.no_grad()
def collect_arrays(
    store: FeatureStore, setting: TunerContext, tuner: Tuner, tuned: list[list[Tensor]], moved: Tensor
) -> dict[str, np.ndarray]:
    """The arrays of an :class:`Outcome`; ``tuned`` holds an image's logits of each test, ``moved`` is ``(N, P)``."""
    image = store.features()
    tensors = {
        "zero_shot": setting.backbone.logits(image, setting.single),
        "ensemble": setting.backbone.logits(image, setting.ensemble),
        "tuned": torch.stack([torch.stack(rows).mean(0) for rows in tuned]),
        "image_before": image,
        "image_after": moved,
        "text_before": setting.ensemble,
        "text_after": tuner.text_features(),
    }
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}


def correct_shares(
    episode: Episode, arrays: dict[str, np.ndarray], tuned: list[list[Tensor]]
) -> dict[str, list[float]]:
    """Return, for each image, the share of its tests that was right: baselines once, the tuned model once a test."""
    targets = np.asarray(episode.targets)
    shares = {
        name: (arrays[key].argmax(1) == targets).astype(float).tolist()
        for name, key in (("zero_shot", "zero_shot"), ("zero_shot_ensemble", "ensemble"))
    }
    shares["tuned"] = [
        float(np.mean([int(row.argmax()) == target for row in rows]))
        for rows, target in zip(tuned, episode.targets, strict=True)
    ]
    return shares


def fold_differences(episode: Episode, before: Sequence[float], tuned: list[list[Tensor]]) -> list[tuple[float, float]]:
    """Return (mean of right minus ``before``, test images / training images) of each fold; empty without folds.

    Args:
        before: of each image whether the baseline is right, 0 or 1.
        tuned: of each image the logits of its tests, in the folds' order.
    """
    turns = [iter(rows) for rows in tuned]
    found = []
    for fold in episode.folds if episode.cross_validated else ():
        gaps = [float(int(next(turns[i]).argmax()) == episode.targets[i]) - before[i] for i in fold.test]
        found.append((float(np.mean(gaps)), len(fold.test) / len(fold.support)))
    return found


@torch.no_grad()
def zero_shot_scores(
    backbone: Backbone, images: Sequence[ImageFile], labels: Sequence[Label], template_set: str, cache: Cache = SHARED
) -> dict[str, Tensor]:
    """Return logits ``(N, K)`` of both baselines, ``zero_shot`` and ``zero_shot_ensemble``."""
    single, ensemble = label_features(backbone, labels, templates(template_set), cache)
    features = FeatureStore(backbone, images, cache).features()
    return {"zero_shot": backbone.logits(features, single), "zero_shot_ensemble": backbone.logits(features, ensemble)}


@torch.no_grad()
def score_with(adapter: Adapter | Outcome, images: Sequence[ImageFile]) -> tuple[Tensor, Tensor]:
    """Probabilities ``(n, K)`` of images: prompt-ensembled zero-shot and those of an adapter or a finished run."""
    store, backbone = FeatureStore(adapter.setting.backbone, images), adapter.setting.backbone
    before = backbone.probabilities(backbone.logits(store.features(), adapter.setting.ensemble))
    return before, backbone.probabilities(predict(adapter.tuner, store, range(len(store))))


@torch.no_grad()
def strange(adapter: Adapter | Outcome, images: Sequence[ImageFile]) -> list[bool] | None:
    """Return which images are unlike every label; None where the adapter cannot tell."""
    if adapter.novelty is None:
        return None
    features = FeatureStore(adapter.setting.backbone, images).features()
    return adapter.novelty.unlike(features.float().cpu().numpy()).tolist()
