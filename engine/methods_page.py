"""``python -m engine.methods_page`` writes docs/methods.md and engine/methods/records.json from the records."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from engine.backbones.base import Backbone
from engine.backbones.skeleton import meta_backbone
from engine.methods import count_formula, records
from engine.tuning import registry
from engine.tuning.registry import FAMILIES, PAPER_LINKS, MethodSpec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
REFERENCE = "openai/clip-vit-base-patch32"
"""Backbone of the numbers on the page."""
LABELS, SHOTS = 10, 4
HEAD = f"""# Tuning methods

Written by `python -m engine.methods_page` from the records in `engine/methods/`; a test fails when the two differ.
Numbers are those of CLIP ViT-B/32 with K = {LABELS} labels and {SHOTS} shots (N = {LABELS * SHOTS} training images)
and the preset `budget`.

Letters: K labels, N training images, P size of the shared space, Dt and Dv widths of the text and the image tower,
L layers, M trained tokens, r rank; *in* and *out* are the inputs and outputs of each targeted linear layer, and sums
are over those layers. In equations f are the image features, W the text features of the labels (of weight methods: a
layer's frozen weight, with input x), s is the logit scale, ∘ the elementwise product. Words of prompts count as one
token each. How accurate each method was on two sets of photographs: [accuracy.md](accuracy.md).
"""


def page() -> str:
    """Return the text of docs/methods.md."""
    backbone = meta_backbone(REFERENCE)
    specs = list(registry.methods())
    lines = [HEAD, "| method | family | trained | each step runs |", "|---|---|---:|---|"]
    for spec in specs:
        trained = spec.count(backbone.shape, spec.configure(shots=SHOTS), LABELS, LABELS * SHOTS)
        lines.append(f"| [{spec.name}](#{anchor(spec)}) | {spec.family} | {trained:,} | {spec.runs_on} |")
    for family in FAMILIES:
        lines += ["", f"## {family.capitalize()}"]
        for spec in specs:
            if spec.family == family:
                lines += ["", *section(spec, backbone)]
    return "\n".join(lines) + "\n"


def anchor(spec: MethodSpec) -> str:
    """Return the address of a method's heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading(spec).lower()).replace(" ", "-")


def heading(spec: MethodSpec) -> str:
    """Return name and id."""
    return f"{spec.name}: {spec.id}"


def section(spec: MethodSpec, backbone: Backbone) -> list[str]:
    """Return the lines about one method."""
    config = spec.configure(shots=SHOTS)
    count = spec.count(backbone.shape, config, LABELS, LABELS * SHOTS)
    known = count_formula.values(spec, config, backbone.shape, LABELS, LABELS * SHOTS)
    where = count_formula.in_words(known)
    needs = [f"- **Needs** {', '.join(sorted(spec.needs))}"] if spec.needs else []
    return [
        f"### {heading(spec)}",
        spec.sentence,
        "",
        f"- **Use it when:** {spec.use_when}",
        f"- **Equation:** `{spec.equation}`",
        f"- **Trained parameters:** {spec.formula} → **{count:,}**" + (f" ({where})" if where else ""),
        f"- **Each step runs:** {spec.recomputes.sentence}",
        f"- **Saved:** {spec.saved}",
        *needs,
        *(f"- **Known failure:** {failure}" for failure in spec.failures),
        f"- **Paper:** {linked(spec.paper)}",
        *settings(spec),
    ]


def linked(paper: str) -> str:
    """Return a paper with its ids as links."""
    for pattern, address in PAPER_LINKS:
        paper = re.sub(pattern, rf"[\1 \2]({address}\2)", paper)
    return paper


def settings(spec: MethodSpec) -> list[str]:
    """Return the table of a method's settings, with a column for each preset."""
    fields = dataclasses.fields(spec.config)
    if not fields:
        return []
    presets = {name: make(SHOTS) for name, make in spec.presets.items()}
    rows = ["", "| setting | meaning | allowed | " + " | ".join(presets) + " |", "|---" * (3 + len(presets)) + "|"]
    for field in fields:
        shown = " | ".join(cell(getattr(config, field.name)) for config in presets.values())
        rows.append(f"| `{field.name}` | {escaped(field.metadata['help'])} | {allowed(field)} | {shown} |")
    return rows


def allowed(field: dataclasses.Field) -> str:
    """Return what a setting may be."""
    low, high, choices = (field.metadata.get(key) for key in ("low", "high", "choices"))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return {"bool": "`true`, `false`"}.get(str(field.type), "text")


def cell(value: Any) -> str:
    """Return a setting's value in a table."""
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{escaped(text)}`" if text else "–"


def escaped(text: str) -> str:
    """Return a text that may stand in a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf8")
    records.write()
    print(PAGE)
