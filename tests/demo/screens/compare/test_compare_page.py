"""The Compare screen without a browser: what it runs, what it shows, and what a visitor can do then."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import gradio as gr
import pytest

from demo.page import HIDDEN, Page, Visit
from demo.screens.compare import html as pieces
from demo.screens.compare import service as comparing
from demo.screens.compare.results import pareto
from demo.screens.compare.screen import Compare
from demo.screens.tune import service as tuning
from demo.words import Translator
from demo.workspace import Workspace, Workspaces
from engine.checks.forgetting import Drift, Forgetting, Mixed
from engine.checks.label_errors import LabelErrorReport, Suspect
from engine.errors import BadLabels, Note
from engine.tuning import registry
from engine.types import BASELINE, Interval, Verdict

NASTY = '<img src=x onerror="alert(1)">'


class Balanced(HTMLParser):
    """Fails where a tag is not closed; collects tags and text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


DRIFT = Drift(0.125, 0.062)


@pytest.fixture
def workspace(tiny, task_images, tmp_path, monkeypatch) -> Workspace:
    """Three colours on the tiny backbone."""
    monkeypatch.setattr(tuning, "backbone_of", lambda workspace: tiny)
    found = Workspace("id", tmp_path / "visitor", images=task_images, backbone="tiny", shots=2)
    found.labels_text = f"red, green, blue = {NASTY}"
    return found


def compared(workspace: Workspace, methods=("tip_adapter",), shots=(1, 2), seeds=2) -> comparing.Compared:
    request = comparing.request_of(workspace, list(methods), list(shots), seeds)
    found = comparing.start(workspace, request, "en")
    events = list(comparing.run(workspace, found, threading.Event()))
    assert events[-1].kind == "finished"
    return found


@pytest.fixture
def screen():
    """The screen's components and a visit with their first values."""
    with gr.Blocks():
        page = Page(Workspaces())
        compare = Compare(page)
        compare.build()

    def visit(workspace: Workspace, language: str = "en", **limits) -> Visit:
        data = {component: component.value for component in compare.shown}
        data |= {
            control: limits.get(control.elem_id.removeprefix("limit-"), control.value) for control in compare.limits
        }
        return Visit(workspace, Translator(language), False, data)

    return compare, visit


def test_a_comparison_runs_once_and_is_reused(workspace):
    found = compared(workspace)
    assert {row.method for row in found.rows} == {"zero_shot_ensemble", "tip_adapter"}
    assert len(found.rows) == found.total == 2 * 2 * 2
    outlook = list(comparing.outlook(workspace, found.request))[-1]
    assert (outlook.runs, outlook.reused, outlook.complete) == (0, 8, True)
    assert all(row.reused for row in compared(workspace).rows)
    assert all(path.is_relative_to(workspace.folder) for path in workspace.folder.rglob("*.npz"))


def test_a_forecast_comes_before_anything_is_run(workspace):
    request = comparing.request_of(workspace, ["linear_probe"], [1, 2], 1)
    first, *_, last = comparing.outlook(workspace, request)
    assert not first.complete and last.complete
    assert (last.runs, last.reused) == (4, 0)
    assert last.seconds > 0
    assert not (workspace.folder / "results").exists()


def test_what_was_done_before_a_stop_is_ranked(workspace):
    request = comparing.request_of(workspace, ["tip_adapter"], [1], 1)
    found, stop = comparing.start(workspace, request, "en"), threading.Event()
    for event in comparing.run(workspace, found, stop):
        if event.row is not None:
            break  # as the device thread does once the stop is set
    comparing.end(found)
    assert found.comparison.stopped
    assert len(found.comparison.ranking.standings) == 1


def test_limits_change_the_advice_without_a_run(workspace):
    found = compared(workspace, ["tip_adapter", "linear_probe"], [2])
    rows = found.rows
    free = comparing.advice(found, comparing.limits(None, 0, None, 0, False))
    assert free.excluded == ()
    tight = comparing.advice(found, comparing.limits(None, None, 1, None, False))
    assert [method for method, _ in tight.excluded] == ["linear_probe"]
    nothing = comparing.advice(found, comparing.limits(1e-6, None, None, None, False))
    assert nothing.method is None
    assert found.rows is rows


def test_damage_enters_the_ranking(workspace):
    found = compared(workspace, ["clip_adapter"], [2], 1)
    half = (Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.4))
    comparing._take_in(
        found, Forgetting("clip_adapter", ("a",), ("b",), half, half, Verdict("worse", 0.01, 0, 9, 40), DRIFT)
    )
    standing = found.comparison.ranking.standing("clip_adapter")
    assert standing.loss == pytest.approx(0.2)
    keep = comparing.advice(found, comparing.limits(None, None, None, None, True))
    assert [method for method, _ in keep.excluded] == ["clip_adapter"]


def test_too_few_labels_to_hold_back_say_so(workspace):
    found = compared(workspace, ["clip_adapter"], [2], 1)
    with pytest.raises(BadLabels, match="at least 6 labels"):
        list(comparing.hold_back(workspace, found, ["clip_adapter"], threading.Event()))


@pytest.mark.parametrize(
    ("what", "images", "label"), [("relabel", 36, "green"), ("drop", 35, None), ("keep_label", 36, "red")]
)
def test_a_suspect_is_decided_with_one_click(workspace, what, images, label):
    found = compared(workspace, ["tip_adapter"], [2], 1)
    red = next(i for i, image in enumerate(found.images) if image.label == "red")
    found.check = LabelErrorReport({"tip_adapter": 0.9}, (Suspect(red, 0, 1, 0.9),))
    digest, version = found.images[red].digest, workspace.version
    comparing.decide(workspace, found, what)
    assert len(workspace.images) == images
    left = [image.label for image in workspace.images if image.digest == digest]
    assert left == ([label] if label else [])
    assert found.suspects == []
    assert (workspace.version != version) == (what != "keep_label")
    comparing.decide(workspace, found, what)  # nothing is open: nothing happens
    assert len(workspace.images) == images


def test_wrong_labels_are_looked_for_with_the_quick_methods(workspace, monkeypatch):
    from engine.checks import label_errors

    monkeypatch.setattr(label_errors, "quick_methods", lambda backbone: ("tip_adapter",))
    workspace.images = tuple(
        replace(image, label="green") if i == 0 else image for i, image in enumerate(workspace.images)
    )
    found = compared(workspace, ["tip_adapter"], [2], 1)
    list(comparing.check_labels(workspace, found, threading.Event()))
    assert set(found.check.agreement) == {"tip_adapter"}


def test_files_hold_what_is_on_screen(workspace):
    found = compared(workspace)
    advised = comparing.advice(found, comparing.limits(None, None, None, None, False))
    paths = comparing.write_files(workspace, found, advised, Translator("ko"))
    assert json.loads(paths["json"].read_text())["recommendation"]["method"] == advised.method
    assert len(paths["csv"].read_text().splitlines()) == 1 + len(found.rows)
    html = paths["html"].read_text(encoding="utf8")
    assert '<html lang="ko">' in html
    assert NASTY not in html and "&lt;img src=x" in html
    assert "--methods tip_adapter" in html


def test_the_screen_shows_a_comparison_in_both_languages(workspace, screen):
    compare, visit = screen
    found = compared(workspace, ["tip_adapter", "linear_probe"])
    for language in ("en", "ko"):
        updates = compare.view(visit(workspace, language))
        assert set(updates) <= set(compare.outputs)
        assert updates[compare.results.column]["elem_classes"] == []
        table = Balanced(updates[compare.results.table])
        names = {"en": ("Tip-Adapter", "Linear probe"), "ko": ("Tip-Adapter", "선형 프로브 (linear probe)")}[language]
        assert [table.text.count(name) for name in names] == [1, 1]
        sign = "●" if found.comparison.advice.method == BASELINE else "★"
        assert sign in Balanced(updates[compare.results.advice]).text
        assert len(updates[compare.results.pareto].data) == 3
        assert len(updates[compare.results.curve].data) == 3
    tight = compare.view(visit(workspace, parameters=1))
    assert "Beyond your limits" in tight[compare.results.table]
    assert "1 methods are beyond" in tight[compare.results.advice]
    assert found.comparison.advice.excluded == ()


def test_the_screen_before_any_images(tmp_path, screen):
    compare, visit = screen
    updates = compare.view(visit(Workspace("id", tmp_path / "empty")))
    assert "no photos yet" in updates[compare.outlook]
    assert "no photos yet" in updates[compare.results.advice]
    assert updates[compare.go]["interactive"] is False
    assert updates[compare.results.column]["elem_classes"] == HIDDEN


def test_the_advised_method_is_trained_on_all_photos(workspace, screen):
    compare, visit = screen
    compared(workspace, shots=[2], seeds=1)
    use, t = compare.view(visit(workspace))[compare.results.use], Translator("en")
    assert use["elem_classes"] == []
    advised = compare.results.advised(visit(workspace))
    assert use["value"] == t("compare.use_zero_shot") if advised == BASELINE else t.name(advised) in use["value"]
    comparing.choose(workspace, "tip_adapter")
    built = tuning.episode_of(workspace)
    assert workspace.method == "tip_adapter"
    assert built.cross_validated and built.final_support == built.labelled
    assert len(built.labelled) == len(workspace.images)


def test_zero_shot_as_the_advice_leaves_the_split_alone(workspace):
    comparing.choose(workspace, BASELINE)
    assert (workspace.method, workspace.shots) == (BASELINE, 2)


def test_the_search_takes_what_is_done_in_time(workspace, monkeypatch):
    recommended = {spec.id for spec in registry.methods() if spec.recommended}
    assert len(recommended) == 5
    monkeypatch.setattr(comparing, "SEARCH_SECONDS", 1e9)
    request = comparing.search(workspace)
    assert (set(request.methods), request.shots, request.seeds) == (recommended, (2,), (0, 1, 2))
    monkeypatch.setattr(comparing, "SEARCH_SECONDS", 0.0)
    request = comparing.search(workspace)
    assert (request.methods, request.seeds) == (("gda", "linear_probe"), (0,))


def test_a_changed_label_makes_the_comparison_stale(workspace, screen):
    compare, visit = screen
    compared(workspace, shots=[2], seeds=1)
    assert compare.view(visit(workspace))[compare.results.live] == ""
    workspace.changed()
    assert "only what changed is run" in compare.view(visit(workspace))[compare.results.live]


def test_rows_are_shown_as_they_come(workspace, screen):
    compare, _ = screen
    found = comparing.start(workspace, comparing.request_of(workspace, ["tip_adapter"], [1, 2], 1), "en")
    shown = []
    for event in comparing.run(workspace, found, threading.Event()):
        if event.row is not None:
            shown.append(
                Balanced(compare.results.arriving(found, Translator("en"))[compare.results.live]).tags.count("tr")
            )
    assert shown[0] == 2 and shown[-1] == 3  # a head and a row a method


def test_calibration_is_drawn_when_it_is_looked_at(workspace, screen):
    compare, visit = screen
    compared(workspace, shots=[2], seeds=1)
    updates = compare.results._sure(visit(workspace))
    assert Balanced(updates[compare.results.calibration]).text.count("Tip-Adapter") == 1
    names = [trace.name for trace in updates[compare.results.reliability].data if trace.name]
    assert names == ["zero-shot", "Tip-Adapter"]


# ---- pieces ---------------------------------------------------------------------------------------


class Nasty(Translator):
    """Names and reasons as bad as a user's."""

    def name(self, method: str) -> str:
        return NASTY

    def engine(self, key, values) -> str:
        return NASTY


def test_everything_typed_is_escaped():
    t = Translator("en")
    shared = pieces.shared(Nasty("en"))
    pair = (Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.4))
    damage = Forgetting("full", (NASTY,), (NASTY,), pair, pair, Verdict("worse", 0.01, 0, 9, 40), DRIFT)
    for html in (
        str(shared.forgetting([damage])),
        pieces.suspect("", NASTY, NASTY, NASTY, 0.8, 2, [NASTY], t),
        pieces.progress(1, 2, NASTY, 3.0, t),
        str(shared.failed([SimpleNamespace(method="x", error=Note("any", ()))])),
    ):
        found = Balanced(html)
        assert "img" not in found.tags
        assert NASTY in found.text


def test_damage_shows_how_far_embeddings_moved():
    t = Translator("en")
    pair, verdict = (Interval(0.5, 0.4, 0.6), Interval(0.7, 0.6, 0.8)), Verdict("close", 0.5, 3, 2, 40)
    found = Balanced(str(pieces.shared(t).forgetting([Forgetting("lora", ("a",), ("b",), pair, pair, verdict, DRIFT)])))
    assert "0.125" in found.text and "0.062" in found.text and "mean of 1 - cosine" in found.text


def test_the_mix_is_drawn_only_where_there_is_one(workspace, screen):
    compare, visit = screen
    results, found = compare.results, compared(workspace, ["clip_adapter"], [2], 1)
    pair = (Interval(0.5, 0.4, 0.6), Interval(0.7, 0.6, 0.8))
    plain = Forgetting("clip_adapter", ("a",), ("b",), pair, pair, Verdict("close", 0.5, 3, 2, 40), DRIFT)
    comparing._take_in(found, plain)
    updates = compare.view(visit(workspace))
    assert updates[results.mixing_part]["elem_classes"] == HIDDEN and updates[results.mixing] is None
    found.damage["full"] = replace(plain, method="full", curve=(Mixed(0.0, 0.4, 0.6), Mixed(1.0, 0.7, 0.3)))
    updates = compare.view(visit(workspace))
    assert updates[results.mixing_part]["elem_classes"] == []
    assert [tuple(line.y) for line in updates[results.mixing].data] == [(40, 70), (60, 30)]


def test_an_outlook_tells_what_is_there_already():
    t = Translator("en")
    assert "12 runs, about 40 s." in pieces.outlook(12, 0, 40, True, t)
    assert "3 runs are there already" in pieces.outlook(12, 3, 40, False, t)
    assert "Nothing is left to run" in pieces.outlook(0, 15, 0, True, t)


def test_a_method_of_unknown_memory_is_in_the_table(workspace, value_reader):
    request = comparing.request_of(workspace, [value_reader.id], [1], 1)
    assert list(comparing.outlook(workspace, request))[-1].seconds >= 0
    found = compared(workspace, (value_reader.id,), (1,), 1)
    ranking, t = found.comparison.ranking, Translator("ko")
    table = pieces.shared(t).standings(ranking, found.comparison.advice.ranking.standings, None)
    assert Balanced(str(table)).text.count("알 수 없음") == 1
    (said,) = [note for note in found.comparison.advice.notes if note.key == "advice_memory_unknown"]
    assert "Value reader" in t.engine(said.key, dict(said.values))
    for axis, drawn in (("memory", False), ("seconds", True)):
        figure = pareto(ranking, found.comparison.advice, axis, t, False, 800)
        assert (value_reader.name in str(figure.to_dict())) == drawn
