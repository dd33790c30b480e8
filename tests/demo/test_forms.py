"""Every method's config survives its form."""

from __future__ import annotations

import gradio as gr
import pytest

from demo import forms
from demo.words import LANGUAGES, Translator
from engine import registry
from engine.errors import BadConfig

SPECS = {spec.id: spec for spec in registry.methods()}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("method", SPECS)
def test_config_round_trips_through_its_form(method, language):
    spec, t = SPECS[method], Translator(language)
    for preset in spec.presets:
        config = spec.configure(preset, {}, 4)
        controls = forms.controls(spec, preset, {}, 4, t)
        assert [c.name for c in controls] == list(config.to_dict())
        components = {c.name: forms.component(c) for c in controls}
        values = {name: component.preprocess(component.value) for name, component in components.items()}
        assert forms.read(spec, "budget", values, 4) == config


@pytest.mark.parametrize("method", SPECS)
def test_controls_know_their_kind_and_meaning(method):
    kinds = {bool: "switch", int: "number", float: "number", str: "text"}
    for control in forms.controls(SPECS[method], "budget", {}, 8, Translator("en")):
        assert control.kind == ("choice" if control.choices else kinds[type(control.value)])
        assert control.help


def test_a_bad_value_is_explained_by_the_engine():
    with pytest.raises(BadConfig, match="between 1 and 256"):
        forms.read(SPECS["lora"], "budget", {"r": 0}, 8)


def test_text_of_several_lines_has_room_for_them():
    controls = forms.controls(SPECS["context_prompt"], "budget", {}, 8, Translator("en"))
    first, *others = forms.rows(controls)
    assert [control.name for control in first] == ["context"] and forms.component(first[0]).lines == 3
    assert sorted(c.name for row in [first, *others] for c in row) == sorted(c.name for c in controls)
    assert all(len(row) == 2 for row in others[:-1])
    typed = forms.read(SPECS["context_prompt"], "budget", {"context": "one thing\n\n two of them | a photo of"}, 8)
    assert typed.sentences == ("one thing", "two of them", "a photo of")


def test_a_form_drawn_anew_is_the_same_to_gradio():
    """The browser may answer for the form that was there: its components and listeners must still be known."""
    controls = forms.controls(SPECS["lora"], "budget", {}, 8, Translator("en"))
    seen: list[tuple[list[int], list[int], list[object]]] = []
    with gr.Blocks() as page:
        trigger = gr.Number(0)

        @gr.render(inputs=[trigger])
        def draw(_: float) -> None:
            values = {} if not seen else {"r": 3}
            fields = forms.controls(SPECS["lora"], "budget", values, 8, Translator("en"))
            components = [forms.component(field, method="lora") for field in fields]
            events = [c.change(print, c, None, key=("lora", f.name)) for c, f in zip(components, fields, strict=True)]
            seen.append(([c._id for c in components], [e["id"] for e in events], [c.value for c in components]))

    redraw(page)
    redraw(page)
    (first, listeners, old), (second, later, new) = seen
    assert first == second and listeners == later and len(set(first)) == len(controls)
    assert old != new and 3 in new


def redraw(page: gr.Blocks) -> None:
    """Draw what the page draws for a visitor."""
    from gradio.context import LocalContext

    LocalContext.blocks_config.set(page.default_config)
    page.default_config.renderables[0].apply(0)
