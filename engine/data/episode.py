"""From labels and images to what trains and what tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.images import ImageFile
from engine.data.labels import check_labels
from engine.errors import BadConfig, BadLabels, Note, messages
from engine.types import MAX_SEED, Episode, Fold, Label

MAX_SHOTS = 10_000
MAX_TEMPLATES, MAX_TEMPLATE_CHARACTERS = 50, 300

messages(
    unknown_image_label="The image {name} has the label {label}, which is not in the list of labels. Add the label or "
    "change the image's label.",
    no_images="There are no labelled images yet. Upload some, or choose a sample task.",
    nothing_to_test="The labels have {count} images in all, one a label at most: nothing is left to measure with. Add "
    "at least one more image to some label.",
    bad_shots="Training images per label must be between 1 and {limit}, not {shots}.",
    bad_seed="A seed is a whole number from 0 to {limit:,}, not {seed}.",
    label_without_images="No image has the label {labels}. The model may still choose it, and nothing tests it.",
    images_without_label="{count} images have no label: they neither train nor test, but they are scored.",
    one_image_labels="{labels} has one image only: it trains and cannot test.",
    cross_validated="There are too few images for a separate test set, so accuracy comes from {folds} repeated folds: "
    "every image is tested by a model that was not trained on it.",
    shots_capped="A label has fewer images than {shots} plus one to test with, so it trains with fewer.",
    given_split="The split of the upload is kept: {train} images of train train, the {test} of {tested} test.",
    given_split_rest="{count} labelled images outside that split neither train nor test.",
    unknown_template_set="There is no template set {name!r}. Choose one of: {known}; or write sentences of your own "
    "with {{}} for the label, a semicolon between them.",
    bad_template="The template {text!r} must have {{}} once, where the label goes, and at most {limit} characters.",
    many_templates="There are {count} templates; at most {limit} can be used.",
)

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "general": (
        "a photo of a {}.",
        "a picture of a {}.",
        "a close-up photo of a {}.",
        "a good photo of a {}.",
        "a photo of the {}.",
        "a photo of one {}.",
        "{}",
    ),
    "plain": ("{}",),
    "single": ("a photo of a {}.",),
    "satellite": (
        "a satellite photo of {}.",
        "an aerial view of {}.",
        "a satellite image of {}.",
        "{} seen from above.",
        "a photo of {}.",
    ),
    "texture": (
        "a photo of a {} texture.",
        "a close-up photo of {}.",
        "a photo of a {} surface.",
        "a {} pattern.",
        "{}",
    ),
    "object": (
        "a photo of a {}.",
        "a product photo of a {}.",
        "a photo of a {} on a table.",
        "a close-up photo of a {}.",
        "a {} on a plain background.",
        "{}",
    ),
}
"""Sentences around a label. The first of a set is the single template; the mean of all is the ensemble."""


def templates(name: str) -> tuple[str, ...]:
    """Return the sentences of a set, or sentences of one's own: each has ``{}`` once, semicolons or lines apart.

    Raises BadConfig with the known names, or naming the sentence.

    >>> templates("an X-ray of {}; a scan that shows {}.")
    ('an X-ray of {}', 'a scan that shows {}.')
    """
    if name in TEMPLATE_SETS:
        return TEMPLATE_SETS[name]
    if "{" not in name:
        raise BadConfig("unknown_template_set", name=name, known=", ".join(TEMPLATE_SETS))
    own = tuple(dict.fromkeys(text for part in re.split(r"[;\n]", name) if (text := " ".join(part.split()))))
    for text in own:
        if text.count("{}") != 1 or len(text) > MAX_TEMPLATE_CHARACTERS:
            raise BadConfig("bad_template", text=text[:80], limit=MAX_TEMPLATE_CHARACTERS)
    if len(own) > MAX_TEMPLATES:
        raise BadConfig("many_templates", count=len(own), limit=MAX_TEMPLATES)
    return own


def build(
    labels: Sequence[Label],
    image_labels: Sequence[str | None],
    shots: int = 8,
    seed: int = 0,
    template_set: str = "general",
    names: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
) -> Episode:
    """Choose what trains and what tests.

    Args:
        labels: classes, at least two.
        image_labels: label name of each image, None where it has none.
        shots: most training images a class, at least 1.
        seed: decides the draw.
        template_set: key of ``TEMPLATE_SETS``.
        names: names of the images, for messages.
        splits: ``train``, ``val``, ``test`` or None of each image, where the upload came with a split.

    Returns:
        An episode with one fold where a split is given or enough images are left to test with, otherwise with
        repeated stratified folds. Raises BadLabels or BadConfig.
    """
    labels = check_labels(labels)
    templates(template_set)
    check_numbers(shots, seed)
    targets = _targets(labels, image_labels, names)
    counts = Counter(t for t in targets if t >= 0)
    if not counts:
        raise BadLabels("no_images")
    if max(counts.values()) < 2:
        raise BadLabels("nothing_to_test", count=sum(counts.values()))
    notes = _notes(labels, targets, counts)
    given = given_split([label if t >= 0 else None for label, t in zip(image_labels, targets, strict=True)], splits)
    if given:
        folds: tuple[Fold, ...] | None = (_drawn(given, targets, shots, seed),)
        notes += _given_notes(given, folds[0], sum(counts.values()))  # type: ignore[index]
    else:
        folds = _split(targets, counts, shots, seed)
    if folds is None:
        folds = _cross_validation(targets, counts, shots, seed)
        notes.append(Note("cross_validated", (("folds", len(folds)),)))
    elif not given and min(counts.values()) <= shots:
        notes.append(Note("shots_capped", (("shots", shots),)))
    return Episode(labels, targets, folds, shots, seed, template_set, tuple(notes))


def check_numbers(shots: int, seed: int) -> None:
    """Raise BadLabels or BadConfig where no draw can be made with them."""
    if not 1 <= shots <= MAX_SHOTS:
        raise BadLabels("bad_shots", shots=shots, limit=MAX_SHOTS)
    if not 0 <= seed <= MAX_SEED:
        raise BadConfig("bad_seed", seed=seed, limit=MAX_SEED)


def of_images(
    labels: Sequence[Label], images: Sequence[ImageFile], shots: int = 8, seed: int = 0, template_set: str = "general"
) -> Episode:
    """Choose what trains and what tests of checked images, whose own split counts; see :func:`build`."""
    own = [(image.label, image.name, image.split) for image in images]
    image_labels, names, splits = zip(*own, strict=True) if own else ((), (), ())
    return build(labels, image_labels, shots, seed, template_set, names, splits)


@dataclass(frozen=True)
class GivenSplit:
    """Positions of labelled images as an upload divides them."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    tested: str
    """``test``, or ``val`` where there is no test."""


def given_split(image_labels: Sequence[str | None], splits: Sequence[str | None] | None) -> GivenSplit | None:
    """Return an upload's own split, or None where it has none that can be used: at least two labels must train and one
    image test."""
    if splits is None:
        return None
    parts: dict[str | None, list[int]] = {"train": [], "val": [], "test": []}
    for i, (label, split) in enumerate(zip(image_labels, splits, strict=True)):
        if label is not None and split in parts:
            parts[split].append(i)
    tested = "test" if parts["test"] else "val"
    if len({image_labels[i] for i in parts["train"]}) < 2 or not parts[tested]:
        return None
    return GivenSplit(tuple(parts["train"]), tuple(parts[tested]), tested)


def _drawn(given: GivenSplit, targets: Sequence[int], shots: int, seed: int) -> Fold:
    """Draw the training images from those that may train."""
    inside = set(given.train)
    order = _order([t if i in inside else -1 for i, t in enumerate(targets)], seed)
    return Fold(tuple(sorted(i for rows in order.values() for i in rows[:shots])), given.test)


def _given_notes(given: GivenSplit, fold: Fold, labelled: int) -> list[Note]:
    notes = [Note.of("given_split", train=len(fold.support), test=len(fold.test), tested=given.tested)]
    others = labelled - len(given.train) - len(given.test)
    return notes + ([Note.of("given_split_rest", count=others)] if others else [])


def _targets(
    labels: Sequence[Label], image_labels: Sequence[str | None], names: Sequence[str] | None
) -> tuple[int, ...]:
    index = {label.name: k for k, label in enumerate(labels)}
    for i, label in enumerate(image_labels):
        if label is not None and label not in index:
            raise BadLabels("unknown_image_label", name=names[i] if names else i + 1, label=label)
    return tuple(-1 if label is None else index[label] for label in image_labels)


def _notes(labels: Sequence[Label], targets: Sequence[int], counts: Counter[int]) -> list[Note]:
    notes = []
    absent = [label.name for k, label in enumerate(labels) if not counts[k]]
    alone = [label.name for k, label in enumerate(labels) if counts[k] == 1]
    unlabelled = sum(t < 0 for t in targets)
    if absent:
        notes.append(Note("label_without_images", (("labels", ", ".join(absent)),)))
    if alone:
        notes.append(Note("one_image_labels", (("labels", ", ".join(alone)),)))
    if unlabelled:
        notes.append(Note("images_without_label", (("count", unlabelled),)))
    return notes


def _order(targets: Sequence[int], seed: int) -> dict[int, list[int]]:
    """Shuffled positions of each class; a class's order depends on the seed and the class alone."""
    order = {}
    for k in sorted({t for t in targets if t >= 0}):
        positions = [i for i, t in enumerate(targets) if t == k]
        order[k] = [positions[j] for j in np.random.default_rng([seed, k]).permutation(len(positions))]
    return order


def _split(targets: Sequence[int], counts: Counter[int], shots: int, seed: int) -> tuple[Fold, ...] | None:
    """One held-out split, or None where it would leave too little to measure with."""
    train = {k: min(shots, max(1, n - 1)) for k, n in counts.items()}
    if sum(n - train[k] for k, n in counts.items()) < max(20, 2 * len(counts)):
        return None
    order = _order(targets, seed)
    support = tuple(sorted(i for k, rows in order.items() for i in rows[: train[k]]))
    test = tuple(sorted(i for k, rows in order.items() for i in rows[train[k] :]))
    return (Fold(support, test),)


def folds_of_all(targets: Sequence[int], seed: int) -> tuple[Fold, ...]:
    """Stratified folds that test every labelled image (-1: none) whose class has others, trained on all the rest."""
    counts = Counter(t for t in targets if t >= 0)
    return _cross_validation(targets, counts, len(targets), seed)


def _cross_validation(targets: Sequence[int], counts: Counter[int], shots: int, seed: int) -> tuple[Fold, ...]:
    """Repeated stratified folds: up to five parts, twice where a round has fewer than 60 tests.
    Classes with one image always train."""
    parts = min(5, max(counts.values()))
    tests_a_round = sum(n for n in counts.values() if n > 1)
    repeats = 1 if tests_a_round >= 60 else 2
    folds = []
    for repeat in range(repeats):
        order = _order(targets, seed + 1_000 * repeat)
        for part in range(parts):
            test = {i for rows in order.values() if len(rows) > 1 for j, i in enumerate(rows) if j % parts == part}
            support = [[i for i in rows if i not in test][:shots] for rows in order.values()]
            if test:
                folds.append(Fold(tuple(sorted(i for rows in support for i in rows)), tuple(sorted(test))))
    return tuple(folds)
