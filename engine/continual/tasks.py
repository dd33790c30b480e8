"""Tasks: labels that arrive step by step, and the images that train and test each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.episode import check_numbers
from engine.errors import BadConfig, BadLabels, any_of, messages
from engine.types import Label

messages(
    continual_one_label="Learning step by step needs at least two labels; there is only {label}. Add another folder.",
    continual_many_steps="There are {steps} steps and only {labels} labels: each step needs one of its own. Ask for at "
    "most {labels} steps.",
    continual_few_steps="The number of steps must be at least 1, not {steps}.",
    continual_no_images="Step {step} has no image to train or to test with: the label {label} has {count}, and it "
    "takes 2 at least. Add images or leave the label out.",
    continual_twice="The label {label} is in step {first} and in step {second}. Keep it in one of them.",
    continual_unknown="Step {step} names the label {label}, which the task does not have. Its labels are: {known}.",
    continual_known="The label {label} was learned before, in step {step}. Give the new folder labels of its own.",
    continual_no_strategy="No strategy is chosen. Tick at least one.",
    continual_no_photos="There are no photos of the new label yet. Drop in at least two.",
    continual_no_name="The new label has no name yet. Type one.",
    continual_bad_photos="None of the photos can be used: {reason}",
    continual_empty="Step {step} names no label. Remove it, or put a label between the signs that divide steps.",
)


@dataclass(frozen=True)
class Step:
    """Labels that arrive together."""

    classes: tuple[int, ...]
    """Positions among the labels of the stream."""
    train: tuple[int, ...]
    """Positions of the images that train."""
    test: tuple[int, ...]
    """Positions of the images that measure, from this step on."""


@dataclass(frozen=True)
class Stream:
    """A task whose labels arrive in steps."""

    labels: tuple[Label, ...]
    """In the order in which they arrive."""
    steps: tuple[Step, ...]
    targets: tuple[int, ...]
    """Class of each image; -1 where it has none."""

    def classes_until(self, number: int) -> tuple[int, ...]:
        """Return the classes of steps 0 to ``number``."""
        return tuple(k for step in self.steps[: number + 1] for k in step.classes)


def split_labels(names: Sequence[str], steps: int, single: bool = False) -> list[tuple[str, ...]]:
    """Divide labels into ``steps`` groups in their order; sizes differ by one at most, the larger come first.
    ``single`` is whether one label in all is enough.

    >>> split_labels(["a", "b", "c"], 2)
    [('a', 'b'), ('c',)]
    """
    if steps < 1:
        raise BadConfig("continual_few_steps", steps=steps)
    if len(names) < 2 and not single:
        raise BadLabels("continual_one_label", label=any_of(names))
    if steps > len(names):
        raise BadConfig("continual_many_steps", steps=steps, labels=len(names))
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(len(names)), steps)])
    return [tuple(names[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def shuffled(names: Sequence[str], order: int) -> tuple[str, ...]:
    """Return the labels in order number ``order``: 0 is as given, the others are random ones."""
    places = np.random.default_rng([order, 77]).permutation(len(names)) if order else range(len(names))
    return tuple(names[k] for k in places)


def parse_steps(text: str) -> list[tuple[str, ...]]:
    """Steps typed by hand: labels by comma, steps by semicolon.

    >>> parse_steps("a, b; c")
    [('a', 'b'), ('c',)]
    """
    return [tuple(name.strip() for name in part.split(",") if name.strip()) for part in text.split(";")]


def check_steps(groups: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Raise BadLabels where a step is empty, names an unknown label, or one of another step."""
    where: dict[str, int] = {}
    for number, group in enumerate(groups, 1):
        if not group:
            raise BadLabels("continual_empty", step=number)
        for name in group:
            if name not in names:
                raise BadLabels("continual_unknown", step=number, label=name, known=tuple(names))
            if name in where:
                raise BadLabels("continual_twice", label=name, first=where[name], second=number)
            where[name] = number


def build_stream(
    labels: Sequence[Label],
    image_labels: Sequence[str | None],
    groups: Sequence[Sequence[str]],
    shots: int = 8,
    seed: int = 0,
    most_tests: int = 0,
    single: bool = False,
) -> Stream:
    """Choose what trains and what tests of each step.

    Args:
        labels: of the task, of which the groups name some.
        image_labels: label of each image, None where it has none.
        groups: names of the labels of each step.
        shots: most training images a label; a label keeps at least one image to test with.
        seed: decides the draw, which depends on it and the label's name alone.
        most_tests: most test images a label; 0 = all.
        single: whether one label in all is enough, as where a saved state knows others.

    Raises:
        BadLabels: a step cannot be learned; the message names step and label.
    """
    by_name = {label.name: label for label in labels}
    if len(by_name) == 1 and not single:
        raise BadLabels("continual_one_label", label=labels[0].name)
    check_numbers(shots, seed)
    if most_tests < 0:
        raise BadConfig("bad_count", name="tests", low=0)
    check_steps(groups, tuple(by_name))
    order = [name for group in groups for name in group]
    index = {name: k for k, name in enumerate(order)}
    targets = tuple(-1 if label is None else index.get(label, -1) for label in image_labels)
    counts = Counter(targets)
    steps = []
    for number, group in enumerate(groups, 1):
        train: list[int] = []
        test: list[int] = []
        for name in group:
            k = index[name]
            if counts[k] < 2:
                raise BadLabels("continual_no_images", step=number, label=name, count=counts[k])
            places = [i for i, target in enumerate(targets) if target == k]
            drawn = [places[j] for j in np.random.default_rng([seed, *name.encode()]).permutation(len(places))]
            size = min(shots, len(drawn) - 1)
            train += drawn[:size]
            test += drawn[size : size + most_tests] if most_tests else drawn[size:]
        steps.append(Step(tuple(index[name] for name in group), tuple(sorted(train)), tuple(sorted(test))))
    return Stream(tuple(by_name[name] for name in order), tuple(steps), targets)
