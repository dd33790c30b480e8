"""What a run is expected to need before it starts: parameters, memory by part, seconds, and where it fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import torch

from engine.backbones import catalog
from engine.costs import machine
from engine.costs.op_counter import OpCost
from engine.costs.trace import IMAGES, PRECISIONS, ExtraBackbone, StepCost, trace_backbone, trace_step, untraceable
from engine.errors import BackboneUnavailable, OutOfMemory, Untraceable, messages
from engine.tuning import blend, lbfgs
from engine.tuning.features import CACHE_BYTES
from engine.tuning.precision import choose_precision
from engine.tuning.sources import NamedSources
from engine.tuning.tuner import LBFGS

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.tuning.registry import MethodSpec
    from engine.tuning.tuner import Config

GIB = 1 << 30
FLOAT = 4
"""Bytes of a fp32 number."""
PARTS = ("weights", "gradients", "optimizer", "activations", "features", "workspace")
"""Parts of the memory."""
CUBLAS = 2 * 8_519_680
"""Bytes of cuBLAS's workspaces in PyTorch's allocator: 8,320 KiB for each thread that multiplies, and the backward
pass has a thread of its own (CUBLAS_WORKSPACE_CONFIG's default before Hopper)."""
CUBLAS_HOPPER = 2 * 33_554_432
"""The same from Hopper on: 32 MiB each."""
CONTEXT = 768 << 20
"""Bytes of a card that the CUDA context and gaps between blocks take, outside of what is counted here."""
SYSTEM = 1536 << 20
"""Bytes that Python, the libraries and the system take of a computer's memory."""
PLACES = {
    "8 GB": 8 * GIB - CONTEXT,
    "16 GB": 16 * GIB - CONTEXT,
    "24 GB": 24 * GIB - CONTEXT,
    "48 GB": 48 * GIB - CONTEXT,
    "80 GB": 80 * GIB - CONTEXT,
    "ZeroGPU": 70 * GIB - CONTEXT,
    "CPU Basic": 16 * GIB - SYSTEM,
}
"""Where people run things -> bytes that are left for a run: graphics cards, a Space's 70 GB slice of an H200, and a
Space's free computer (2 cores, 16 GB). Their names are the makers', who write GB for GiB."""


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to need, before it starts."""

    trainable_parameters: int
    total_parameters: int
    memory_bytes: int
    """What will be measured: on CUDA the allocator's peak, otherwise that of the whole process."""
    seconds: float
    """Features, training and evaluation."""
    steps: int
    parts: Mapping[str, int]
    """Bytes by part, in the order of ``PARTS``: ``activations`` is what is left of the peak once the others are taken
    away, temporaries included; ``features`` are kept image values and training's inputs."""
    seconds_by_part: Mapping[str, float]
    """``features``, ``train`` and ``evaluate``."""
    precision: str
    """Of the training steps."""

    @property
    def total_bytes(self) -> int:
        """Sum of the parts: what the run needs where nothing is loaded yet."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Workload:
    """How much is to be done."""

    support: int
    """Training images of a fold."""
    images: int
    cached_images: int
    """Images whose features are there already."""
    views: int
    trainings: int
    steps: int
    """Gradient steps of all trainings."""
    evaluated: int
    """Images that are scored, once for each model that scores them."""
    blend_steps: int = 0
    """Gradient steps of the heads that are trained without some images, to choose a share beside zero-shot."""


def forecast(
    spec: MethodSpec,
    config: Config,
    backbone: Backbone,
    labels: int | Sequence[str],
    support: int,
    images: int,
    folds: int = 1,
    precision: str = "auto",
    cached_images: int = 0,
    device: str | None = None,
    sources: NamedSources | None = None,
) -> Forecast:
    """Follow one training step with fake tensors and add up a run; nothing is computed and no weight is copied.

    Args:
        backbone: loaded, or one without weights.
        labels: what the labels are read as, or only how many there are.
        support: training images of one fold.
        images: all images; ``cached_images`` of them have features already.
        folds: folds that are trained and measured; with more than one the kept adapter is trained too.
        precision: of the training steps: ``fp32``, ``bf16`` or ``fp16`` for autocast, or ``auto`` for what a run takes.
        device: ``cpu`` or ``cuda``, for the memory; the backbone's own by default. Seconds are this machine's: where
            there is no CUDA, its processor's.
        shelf: what the settings may name; by default nothing but backbones.

    Raises:
        Untraceable: the step cannot be followed, as where it reads the value of a tensor: what a run needs is unknown.
    """
    device = device or ("cuda" if backbone.device.type == "cuda" else "cpu")
    precision = choose_precision(precision, spec.recomputes, backbone, device)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto or one of {', '.join(PRECISIONS)}, not {precision!r}")
    prompts = [f"class {k}" for k in range(labels)] if isinstance(labels, int) else list(labels)
    with untraceable("forecast_unknown", spec.title):
        step = trace_step(spec, config, backbone, prompts, support, precision, device)
    plan = workload_of(spec, config, support, images, cached_images, folds)
    others = known_extra_backbones(config, backbone, sources or NamedSources(files=False))
    extra_backbones = [trace_backbone(other, prompts) for other in others]
    loaded = sum(
        visit.weights for visit, other in zip(extra_backbones, others, strict=True) if catalog.loaded(other.id)
    )
    parts = memory(step, plan, backbone, len(prompts), device, extra_backbones)
    here = device if torch.cuda.is_available() else "cpu"
    spent = seconds(step, plan, machine.speed(here), precision, extra_backbones)
    return Forecast(
        spec.count(backbone.shape, config, len(prompts), support),
        backbone.shape.parameters,
        expected(parts, step, backbone, device, loaded),
        sum(spent.values()),
        plan.steps,
        parts,
        spent,
        precision,
    )


def known_extra_backbones(config: Config, backbone: Backbone, sources: NamedSources) -> list[Backbone]:
    """Return the other backbones that a run loads, without their weights.

    One that is neither here nor of known sizes is left out: it would first have to be downloaded."""
    from engine.backbones.skeleton import meta_backbone

    found = []
    for id in config.extra_backbones(sources):
        if id != backbone.id:
            try:
                found.append(meta_backbone(id))
            except BackboneUnavailable:
                continue
    return found


def workload_of(spec: MethodSpec, config: Config, support: int, images: int, cached: int, folds: int) -> Workload:
    """Return steps and images of a run."""
    trainings = folds + 1 if folds > 1 else 1
    left_out = blend.folds_of(support) if blend.wanted(config) else 0
    whole = spec.tuner().full_batch
    repeats = max(1, round(folds / 5)) if folds > 1 else 0  # each round of up to five folds tests every image once
    return Workload(
        support,
        images,
        min(cached, images),
        getattr(config, "views", 1),
        trainings,
        steps_of(config, support, whole) * trainings,
        images * (1 + repeats),
        left_out * steps_of(config, -(-support * 4 // 5), whole) * trainings,  # four fifths of the images train
    )


def steps_of(config: Any, support: int, whole: bool) -> int:
    """Return the steps of one training on so many images, ``whole`` where each step takes all of them; of L-BFGS, which
    ends by itself, the usual number."""
    if not hasattr(config, "steps_for"):  # nothing is trained
        return 0
    if config.optimizer == LBFGS:
        return min(config.epochs, lbfgs.USUAL)
    return config.steps_for(max(1, support), max(1, support if whole else config.batch_size))


def memory(
    step: StepCost,
    plan: Workload,
    backbone: Backbone,
    labels: int,
    device: str,
    extra_backbones: Sequence[ExtraBackbone] = (),
) -> dict[str, int]:
    """Bytes by part at the run's largest moment. Backbones stay in memory once they are loaded, so an extra one's
    weights count to the end."""
    size = backbone.shape.embedding * FLOAT
    rows = 0 if step.at_features else plan.views * plan.support * step.row
    kept = min(CACHE_BYTES, (plan.images + 2 * labels) * size + rows)
    if device == "cpu":  # decoded images are kept in the computer's memory
        pixels = 3 * backbone.shape.image_size**2
        kept = min(CACHE_BYTES, kept + pixels * (plan.images + (plan.views - 1) * plan.support))
    inputs = rows or plan.views * plan.support * size
    trains = step.train.operations > 0
    moments = (
        kept + max(step.encode.peak, step.inputs.peak, step.text.peak),
        kept + (2 * inputs if trains else 0),  # views one by one, then put together
        kept + (inputs + step.train.peak if trains else 0),
        kept + step.evaluate.peak,
        *(kept + work.peak for work, _ in step.pretraining_stages),
        *(kept + max(visit.encode.peak, visit.text.peak) for visit in extra_backbones),
    )
    features = kept + (inputs if trains else 0)
    state = {"gradients": step.gradients, "optimizer": step.optimizer}
    activations = max(0, max(moments) - features - sum(state.values()))
    weights = step.weights + sum(visit.weights for visit in extra_backbones)
    return {
        "weights": weights,
        **state,
        "activations": activations,
        "features": features,
        "workspace": workspace(device),
    }


def workspace(device: str) -> int:
    """Return bytes that the libraries take once: cuBLAS on CUDA, nothing on the CPU."""
    if device != "cuda":
        return 0
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 9
    return CUBLAS_HOPPER if hopper else CUBLAS


def expected(parts: Mapping[str, int], step: StepCost, backbone: Backbone, device: str, loaded: int = 0) -> int:
    """Bytes that the run's meter will show; ``loaded`` of them are other backbones' that are in memory already."""
    total = sum(parts.values())
    if device == "cuda":
        return total
    loaded += step.backbone if backbone.device.type == "cpu" else 0
    return psutil.Process().memory_info().rss + total - loaded


def seconds(
    step: StepCost,
    plan: Workload,
    speed: machine.Speed,
    precision: str = "fp32",
    extra_backbones: Sequence[ExtraBackbone] = (),
) -> dict[str, float]:
    """Return seconds by part of a run."""

    def of(work: OpCost, times: float) -> float:
        return times * speed.seconds(work)

    missing, extra = plan.images - plan.cached_images, (plan.views - 1) * plan.support
    trained = plan.support * plan.views * plan.trainings if plan.steps else 0
    distinct = min(trained, plan.images * plan.views)  # folds share images
    features = (missing + extra) * speed.image + of(step.encode, missing / IMAGES) + of(step.text, 8)
    features += of(step.inputs, distinct / IMAGES)
    evaluate = of(step.evaluate, plan.evaluated / IMAGES) + of(step.inputs, plan.evaluated / IMAGES)
    train = (plan.steps + plan.blend_steps) * (speed.seconds(step.train, precision) + speed.step)
    for work, steps in step.pretraining_stages:  # in fp32
        train += steps * plan.trainings * (speed.seconds(work) + speed.step)
    for visit in extra_backbones:  # each training asks about its own images, and folds share them
        shown = min(plan.support * plan.trainings, plan.images) * plan.views
        train += shown * speed.image + of(visit.encode, shown / IMAGES) + of(visit.text, 8)
    return {"features": features, "train": train, "evaluate": evaluate}


messages(
    forecast_unknown="How much memory and time {method} needs is unknown: its training step cannot be followed on "
    "tensors that have sizes and no values ({reason}). It can be run all the same.",
    too_large_batch="{method} on {backbone} needs about {need} MB more memory, but only {free} MB are free here. Set "
    "batch_size to {batch}, which fits, and try again.",
    too_large="{method} on {backbone} needs about {need} MB more memory, but only {free} MB are free here, and a "
    "smaller batch does not help enough. Choose a method that trains less, or a smaller backbone.",
)


def free_bytes(device: str) -> int:
    """Return memory that a run may still take: of the computer, or of the graphics card."""
    if device != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.cuda.mem_get_info()[0] + unused


def used_bytes(device: str) -> int:
    """Return memory of this process that the run's meter counts already."""
    return torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss


def check_room(
    needed: Forecast, of_batch: Callable[[int], Forecast], batch: int, names: tuple[str, str], device: str
) -> None:
    """Raise OutOfMemory where a run does not fit into what is free, with the largest batch that would.

    Args:
        of_batch: the forecast with another batch size.
        batch: images a step; 0 where the method has no batches.
        names: method and backbone.
    """
    used, free = used_bytes(device), free_bytes(device)
    if needed.memory_bytes - used <= free:
        return
    most = None
    if batch > 1:
        with suppress(Untraceable):  # a batch of one image may be followed less well
            most = largest_that_fits(used + free, batch, needed.memory_bytes, of_batch(1).memory_bytes)
    sizes = {"need": (needed.memory_bytes - used) >> 20, "free": free >> 20}
    if most:
        raise OutOfMemory("too_large_batch", method=names[0], backbone=names[1], batch=most, **sizes)
    raise OutOfMemory("too_large", method=names[0], backbone=names[1], **sizes)


def fits(needed: Forecast) -> dict[str, bool]:
    """Return where the run fits: name of the place -> whether its memory is enough."""
    return {place: needed.total_bytes <= room for place, room in PLACES.items()}


def largest_that_fits(room: int, batch: int, needed: int, smallest: int) -> int | None:
    """The largest of ``batch``, half of it, a quarter, ... that fits into ``room`` bytes; None where not even one
    image does.

    Args:
        needed: bytes at ``batch``; ``smallest``: bytes at one image. Between them a straight line is taken, which is
            never below the truth: the peak is the maximum of several straight lines.
    """
    size = batch
    while size >= 1:
        share = (size - 1) / (batch - 1) if batch > 1 else 1.0
        if smallest + share * (needed - smallest) <= room:
            return size
        size //= 2
    return None
