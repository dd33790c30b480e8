"""Table and words are written once for the page and the report."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from demo.words import LANGUAGES, Translator
from engine.compare import Difference, Standing
from engine.report import columns, words
from engine.report.columns import COLUMNS, Column, pointed_at
from engine.report.figures import Figures
from engine.report.pieces import Pieces
from engine.report.plots import COSTS
from engine.report.render import TEMPLATES, Templates
from engine.report.words import ENGLISH
from engine.types import Interval

NASTY = "<img src=x onerror=alert(1)>"


LORA = Standing(
    method="lora",
    rank=1,
    group=1,
    accuracy=Interval(0.841, 0.79, 0.88),
    p_group=1.0,
    over_zero_shot=Difference(0.5, 0.4, 0.6, 0.001),
    word="better",
    parameters=4_915_200,
    memory_bytes=224_000_000,
    memory_kind="forecast",
    seconds=80.3,
    usual_seconds=80.3,
    adapter_bytes=98_000,
    loss=None,
    seeds=2,
)


def ranking(*standings) -> SimpleNamespace:
    return SimpleNamespace(shots=8, seeds=(0, 1), tested=40, standings=standings)


def table(found, exact: bool, t=ENGLISH) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as text."""
    html = str(Pieces(t, exact).standings(found, found.standings, "lora"))

    def texts(tag: str, part: str) -> list[str]:
        cells = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", part, re.DOTALL)
        return [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in cells]

    head, body = html.split("<tbody>")
    return texts("th", head), [texts("td", row) for row in body.split("<tr") if "<td" in row]


@pytest.mark.parametrize("exact", [False, True], ids=["page", "report"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_column_is_one_line_for_page_and_report(exact, language, monkeypatch):
    monkeypatch.setattr(
        columns, "COLUMNS", (*COLUMNS, Column("novel", "Novelty", lambda s, figures: figures.count(12)))
    )
    head, rows = table(ranking(LORA), exact, Translator(language))
    assert head[-1] == "Novelty"
    assert rows[0][-1] == "12"
    assert len(head) == len(rows[0])


def test_every_column_and_cost_has_a_heading():
    known = words.table()
    assert not {f"compare.{column.key}" for column in COLUMNS} - known.keys()
    assert not {f"compare.{cost}" for cost in COSTS} - known.keys()


def test_the_page_is_short_and_the_report_exact():
    keys = ("Method", "Accuracy", "Against zero-shot", "Trained parameters", "Memory", "Time", "File")
    shown = []
    for exact in (False, True):
        head, (row,) = table(ranking(LORA), exact)
        cells = dict(zip(head, row, strict=True))
        shown.append([cells[key] for key in keys])
    assert shown == [
        ["★ LoRA Weights", "84 % 79–88", "▲ +50.0", "4.9 M", "224 MB", "1 min 20 s", "98 kB"],
        ["★ LoRA Weights", "84.1 % (79.0–88.0)", "▲ +50.0", "4,915,200", "224 MB", "80.3 s", "98 kB"],
    ]


def test_a_column_with_nothing_to_show_is_left_out():
    assert "Other labels" not in table(ranking(LORA), False)[0]
    head, rows = table(ranking(replace(LORA, loss=0.021), replace(LORA, method="tip_adapter")), False)
    assert [row[head.index("Other labels")] for row in rows] == ["−2.1", "—"]


def test_what_is_not_known_says_so():
    figures = Figures(ENGLISH)
    assert (figures.size(None), figures.percent(float("nan"))) == ("unknown", "—")


def test_the_pointer_shows_the_same_as_the_table():
    facts = pointed_at(replace(LORA, seconds=0.01), Figures(ENGLISH))
    assert ("Time", "<0.1 s") in facts and ("Against zero-shot", "▲ +50.0") in facts


@pytest.mark.parametrize("exact", [False, True], ids=["page", "report"])
def test_a_cell_is_escaped_unless_this_project_made_its_tags(exact, monkeypatch):
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, Column("shots", "Shots", lambda s, figures: NASTY)))
    html = str(Pieces(Translator("en"), exact).standings(ranking(LORA), [LORA], None))
    assert NASTY not in html and "&lt;img src=x" in html


def test_what_is_put_into_a_sentence_is_escaped_and_its_own_tags_stay():
    said = Templates(Translator("en")).t("compare.suspect", given=NASTY, suggested="b", chance="80")
    assert "<b>&lt;img src=x" in said and NASTY not in said


def test_templates_and_report_use_words_that_are_there():
    known = words.table()
    sources = [*TEMPLATES.glob("*.html"), *TEMPLATES.parent.glob("*.py")]
    used = {
        (path.name, key)
        for path in sources
        for key in re.findall(r"""(?:\bt|words)\(\s*["']([\w.]*\w)["'][,)]""", path.read_text(encoding="utf8"))
    }
    assert len(used) > 40
    assert not [(name, key) for name, key in used if key not in known]
