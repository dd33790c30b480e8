"""Every method's config survives its form."""

from __future__ import annotations

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
