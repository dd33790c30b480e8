"""A strategy between two steps, on disk: a folder with ``state.json``, ``state.safetensors`` and the test images.

Only tensors, plain JSON and images are ever read. The folder ``tests`` measures old labels later on; nothing trains
with it, and where its images are gone the old labels' accuracy is not known any more.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine import plain_json
from engine.backbones.base import Backbone
from engine.continual.strategy import Strategy
from engine.continual.tasks import Step, Stream, build_stream
from engine.data.images import ImageFile
from engine.errors import BadAdapter, BadLabels, messages, reason_of
from engine.types import MAX_SEED, Label

SCHEMA = 1
RECIPE, TENSORS, TESTS = "state.json", "state.safetensors", "tests"
FIELDS: dict[str, Any] = {
    "strategy": str,
    "config": dict,
    "backbone": str,
    "weight_hash": str,
    "template_set": str,
    "seed": int,
    "labels": list,
    "steps": list,
    "matrix": list,
    "open": list,
    "tests": list,
    "seconds": (int, float),
}
"""What a recipe must hold, with its JSON types."""

messages(
    state_missing="{path} holds no saved state: {file} is missing. Choose a folder that continual --state has written, "
    "or start again without it.",
    state_damaged="The saved state is damaged: {file} cannot be read ({reason}). Start again without it.",
    state_field="The saved state is damaged: {file} lacks {field} or holds something else there. Start again without "
    "it.",
    state_schema="The saved state has format {found}, this version reads {known}. Use the version that wrote it.",
    state_backbone="The saved state belongs to the backbone {wanted}, not to {given}. Choose {wanted}, or start again.",
    state_weights="The saved state was made on other weights of {id}. Use the same version of the backbone, or start "
    "again.",
    state_finite="The saved state is damaged: {name} holds values that are no numbers. Start again without it.",
    state_skipped="Learned before and left out: {labels}.",
    state_all_known="All labels of the new folder were learned before: {labels}. Add a folder of a new label.",
)


@dataclass(frozen=True, eq=False)
class SavedState:
    """What :func:`load` found."""

    strategy: str
    config: dict[str, Any]
    template_set: str
    seed: int
    labels: tuple[Label, ...]
    """Learned ones, in the order in which they came."""
    steps: tuple[tuple[str, ...], ...]
    matrix: list[list[float]]
    """Rows of the accuracy matrix, as long as labels were known; NaN where that is not known."""
    open_row: list[float]
    tests: tuple[ImageFile, ...]
    """Images of old labels that measure."""
    tensors: Mapping[str, Tensor]
    seconds: float

    def continued(
        self,
        labels: Sequence[Label],
        images: Sequence[ImageFile],
        groups: Sequence[Sequence[str]],
        shots: int,
        most_tests: int = 0,
    ) -> tuple[Stream, tuple[ImageFile, ...]]:
        """Return the stream of old and new steps, and its images. Raises BadLabels where a label was learned before."""
        known = {name: number for number, names in enumerate(self.steps, 1) for name in names}
        for name in (name for group in groups for name in group):
            if name in known:
                raise BadLabels("continual_known", label=name, step=known[name])
        new = build_stream(labels, [image.label for image in images], groups, shots, self.seed, most_tests, single=True)
        old, index = len(self.labels), {label.name: k for k, label in enumerate(self.labels)}
        kept = len(self.tests)
        of_old = [index[image.label or ""] for image in self.tests]
        steps = [
            Step(
                tuple(index[n] for n in names),
                (),
                tuple(i for i, k in enumerate(of_old) if self.labels[k].name in names),
            )
            for names in self.steps
        ]
        for step in new.steps:
            classes = tuple(old + k for k in step.classes)
            steps.append(Step(classes, tuple(kept + i for i in step.train), tuple(kept + i for i in step.test)))
        targets = (*of_old, *(old + k if k >= 0 else -1 for k in new.targets))
        return Stream((*self.labels, *new.labels), tuple(steps), targets), (*self.tests, *images)


def save(
    folder: Path,
    learner: Strategy,
    stream: Stream,
    images: Sequence[ImageFile],
    template_set: str,
    matrix: Sequence[Sequence[float]],
    open_row: Sequence[float],
    seconds: float,
) -> None:
    """Write a strategy as it is after its last step. Files are put in place when they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    done = len(matrix)
    steps, names = stream.steps[:done], [label.name for label in stream.labels]
    tests = []
    (folder / TESTS).mkdir(exist_ok=True)
    for i in (i for step in steps for i in step.test):
        image = images[i]
        target = folder / TESTS / f"{image.digest}{Path(image.path).suffix.lower()}"
        if not target.exists():
            shutil.copyfile(image.path, target)
        tests.append({**asdict(image), "path": target.name, "label": names[stream.targets[i]]})
    backbone = learner.context.backbone
    recipe = {
        "schema": SCHEMA,
        "strategy": learner.config.method,
        "config": learner.config.to_dict(),
        "backbone": backbone.id,
        "weight_hash": backbone.weight_hash,
        "template_set": template_set,
        "seed": learner.context.seed,
        "labels": [asdict(stream.labels[k]) for k in learner.seen],
        "steps": [[names[k] for k in step.classes] for step in steps],
        "matrix": [[None if math.isnan(v) else v for v in row[:done]] for row in matrix],
        "open": [None if math.isnan(v) else v for v in open_row],
        "tests": tests,
        "seconds": seconds,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.tensors().items()}
    save_file(tensors, folder / f"{TENSORS}.new", metadata={"format": "pt"})
    (folder / f"{RECIPE}.new").write_text(json.dumps(recipe, ensure_ascii=False, indent=1), encoding="utf8")
    for name in (TENSORS, RECIPE):
        os.replace(folder / f"{name}.new", folder / name)


def load(folder: Path, backbone: Backbone) -> SavedState:
    """Return a saved state. Raises BadAdapter naming what is damaged, or the other backbone."""
    recipe = _recipe(folder)
    if recipe["backbone"] != backbone.id:
        raise BadAdapter("state_backbone", wanted=recipe["backbone"], given=backbone.id)
    if recipe["weight_hash"] != backbone.weight_hash:
        raise BadAdapter("state_weights", id=backbone.id)
    if not (folder / TENSORS).is_file():
        raise BadAdapter("state_missing", path=folder.name, file=TENSORS)
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadAdapter("state_damaged", file=TENSORS, reason=reason_of(error)) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadAdapter("state_finite", name=name)
    try:
        return SavedState(
            recipe["strategy"],
            recipe["config"],
            recipe["template_set"],
            recipe["seed"],
            tuple(Label(**row) for row in recipe["labels"]),
            tuple(map(tuple, recipe["steps"])),
            [_numbers(row) for row in recipe["matrix"]],
            _numbers(recipe["open"]),
            tuple(_tests(folder, recipe)),
            tensors,
            float(recipe["seconds"]),
        )
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BadAdapter("state_damaged", file=RECIPE, reason=reason_of(error)) from error


def _recipe(folder: Path) -> dict[str, Any]:
    """Return ``state.json``, checked."""
    path = folder / RECIPE
    if not path.is_file():
        raise BadAdapter("state_missing", path=folder.name, file=RECIPE)
    try:
        recipe = plain_json.read(path)
    except (ValueError, OSError) as error:
        raise BadAdapter("state_damaged", file=RECIPE, reason=reason_of(error)) from error
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        raise BadAdapter("state_schema", found=recipe.get("schema") if isinstance(recipe, dict) else None, known=SCHEMA)
    for name, kind in FIELDS.items():
        if not isinstance(recipe.get(name), kind) or recipe[name] == []:
            raise BadAdapter("state_field", file=RECIPE, field=name)
    if not 0 <= recipe["seed"] <= MAX_SEED:
        raise BadAdapter("state_field", file=RECIPE, field="seed")
    named = [name for names in recipe["steps"] for name in names]
    if [row.get("name") for row in recipe["labels"]] != named or len(recipe["matrix"]) != len(recipe["steps"]):
        raise BadAdapter("state_field", file=RECIPE, field="steps")
    return recipe


def _numbers(row: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in row]


def _tests(folder: Path, recipe: Mapping[str, Any]) -> list[ImageFile]:
    """Return the test images that are still there; by file name, so that a path cannot lead elsewhere."""
    found = []
    for row in recipe["tests"]:
        path = folder / TESTS / Path(row["path"]).name
        if path.is_file():
            found.append(ImageFile(**{**row, "path": str(path)}))
    return found
