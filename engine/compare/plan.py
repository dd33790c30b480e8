"""What is to be run: methods x shots x seeds on one task, each run with the key of its content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Any

from engine.backbones.base import Backbone
from engine.costs.forecast import forecast, workload_of
from engine.data.episode import given_split, of_images, templates
from engine.data.images import ImageFile
from engine.errors import BadConfig, BadLabels, LabError, Note, messages
from engine.tuning import registry
from engine.tuning.precision import choose_precision
from engine.tuning.registry import MethodSpec
from engine.types import BASELINE, Episode, Label, RunSpec

FORMAT = 1
"""Version of the stored results. Raise it when a change of the engine changes what a run measures."""
SHOTS = (1, 2, 4, 8, 16)
"""The shot curve, as far as the images go."""
QUICK, RECOMMENDED, ALL = "quick", "recommended", "all"
QUICK_SECONDS = 10.0
"""``quick`` takes the methods whose steps do not run the image tower, where a run is expected to take no longer;
``recommended`` takes those that are marked so in the registry."""

messages(
    compare_unknown_methods="There is no method or group of methods {name!r}. Choose quick, recommended, all, a family "
    "({families}) or methods by comma: {known}.",
    compare_no_methods="No method is chosen. Choose at least one.",
    compare_unknown_preset="There is no preset {preset!r}. Choose one of: {known}.",
    compare_no_seeds="No seed is chosen. Choose at least one, such as 0.",
    compare_too_many_shots="{shots} training images a label need a label with {needed} images, one of them to test "
    "with; the largest has {most}. Choose at most {limit}.",
    compare_not_quick="{method} is left out of the quick methods: a run would take about {seconds:.0f} s here. Choose "
    "it by its name to run it.",
)


@dataclass(frozen=True)
class Request:
    """What to compare."""

    methods: tuple[str, ...]
    """Ids of methods, ``quick``, ``recommended``, ``all`` or families of ``registry.FAMILIES``, mixed at will."""
    shots: tuple[int, ...] = ()
    """Training images a label; empty for ``SHOTS`` as far as the images go."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides a draw of the training images and the methods' random starts."""
    preset: str = "budget"
    """Methods that do not have it run with ``budget``."""
    template_set: str = "general"
    precision: str = "auto"


@dataclass(frozen=True)
class Job:
    """One run."""

    key: str
    """Hash of everything that decides the result."""
    spec: RunSpec
    seconds: float | None = None
    """Expected for training and evaluation; None until it is forecast, and where it cannot be."""
    memory_bytes: int | None = None
    """Expected where nothing is loaded yet; None as ``seconds`` is."""


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, not yet in order of cost, and the methods that cannot run."""

    request: Request
    images: tuple[ImageFile, ...]
    labels: tuple[Label, ...]
    episodes: tuple[Episode, ...]
    """One for each number of shots and seed: the same for every method."""
    jobs: tuple[Job, ...]
    skipped: tuple[tuple[str, Note], ...] = ()
    """(method, why it does not run)."""
    quick: frozenset[str] = field(default_factory=frozenset)
    """Methods that run only where they are quick here."""


def make_plan(request: Request, images: Sequence[ImageFile], labels: Sequence[Label], backbone: Backbone) -> Plan:
    """Choose episodes and runs. Raises BadConfig and BadLabels where the request cannot be met.

    The prompt-ensembled baseline is always among the methods: everything is judged against it.
    """
    specs, quick = choose_methods(request.methods)
    presets = list(dict.fromkeys(name for spec in registry.methods() for name in spec.presets))
    if request.preset not in presets:
        raise BadConfig("compare_unknown_preset", preset=request.preset, known=", ".join(presets))
    if not request.seeds:
        raise BadConfig("compare_no_seeds")
    shots = usable_shots(request.shots, images)
    episodes = tuple(
        of_images(labels, images, count, seed, request.template_set)
        for count in shots
        for seed in dict.fromkeys(request.seeds)
    )
    jobs, skipped, task = [], [], task_key(images, backbone)
    for spec in specs:
        preset = request.preset if request.preset in spec.presets else "budget"
        if obstacle := registry.obstacle(spec, backbone, spec.configure(preset)):
            skipped.append((spec.id, obstacle.note))
            continue
        precision = choose_precision(request.precision, spec.recomputes, backbone)
        for episode in episodes:
            run = RunSpec(backbone.id, spec.id, episode, preset, seed=episode.seed, precision=precision)
            jobs.append(Job(run_key(task, run), run))
    return Plan(request, tuple(images), tuple(labels), episodes, tuple(jobs), tuple(skipped), quick)


def choose_methods(names: Sequence[str]) -> tuple[list[MethodSpec], frozenset[str]]:
    """Return the records that some names stand for, baseline included and in the registry's order, and the ids of those
    that ``quick`` alone asks for. Raises BadConfig."""
    every = list(registry.methods())
    known = {spec.id for spec in every}
    wanted, quick = {BASELINE}, set()
    if not names:
        raise BadConfig("compare_no_methods")
    for name in names:
        family = name.replace("-", " ").replace("_", " ")
        if name == QUICK:
            quick |= {spec.id for spec in every if "vision" not in spec.recomputes.towers}
        elif name == RECOMMENDED:
            wanted |= {spec.id for spec in every if spec.recommended}
        elif name == ALL:
            wanted |= known
        elif name in known:
            wanted.add(name)
        elif family in registry.FAMILIES:
            wanted |= {spec.id for spec in every if spec.family == family}
        else:
            families = ", ".join(registry.FAMILIES)
            raise BadConfig("compare_unknown_methods", name=name, families=families, known=", ".join(sorted(known)))
    return [spec for spec in every if spec.id in wanted | quick], frozenset(quick - wanted)


def usable_shots(wanted: Sequence[int], images: Sequence[ImageFile]) -> tuple[int, ...]:
    """The numbers of shots, rising; those of ``SHOTS`` where none are asked for. Raises BadLabels where no label has
    enough images, or a number is out of range."""
    given = given_split([image.label for image in images], [image.split for image in images])
    training = [images[i] for i in given.train] if given else images
    most = max(Counter(image.label for image in training if image.label).values(), default=0)
    limit = most if given else max(1, most - 1)
    if not wanted:
        return tuple(shots for shots in SHOTS if shots <= limit)
    for shots in wanted:
        if shots < 1:
            raise BadLabels("bad_shots", shots=shots, limit=limit)
        if shots > limit and most > 1:  # fewer than two images have a sentence of their own
            raise BadLabels("compare_too_many_shots", shots=shots, needed=shots + 1, most=most, limit=limit)
    return tuple(sorted(set(wanted)))


def task_key(images: Sequence[ImageFile], backbone: Backbone) -> str:
    """Hash of the pictures' contents, in order, and the backbone's weights; names and folders do not count."""
    parts = [backbone.id, backbone.weight_hash, str(backbone.device.type), *(image.digest for image in images)]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def run_key(task: str, run: RunSpec) -> str:
    """Hash of everything that decides a run's result, 64 hex digits."""
    spec, episode = registry.get(run.method), run.episode
    content: dict[str, Any] = {
        "format": FORMAT,
        "task": task,
        "method": run.method,
        "preset": run.preset,
        "seed": run.seed,
        "config": spec.configure(run.preset, dict(run.settings), episode.shots).to_dict(),
        "precision": run.precision,
        "labels": [asdict(label) for label in episode.labels],
        "templates": templates(episode.template_set),
        "targets": episode.targets,
        "folds": [asdict(fold) for fold in episode.folds],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def forecasts(plan: Plan, jobs: Sequence[Job], backbone: Backbone) -> Iterator[list[Job]]:
    """Yield the jobs with their forecasts, one method at a time.

    Args:
        jobs: those of the plan that are left.
    """
    for method in dict.fromkeys(job.spec.method for job in jobs):
        yield with_forecast([job for job in jobs if job.spec.method == method], len(plan.images), backbone)


def not_quick(plan: Plan, job: Job) -> Note | None:
    """Return why ``quick`` leaves a job out; None where it runs."""
    if job.spec.method not in plan.quick or job.seconds is None or job.seconds <= QUICK_SECONDS:
        return None
    name = registry.get(job.spec.method).title
    return Note("compare_not_quick", (("method", name), ("seconds", job.seconds)))


def cheapest_first(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs tier by tier (see ``Recomputed.tier``), within a tier by forecast seconds, those that cannot be
    forecast last."""

    def price(job: Job) -> tuple[int, float]:
        return registry.get(job.spec.method).recomputes.tier, inf if job.seconds is None else job.seconds

    return sorted(jobs, key=price)


def with_forecast(jobs: Sequence[Job], images: int, backbone: Backbone) -> list[Job]:
    """One method's jobs with what they are expected to need; as they are where that is unknown.

    One step is followed, that of the most training images; fewer take their share of its steps and images. Where the
    method itself is at fault, its run says so.
    """
    spec = registry.get(jobs[0].spec.method)

    def work(job: Job) -> tuple[Any, int, int]:
        episode = job.spec.episode
        return (
            spec.configure(job.spec.preset, dict(job.spec.settings), episode.shots),
            len(episode.folds[0].support),
            len(episode.folds),
        )

    def seen(job: Job) -> int:  # training images over all steps
        config, support, folds = work(job)
        steps = workload_of(spec, config, support, images, images, folds).steps
        return steps * (support if spec.tuner().full_batch else min(getattr(config, "batch_size", 1), support))

    largest = max(jobs, key=seen)
    config, support, folds = work(largest)
    prompts = [label.prompt for label in largest.spec.episode.labels]
    try:
        needed = forecast(spec, config, backbone, prompts, support, images, folds, largest.spec.precision, images)
    except LabError:
        return list(jobs)
    train, rest = needed.seconds_by_part["train"], needed.seconds_by_part["evaluate"]
    most = max(1, seen(largest))
    return [replace(job, seconds=train * seen(job) / most + rest, memory_bytes=needed.total_bytes) for job in jobs]
