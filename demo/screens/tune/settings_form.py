"""A method's settings as a form, in HTML. What a field allows comes from the config's field itself.

The form is one ``gr.HTML`` whose ``input`` event tells the values of all settings that were changed since it was drawn
(``assets/style/forms.js``), so that no change depends on one before. Components made anew for every method
(``gr.render``) lose what is typed while they are being made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.words import Translator
    from engine.tuning.registry import MethodSpec


@dataclass(frozen=True)
class Control:
    """One field of a config as a control."""

    name: str
    kind: str
    """``switch``, ``choice``, ``number`` or ``text``."""
    value: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    whole: bool = False
    """Whether a number has no decimals."""
    lines: int = 1
    """Lines of a text."""
    offers: str = ""
    """What a text may name, a key of what :func:`form` is given."""


def controls(spec: MethodSpec, preset: str, settings: Mapping[str, Any], shots: int, t: Translator) -> list[Control]:
    """Return the controls of a method, showing a preset with some fields replaced. Raises BadConfig."""
    config = spec.configure(preset, settings, shots)
    return [control(spec.id, field, getattr(config, field.name), t) for field in dataclasses.fields(config)]


def control(method: str, field: dataclasses.Field, value: Any, t: Translator) -> Control:
    """Return the control of one field."""
    low, high, choices = (field.metadata.get(key) for key in ("low", "high", "choices"))
    kind = {"bool": "switch", "int": "number", "float": "number"}.get(str(field.type), "text")
    meaning = t.setting(method, field.name, field.metadata.get("help", ""))
    return Control(
        field.name,
        "choice" if choices else kind,
        value,
        meaning,
        low,
        high,
        tuple(choices or ()),
        str(field.type) == "int",
        field.metadata.get("lines", 1),
        field.metadata.get("offers", ""),
    )


Offered = Mapping[str, Sequence[tuple[str, str]]]
"""(title, name) of what a text may name: of ``tasks`` several, of ``teachers`` one."""


def form(method: str, preset: str, fields: Sequence[Control], offered: Offered, drawn: int) -> str:
    """Return the controls as HTML; texts of several lines first, each in a row of its own.

    Args:
        drawn: a number of its own for every drawing, so that the page shows each, and not what was typed before.
    """
    parts = sorted(fields, key=lambda control: control.lines == 1)
    rows = "".join(_field(control, offered) for control in parts)
    return f'<div class="ctl-form" data-method="{method}" data-preset="{preset}" data-drawn="{drawn}">{rows}</div>'


def _field(control: Control, offered: Offered) -> str:
    name = escape(control.name)
    owner = f'id="setting-{name}" data-setting="{name}"'
    title, about = f"<span>{name}</span>", f'<small id="about-{name}">{escape(control.help)}</small>'
    if control.offers == "tasks":
        boxes = _boxes(control, offered.get("tasks", ()))
        return f'<fieldset {owner} class="ctl-field ctl-wide"><legend>{name}</legend>{about}{boxes}</fieldset>'
    wide = " ctl-wide" if control.lines > 1 else ""
    if control.kind == "switch":
        box = f'<input type="checkbox" aria-describedby="about-{name}"{" checked" if control.value else ""}>'
        return f'<div {owner} class="ctl-field"><label class="ctl-check">{box}{title}</label>{about}</div>'
    label = f'<label for="value-{name}">{title}</label>'
    return f'<div {owner} class="ctl-field{wide}">{label}{about}{_input(control, offered)}</div>'


def _input(control: Control, offered: Offered) -> str:
    name, value = escape(control.name), escape(str(control.value))
    common = f'id="value-{name}" aria-describedby="about-{name}" autocomplete="off"'
    if control.offers or control.kind == "choice":
        rows = list(offered.get(control.offers, ())) or [(str(choice), str(choice)) for choice in control.choices]
        rows += [] if control.value in [row for _, row in rows] else [(str(control.value), str(control.value))]
        options = "".join(_option(title, row, row == control.value) for title, row in rows)
        return f"<select {common}>{options}</select>"
    if control.kind == "number":  # limits are the engine's to explain, in a sentence
        step = "1" if control.whole else "any"
        return f'<input {common} type="number" step="{step}" value="{value}">'
    if control.lines > 1:
        return f'<textarea {common} rows="{control.lines}" spellcheck="false">\n{value}</textarea>'
    return f'<input {common} type="text" spellcheck="false" value="{value}">'


def _option(title: str, value: str, chosen: bool) -> str:
    return f'<option value="{escape(value)}"{" selected" if chosen else ""}>{escape(title)}</option>'


def _boxes(control: Control, tasks: Sequence[tuple[str, str]]) -> str:
    chosen = [name for name in control.value.split(",") if name]
    unknown = [(name, name) for name in chosen if name not in [known for _, known in tasks]]
    return "".join(
        f'<label class="ctl-check"><input type="checkbox" value="{escape(name)}"{" checked" if name in chosen else ""}>'
        f"<span>{escape(title)}</span></label>"
        for title, name in [*tasks, *unknown]
    )
