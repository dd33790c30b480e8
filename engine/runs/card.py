"""Model cards: what the Hugging Face hub reads at the top, and what people read below."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.backbones.entries import ENTRIES, HUB_NAME
from engine.tuning import registry

LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0"}
"""Licence of a backbone, as the catalogue says it -> as the hub does."""
ANY_LABELS, OWN_LABELS = "zero-shot-image-classification", "image-classification"
"""The hub's names of the task: of towers that read any label, and of a model for the labels it was trained on."""


def hub_id(backbone: str) -> str | None:
    """Return the hub's name of the repository that a backbone comes from; None where it comes from elsewhere."""
    entry = next((entry for entry in ENTRIES if entry.id == backbone), None)
    name = (entry and entry.repo) or backbone.removeprefix("hf-hub:")
    return name if re.fullmatch(HUB_NAME, name) else None


def licence(backbone: str) -> str | None:
    """Return a backbone's licence in the hub's words, which what is made from it keeps; None where it is not known."""
    return next((LICENCES.get(entry.licence) for entry in ENTRIES if entry.id == backbone), None)


def front_matter(recipe: Mapping[str, Any], library: str, relation: str, tags: Sequence[str] = ()) -> str:
    """Return the YAML that the hub reads: base model, licence, task, and the accuracy that was measured.

    Args:
        recipe: of the run, as ``adapter.json`` holds it.
        library: the hub's name of the library that reads the files.
        relation: of the files to the base model, ``adapter``, ``finetune`` or ``quantized``.
    """
    from huggingface_hub import EvalResult, ModelCardData

    spec, backbone = registry.get(recipe["method"]), recipe["backbone"]
    base = hub_id(backbone)
    task = ANY_LABELS if spec.family == "weights" else OWN_LABELS
    low, high = recipe["interval95"]["tuned"]
    accuracy = EvalResult(
        task_type=OWN_LABELS,
        dataset_type="images",
        dataset_name=f"{recipe['test']} images that did not train, {len(recipe['labels'])} labels",
        metric_type="accuracy",
        metric_value=round(recipe["accuracy"]["tuned"], 4),
        metric_name=f"accuracy (95 % interval {low:.4f} to {high:.4f})",
    )
    card = ModelCardData(
        library_name=library,
        license=licence(backbone),
        base_model=base,
        base_model_relation=relation if base else None,
        pipeline_tag=task,
        tags=["clip", "few-shot", spec.id, *tags],
        model_name=f"{spec.name} on {backbone}",
        eval_results=[accuracy] if recipe["test"] else None,
    )
    return f"---\n{card.to_yaml()}\n---\n"


def measured(recipe: Mapping[str, Any]) -> str:
    """Return accuracy, verdict and labels of a run in Markdown."""
    accuracy, bounds = recipe["accuracy"], recipe["interval95"]["tuned"]
    labels = "\n".join(f"- {label['name']} (read as: {label['prompt']})" for label in recipe["labels"])
    return f"""| on {recipe["test"]} test images | accuracy |
|---|---|
| zero-shot, one template | {accuracy["zero_shot"]:.1%} |
| zero-shot, prompt ensemble | {accuracy["zero_shot_ensemble"]:.1%} |
| tuned | {accuracy["tuned"]:.1%} (95 % interval {bounds[0]:.1%} to {bounds[1]:.1%}) |

Verdict against the prompt ensemble: {recipe["verdict"]} (p = {recipe["p_value"]:.3g}).
Trained parameters: {recipe["trainable_parameters"]:,} of {recipe["total_parameters"]:,}.
Training images: {recipe["support"]}, seed {recipe["seed"]}.

## Labels
{labels}
"""


def heading(recipe: Mapping[str, Any]) -> str:
    """Return title and what the method does."""
    spec = registry.get(recipe["method"])
    return f"# {spec.name} on {recipe['backbone']}\n\n{spec.sentence} ({spec.paper})\n\n"


def adapter_card(recipe: Mapping[str, Any], in_peft: bool) -> str:
    """Return the card of an adapter's folder.

    Args:
        in_peft: whether PEFT alone reads the folder too.
    """
    return f"""{front_matter(recipe, "peft" if in_peft else "clip-tuning-lab", "adapter", ["clip-tuning-lab"])}{
        heading(recipe)
    }{measured(recipe)}
## Use
`python -m engine predict --adapter FOLDER IMAGE...`, or load the zip in the page.

## Settings
```json
{json.dumps({"config": recipe["config"], "chosen": recipe["chosen"], "versions": recipe["versions"]}, indent=1)}
```
"""
