"""Every method's settings as a form; that a browser reads the same values from it is in test_browser_forms.py."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import gradio as gr
import pytest

from demo.page import Page, Visit
from demo.screens.tune import settings_form
from demo.screens.tune.method import Method
from demo.words import LANGUAGES, Translator
from engine.tuning import registry
from tests.demo.test_workspace import (
    filled,  # noqa: F401
    workspaces,  # noqa: F401
)

SPECS = {spec.id: spec for spec in registry.methods()}


@pytest.mark.parametrize("method", SPECS)
def test_controls_know_their_kind_and_meaning(method):
    kinds = {bool: "switch", int: "number", float: "number", str: "text"}
    for control in settings_form.controls(SPECS[method], "budget", {}, 8, Translator("en")):
        assert control.kind == ("choice" if control.choices else kinds[type(control.value)])
        assert control.help


def drawn(method: str, settings=None, offered=None, preset="budget", language="en") -> str:
    controls = settings_form.controls(SPECS[method], preset, settings or {}, 8, Translator(language))
    return settings_form.form(method, preset, controls, offered or {}, 1)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("method", SPECS)
def test_every_setting_stands_in_the_form_with_its_meaning(method, language):
    spec, t = SPECS[method], Translator(language)
    for preset in spec.presets:
        form = ElementTree.fromstring(html_as_xml(drawn(method, preset=preset, language=language)))
        shown = {field.get("data-setting"): field for field in form}
        config = spec.configure(preset, {}, 8).to_dict()
        assert set(shown) == set(config)
        for field in dataclasses.fields(spec.config):
            about = shown[field.name].find("small").text
            assert about == t.setting(spec.id, field.name, field.metadata.get("help", "")) and about


def test_text_of_several_lines_comes_first_and_has_room_for_them():
    form = ElementTree.fromstring(html_as_xml(drawn("context_prompt")))
    assert form[0].get("data-setting") == "context" and "ctl-wide" in form[0].get("class")
    assert form[0].find("textarea").get("rows") == "3"
    typed = SPECS["context_prompt"].configure("budget", {"context": "one thing\n\n two of them | a photo of"}, 8)
    assert typed.sentences == ("one thing", "two of them", "a photo of")


def test_what_a_visitor_typed_is_shown_as_text():
    for value in ('"><script>alert(1)</script>', "</textarea><b>", "a & b"):
        form = drawn("context_prompt", {"context": value})
        assert "<script" not in form and "<b>" not in form
        assert ElementTree.fromstring(html_as_xml(form)).find(".//textarea").text.strip() == value


def test_tasks_are_boxes_and_teachers_a_menu():
    offered = {"tasks": [("A", "a b"), ("C", "c"), ("D", "d")]}
    form = ElementTree.fromstring(html_as_xml(drawn("multitask_prompt", {"sources": "c,gone"}, offered)))
    boxes = form.findall(".//fieldset[@data-setting='sources']//input")
    assert [(box.get("value"), "checked" in box.attrib) for box in boxes] == [
        ("a b", False),
        ("c", True),
        ("d", False),
        ("gone", True),
    ]
    form = ElementTree.fromstring(html_as_xml(drawn("distill", {}, {"teachers": [("Zero-shot", "zero_shot")]})))
    menu = form.findall(".//*[@data-setting='teacher']/select/option")
    assert [(o.text, o.get("value"), "selected" in o.attrib) for o in menu] == [
        ("Zero-shot", "zero_shot", False),
        ("linear_probe", "linear_probe", True),
    ]


def test_a_change_that_was_overtaken_or_is_of_another_form_is_left_alone(filled):  # noqa: F811
    with gr.Blocks():
        method = Method(Page(None))
        method.build()

    def tell(r: int, when: list[int], preset: str = "budget", id: str = "lora") -> dict:
        told = {"method": id, "preset": preset, "values": {"r": r}, "when": when}
        return method.change(Visit(filled, Translator("en"), None, {}, gr.EventData(None, told)))

    filled.method = "lora"
    assert tell(2, [1, 2]) and filled.settings == {"r": 2}
    for late in ([1, 1], "paper"), ([1, 1], "budget"), ([1, 3], "paper"), ([1, 3], "budget", "dora"):
        assert tell(4, *late) == {} and filled.settings == {"r": 2}
    assert tell(4, [2, 1]) and filled.settings == {"r": 4}
    assert "r = 0" in tell(0, [2, 2])[method.problem] and filled.settings == {"r": 4}


def html_as_xml(html: str) -> str:
    """What the forms write is XML but for attributes without a value and tags without an end."""
    html = re.sub(r"<(input)([^>]*)>", r"<\1\2/>", html)
    return re.sub(r" (checked|selected)(?=[ />])", r' \1=""', html)
