"""The methods' records as plain data, kept beside the method files so that listing them loads no torch.

``python -m engine.methods_page`` writes the file. It names the sources that it was made from; where these have changed
since, the records are read from the methods themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "records.json"
SOURCES = (HERE, HERE.parent / "tuning" / "registry.py", HERE.parent / "tuning" / "tuner.py")


def records() -> list[dict[str, Any]]:
    """Return every method's record, in the registry's order."""
    if FILE.exists():
        kept = json.loads(FILE.read_text("utf8"))
        if kept["sources"] == fingerprint():
            return kept["methods"]
    return derived()


def write() -> None:
    """Write the file anew."""
    kept = {"sources": fingerprint(), "methods": derived()}
    FILE.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf8")


def fingerprint() -> str:
    """Return a hash of the files that records come from."""
    digest = hashlib.sha256()
    for source in SOURCES:
        for path in sorted(source.glob("*.py")) if source.is_dir() else [source]:
            digest.update(path.read_text("utf8").encode())
    return digest.hexdigest()[:16]


def derived() -> list[dict[str, Any]]:
    """Return the records as the methods' files have them."""
    from engine.tuning import registry

    return [_record(spec) for spec in registry.methods()]


def _record(spec: Any) -> dict[str, Any]:
    return {
        "id": spec.id,
        "name": spec.name,
        "family": spec.family,
        "sentence": spec.sentence,
        "paper": spec.paper,
        "runs_on": spec.runs_on,
        "count": spec.formula,
        "saved": spec.saved,
        "failures": list(spec.failures),
        "presets": {name: make(8).to_dict() for name, make in spec.presets.items()},
        "settings": [
            {
                "name": field.name,
                "type": str(field.type),
                "help": field.metadata.get("help", ""),
                "low": field.metadata.get("low"),
                "high": field.metadata.get("high"),
                "choices": list(field.metadata.get("choices") or ()),
            }
            for field in dataclasses.fields(spec.config)
        ],
    }
