"""The drawing and the words of the Learn screen: well-formed, complete, in both languages, true to the records."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from demo.screens.learn import diagram, lessons
from demo.words import Translator
from demo.workspace import Workspace
from engine.costs.placement import tower_diagram as look
from engine.tuning import registry
from tests import families
from tests.demo.test_html import Text

METHODS = [spec.id for spec in registry.methods()]
SVG = "{http://www.w3.org/2000/svg}"


def draw(method: str, backbone, language: str = "en", **settings) -> ElementTree.Element:
    spec = registry.get(method)
    found = look(spec, spec.configure(settings=settings), backbone, 10, 40)
    svg = diagram.drawing(found, backbone, 10, Translator(language), f"<{method}>")
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(svg: ElementTree.Element, kind: str) -> list[str]:
    return [node.text or "" for node in svg.iter(f"{SVG}text") if node.get("class") == f"ctl-a-{kind}"]


def count(svg: ElementTree.Element, kind: str, tag: str = "rect") -> int:
    return sum(node.get("class") == f"ctl-a-{kind}" for node in svg.iter(SVG + tag))


@pytest.mark.parametrize("method", METHODS)
def test_numbers_in_the_drawing_sum_to_the_count(method, pocket):
    svg = draw(method, pocket)
    spec = registry.get(method)
    numbers = [int(text.replace(",", "")) for text in texts(svg, "count") if text != "shared"]
    assert sum(numbers) == spec.count(pocket.shape, spec.configure(), 10, 40)
    assert svg.find(f"{SVG}title").text == f"<{method}>" and svg.find(f"{SVG}desc").text
    assert svg.get("role") == "img"


@pytest.mark.parametrize("kind", ["siglip", "vit", "mobileclip", "resnet"])
def test_other_towers_can_be_drawn(kind, tmp_path):
    backbone = families.make_siglip(tmp_path) if kind == "siglip" else families.make_open_clip(kind, tmp_path)[0]
    for method in ("linear_probe", "full"):
        svg = draw(method, backbone, "ko")
        shape = backbone.shape
        rows = [text for text in texts(svg, "text") if text.isdigit()]
        assert len(rows) == shape.vision_layers + shape.text_layers


def test_what_is_kept_is_hatched(pocket):
    boxes = 4 * 2  # embedding, pooling, projection, features of both towers
    layers = pocket.shape.vision_layers + pocket.shape.text_layers
    assert count(draw("linear_probe", pocket), "kept") == boxes + layers
    assert count(draw("full", pocket), "kept") == 0
    assert count(draw("visual_prompt", pocket), "kept") == 5 + pocket.shape.text_layers


def test_what_is_trained_is_blue(pocket):
    layers = pocket.shape.vision_layers
    assert count(draw("visual_prompt", pocket), "trained", "circle") == 3
    assert count(draw("visual_prompt_deep", pocket), "trained", "circle") == 3 * layers
    lora = draw("lora", pocket, towers="vision", targets="q,v", r=2)
    assert count(lora, "trained") == 2 * layers
    whole = [node for node in draw("full", pocket).iter(f"{SVG}rect") if node.get("class") == "ctl-a-trained"]
    frozen = [node for node in draw("full", pocket).iter(f"{SVG}rect") if node.get("class") == "ctl-a-frozen"]
    cells = [node for node in whole if node.get("width") == frozen[0].get("width")]
    assert [node.attrib | {"class": ""} for node in cells] == [node.attrib | {"class": ""} for node in frozen]


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("method", METHODS)
def test_lessons_are_whole_and_in_one_language(method, language, tmp_path):
    spec, t = registry.get(method), Translator(language)
    html = lessons.lesson(Workspace("visitor", tmp_path / "visitor"), method, t)
    page = Text(re.sub(r"<(rect|path|circle|line) [^>]*/>", "", html))
    assert {"svg", "title", "desc", "table"} <= set(page.tags)
    assert spec.equation in page.said and t.name(method) in page.said
    assert t.method(f"{method}.use_when", spec.use_when) in page.said
    assert bool(re.search("[가-힣]", page.said)) == (language == "ko")
    assert not re.search(r"""(?:src|href)=["'](?!https://(?:arxiv\.org/abs|openreview\.net)/)""", html)


def test_counts_are_for_the_visitors_own_labels_and_images(tmp_path):
    workspace = Workspace("visitor", tmp_path / "visitor")
    assert lessons.numbers(workspace) == (10, 40)
    workspace.labels_text = "cat, dog, bird"
    assert lessons.numbers(workspace) == (10, 40)  # no images yet


def test_a_method_that_cannot_run_says_why(tmp_path, monkeypatch):
    backbone = families.make_open_clip("resnet", tmp_path)[0]
    monkeypatch.setattr(lessons.tuning, "backbone_of", lambda workspace: backbone)
    html = lessons.lesson(Workspace("visitor", tmp_path / "visitor"), "visual_prompt", Translator("en"))
    assert "Not on this backbone" in html and "<svg" not in html
    assert "Jia et al. 2022" in html


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_glossary_explains_every_word(language):
    said = Text(lessons.glossary(Translator(language))).said
    for word in lessons.GLOSSARY:
        assert Translator(language)(f"glossary.{word}.text") in said


def test_a_method_that_cannot_be_drawn_keeps_its_lesson(value_reader, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(lessons.tuning, "backbone_of", lambda workspace: tiny)
    for language, words in (("en", "trains cannot be drawn"), ("ko", "그릴 수 없습니다")):
        page = lessons.lesson(Workspace("id", tmp_path), value_reader.id, Translator(language))
        assert page.count(words) == 1 and "<svg" not in page and value_reader.name in page
