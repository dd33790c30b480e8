"""What all forms share: the source, the labels' files, and what an export reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from engine.errors import Note
from engine.export.plain import Plain
from engine.paths import portable
from engine.runs.store import Adapter
from engine.tuning import registry
from engine.tuning.outcome import Outcome
from engine.tuning.tuner import Tuner, TunerContext

LABELS, LABEL_WEIGHTS, CARD = "labels.json", "labels.safetensors", "README.md"


@dataclass(frozen=True, eq=False)
class Source:
    """A tuned model and what is known of it."""

    tuner: Tuner
    setting: TunerContext
    recipe: Mapping[str, Any]
    """Of its run, as ``adapter.json`` holds it."""

    @classmethod
    def of(cls, ready: Adapter | Outcome) -> Source:
        """Return a loaded adapter or a finished run as a source."""
        if isinstance(ready, Adapter):
            return cls(ready.tuner, ready.setting, ready.recipe)
        recipe = ready.result.to_json() | {
            "backbone": portable(ready.setting.backbone.id),
            "templates": list(ready.setting.templates),
        }
        return cls(ready.tuner, ready.setting, recipe)

    @property
    def method(self) -> str:
        """The method's id."""
        return self.recipe["method"]

    @property
    def title(self) -> Note:
        """The method's name, inside a sentence."""
        return registry.get(self.method).title


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to the tuned model."""

    to: str
    files: Mapping[str, int]
    """Name -> bytes."""
    difference: float | None = None
    """Largest difference of a label's probability, read again by the other library, on images of random colours."""
    notes: tuple[Note, ...] = ()
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Form of the numbers (``fp32``, ``int8``) -> share of the given images that are right; empty where none were
    given."""
    tested: int = 0
    """Number of these images."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "to": self.to,
            "files": dict(self.files),
            "bytes": sum(self.files.values()),
            "difference": self.difference,
            "notes": [str(note) for note in self.notes],
            "accuracy": dict(self.accuracy),
            "tested": self.tested,
        }


def write_labels(plain: Plain, source: Source, folder: Path) -> None:
    """Write the labels, and the linear layer that scores them, beside a model."""
    tensors = {"weight": plain.weight.cpu().contiguous(), "bias": plain.bias.cpu().contiguous()}
    save_file(tensors, folder / LABEL_WEIGHTS, metadata={"format": "pt"})
    (folder / LABELS).write_text(json.dumps(labels_json(source, plain.prompts), ensure_ascii=False, indent=1), "utf8")


def labels_json(source: Source, prompts: tuple[str, ...] | None) -> dict[str, Any]:
    """Return what readers of a model must know of its labels."""
    return {
        "labels": [label.name for label in source.setting.labels],
        "prompts": list(prompts) if prompts else None,
        "activation": "softmax" if source.setting.backbone.bias is None else "sigmoid",
    }


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file of a folder."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
