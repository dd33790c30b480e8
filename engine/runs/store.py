"""Adapters on disk: a folder or zip with ``adapter.json``, ``adapter.safetensors`` and a model card.

Only tensors and plain JSON are ever read; a pickle is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.backbones import catalog
from engine.backbones.base import Backbone
from engine.errors import BackboneUnavailable, BadAdapter, LabError, messages
from engine.metrics import novelty
from engine.metrics.novelty import Novelty
from engine.outputs import filling
from engine.paths import portable
from engine.runs.card import adapter_card
from engine.tuning import registry
from engine.tuning.adapter_files import CARD, PEFT_CONFIG, RECIPE, SCHEMA, TENSORS, read_recipe
from engine.tuning.features import label_features
from engine.tuning.outcome import Outcome
from engine.tuning.registry import MethodSpec
from engine.tuning.tuner import Config, Tuner, TunerContext
from engine.types import Label, RunResult

SEEN, SEEN_CLASSES = "seen.features", "seen.classes"
"""Names of the tensors that tell strange pictures, where the method itself does not keep its training features."""

messages(
    adapter_where="The adapter belongs to the backbone {id} (weights {hash}), which was not found here. Say where it "
    "lies now: --backbone FOLDER on the command line, backbone=FOLDER in a notebook; in the page choose it first.",
    adapter_backbone="The adapter belongs to the backbone {wanted}, not to {given}. Choose {wanted} and load it again.",
    adapter_weights="The adapter was made on other weights of {id} (hash {wanted}, here {given}). Use the same version "
    "of the backbone, or tune again.",
    adapter_tensors="{file} is damaged, cut short or no safetensors file. Save or download the adapter again.",
    adapter_finite="The tensor {name} of the adapter holds values that are no numbers (NaN or infinity). Tune again.",
    adapter_key="The adapter lacks the tensor {name}. Save the adapter again.",
    adapter_extra="The adapter has the tensor {name}, which {method} does not have. It belongs to another method or "
    "version.",
    adapter_shape="The tensor {name} has shape {found}, {method} with these labels needs {wanted}.",
)


@dataclass
class Adapter:
    """A loaded adapter, ready to predict."""

    recipe: dict[str, Any]
    """``adapter.json`` as it was read."""
    result: RunResult
    """Of the run that it comes from."""
    tuner: Tuner
    setting: TunerContext
    novelty: Novelty | None = None
    """Tells pictures that are unlike every label; None where the run could not."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its classes, in the order of the logits."""
        return self.setting.labels


def save(outcome: Outcome, folder: str | Path) -> int:
    """Write the adapter into a folder, made if need be; returns the bytes of its tensors' file."""
    return write(outcome.tuner, outcome.setting, outcome.result, Path(folder))


def write(tuner: Tuner, setting: TunerContext, result: RunResult, folder: Path) -> int:
    """Write a tuner with its result as an adapter, like :func:`save`."""
    with filling(folder) as fresh:
        _write(tuner, setting, result, fresh)
    return (folder / TENSORS).stat().st_size


def _write(tuner: Tuner, setting: TunerContext, result: RunResult, folder: Path) -> None:
    tensors = {name: p.detach().cpu().contiguous() for name, p in tuner.saved().items()}
    if tuner.keeps_support:
        tensors["support"] = setting.support.cpu().contiguous()
        tensors["targets"] = setting.targets.cpu()
    elif result.novelty:
        tensors[SEEN] = setting.support.cpu().half().contiguous()
        tensors[SEEN_CLASSES] = setting.targets.cpu()
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    recipe = {
        "schema": SCHEMA,
        "weight_hash": setting.backbone.weight_hash,
        "templates": list(setting.templates),
        **result.to_json(),
    }
    recipe |= {
        "backbone": portable(setting.backbone.id),
        "config": {key: _without_paths(value) for key, value in recipe["config"].items()},
    }
    (folder / RECIPE).write_text(json.dumps(recipe, ensure_ascii=False, indent=1), encoding="utf8")
    tuner.save_library_format(folder)
    (folder / CARD).write_text(adapter_card(recipe, (folder / PEFT_CONFIG).is_file()), encoding="utf8")


def _without_paths(value: Any) -> Any:
    """Return a setting, whose names of folders by comma may be paths, without the places of this machine."""
    return ",".join(map(portable, value.split(","))) if isinstance(value, str) else value


def load(folder: str | Path, backbone: Backbone, name: str = "") -> Adapter:
    """Rebuild a saved adapter on its backbone, which is known by the hash of its weights, wherever it lies.

    ``name`` is what messages call the adapter (default: the folder's name). Raises BadAdapter; the backbone is never
    changed.
    """
    folder = Path(folder)
    recipe = read_recipe(folder, name)
    if recipe["weight_hash"] != backbone.weight_hash:
        if recipe["backbone"] != portable(backbone.id):
            raise BadAdapter("adapter_backbone", wanted=recipe["backbone"], given=backbone.id)
        raise BadAdapter("adapter_weights", id=backbone.id, wanted=recipe["weight_hash"], given=backbone.weight_hash)
    if not (folder / TENSORS).is_file():
        raise BadAdapter("adapter_missing", path=name or folder.name, file=TENSORS)
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadAdapter("adapter_tensors", file=TENSORS) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadAdapter("adapter_finite", name=name)
    try:
        spec = registry.get(recipe["method"])
        config = spec.configure("budget", recipe["config"])
        result = RunResult.from_json(recipe)
    except (LabError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise BadAdapter("adapter_json", file=RECIPE, reason=error) from error
    setting = rebuild_setting(recipe, tensors, backbone)
    strange = _novelty(tensors, setting, result)
    beside = ("support", "targets", SEEN, SEEN_CLASSES)
    own = {name: tensor for name, tensor in tensors.items() if name not in beside}
    return Adapter(recipe, result, rebuild(spec, config, setting, own, recipe["chosen"]), setting, strange)


def _novelty(tensors: Mapping[str, Tensor], setting: TunerContext, result: RunResult) -> Novelty | None:
    """What tells strange pictures, from the features that the adapter holds. Raises BadAdapter."""
    seen, classes = tensors.get(SEEN), tensors.get(SEEN_CLASSES)
    if seen is None or classes is None:
        kept = "support" in tensors
        return novelty.rebuild(*setting.support_arrays(), result.novelty) if kept else None
    size = setting.support.shape[1]
    if seen.ndim != 2 or seen.shape[1] != size or classes.shape != seen.shape[:1] or classes.is_floating_point():
        values = {"found": tuple(seen.shape), "method": result.method, "wanted": f"N x {size}"}
        raise BadAdapter("adapter_shape", name=SEEN, **values)
    return novelty.rebuild(seen.float().numpy(), classes.numpy(), result.novelty)


def backbone_of(recipe: Mapping[str, Any], device: str | None = None) -> Backbone:
    """Return the backbone that an adapter belongs to: one in memory with its weights, or else the one of its name.

    Raises BackboneUnavailable.
    """
    if found := catalog.with_weights(recipe["weight_hash"], device):
        return found
    try:
        return catalog.load(recipe["backbone"], device)
    except BackboneUnavailable as error:
        if error.key not in ("backbone_unknown", "backbone_not_found", "backbone_no_model", "backbone_no_tag"):
            raise
        raise BackboneUnavailable("adapter_where", id=recipe["backbone"], hash=recipe["weight_hash"]) from error


def rebuild(
    spec: MethodSpec, config: Config, setting: TunerContext, tensors: Mapping[str, Tensor], chosen: Mapping[str, float]
) -> Tuner:
    """A trained tuner from its saved tensors, in the setting it was trained in or, where its tensors do not depend on
    the labels, in one with other labels. Raises BadAdapter."""
    torch.manual_seed(setting.seed)
    tuner = spec.tuner()(config, setting).restorable()
    tuner.chosen = dict(chosen)
    fill_in(tuner, tensors, spec.id)
    return tuner.eval()


def rebuild_setting(recipe: Mapping[str, Any], tensors: Mapping[str, Tensor], backbone: Backbone) -> TunerContext:
    """Return the setting that the adapter was trained in; support features where it kept them."""
    labels = tuple(Label(label["name"], label["prompt"]) for label in recipe["labels"])
    sentences = tuple(recipe["templates"])
    size = backbone.shape.embedding
    support, targets = (
        tensors.get("support", torch.zeros(1, size)),
        tensors.get("targets", torch.zeros(1, dtype=torch.long)),
    )
    good = support.ndim == 2 and support.shape[1] == size and targets.shape == support.shape[:1]
    if not good or targets.dtype != torch.long or not 0 <= int(targets.min()) <= int(targets.max()) < len(labels):
        raise BadAdapter(
            "adapter_shape", name="support", found=tuple(support.shape), method=recipe["method"], wanted=f"N x {size}"
        )
    single, ensemble = label_features(backbone, labels, sentences)
    return TunerContext(
        backbone,
        labels,
        sentences,
        single,
        ensemble,
        support=support.to(backbone.device),
        targets=targets.to(backbone.device),
        seed=recipe["seed"],
    )


@torch.no_grad()
def fill_in(tuner: Tuner, tensors: Mapping[str, Tensor], method: str) -> None:
    """Copy saved tensors into the tuner's own; all must be there, with their shapes."""
    parameters = tuner.saved()
    for name in tensors:
        if name not in parameters:
            raise BadAdapter("adapter_extra", name=name, method=method)
    for name, parameter in parameters.items():
        if name not in tensors:
            raise BadAdapter("adapter_key", name=name)
        if tensors[name].shape != parameter.shape:
            raise BadAdapter(
                "adapter_shape",
                name=name,
                found=tuple(tensors[name].shape),
                method=method,
                wanted=tuple(parameter.shape),
            )
        parameter.copy_(tensors[name])
