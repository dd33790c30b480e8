"""A method's config dataclass <-> controls. What a field allows comes from the field itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

    from demo.words import Translator
    from engine.registry import MethodSpec


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
    """What a text may name, a key of what :func:`component` is given."""


def controls(spec: MethodSpec, preset: str, settings: Mapping[str, Any], shots: int, t: Translator) -> list[Control]:
    """The controls of a method, showing a preset with some fields replaced. Raises BadConfig."""
    config = spec.configure(preset, settings, shots)
    return [control(spec.id, field, getattr(config, field.name), t) for field in dataclasses.fields(config)]


def control(method: str, field: dataclasses.Field, value: Any, t: Translator) -> Control:
    """The control of one field."""
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


def rows(fields: list[Control]) -> list[list[Control]]:
    """Controls two a row; a text of several lines has its row to itself, before the others."""
    wide, narrow = ([field for field in fields if (field.lines > 1) == alone] for alone in (True, False))
    return [[field] for field in wide] + [narrow[first : first + 2] for first in range(0, len(narrow), 2)]


def component(
    control: Control, offered: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({}), method: str = ""
) -> gr.components.Component:
    """The gradio component of a control. Drawn anew for the same method it is the same component to gradio, so that a
    value that was sent meanwhile finds it; what it shows is the new value.

    Args:
        offered: (title, name) of what a text may name: of ``tasks`` several, of ``teachers`` one.
    """
    import gradio as gr

    common = {
        "label": control.name,
        "info": control.help,
        "elem_id": f"setting-{control.name}",
        "min_width": 130,
        "interactive": True,
        "key": (method, control.name),
        "preserved_by_key": None,
    }
    if control.kind == "switch":
        return gr.Checkbox(control.value, **common)
    if control.kind == "choice":
        return gr.Dropdown(list(control.choices), value=control.value, **common)
    if control.offers == "tasks":
        chosen, choices = [name for name in control.value.split(",") if name], list(offered.get("tasks", ()))
        return gr.Dropdown(choices, value=chosen, multiselect=True, allow_custom_value=True, **common)
    if control.offers:
        choices = list(offered.get(control.offers, ()))
        return gr.Dropdown(choices, value=control.value, allow_custom_value=True, **common)
    if control.kind == "number":  # limits are the engine's to explain, in a sentence
        return gr.Number(control.value, precision=0 if control.whole else None, step=None, **common)
    return gr.Textbox(control.value, lines=control.lines, max_lines=10 if control.lines > 1 else 1, **common)


def plain(value: Any) -> Any:
    """A control's value as a config takes it: several names as one text."""
    return ",".join(value) if isinstance(value, list) else value


def read(spec: MethodSpec, preset: str, values: Mapping[str, Any], shots: int) -> Any:
    """The config that the controls' values make. Raises BadConfig."""
    return spec.configure(preset, {name: plain(value) for name, value in values.items()}, shots)
