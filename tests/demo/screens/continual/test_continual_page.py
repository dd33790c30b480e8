"""The Continual screen without a browser: what it runs, what it shows, stopping, and adding a label."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest

from demo.page import Page, Visit
from demo.screens.continual import html as pieces
from demo.screens.continual import service
from demo.screens.continual.screen import Continual
from demo.screens.tune import service as tuning
from demo.words import Translator
from demo.workspace import Workspace, Workspaces
from engine.errors import BadConfig, BadLabels, LabError
from engine.types import Progress
from tests.tiny import picture

NASTY = '<img src=x onerror="alert(1)">'


@pytest.fixture
def plain(tiny, task_images, tmp_path, monkeypatch) -> Workspace:
    """Three colours on the tiny backbone."""
    monkeypatch.setattr(tuning, "backbone_of", lambda workspace: tiny)
    found = Workspace("id", tmp_path / "visitor", images=task_images, backbone="tiny", shots=4)
    found.labels_text = "red, green, blue"
    return found


@pytest.fixture
def screen():
    """The screen and a function that makes a visit with some of its values."""
    with gr.Blocks():
        page = Page(Workspaces())
        continual = Continual(page)
        continual.build()

    def visit(workspace: Workspace, language: str = "en", **values) -> Visit:
        parts = ("number", "by_hand", "strategies", "orders", "lwf", "label", "photos", "to")
        data = {getattr(continual, name): values.get(name, getattr(continual, name).value) for name in parts}
        return Visit(workspace, Translator(language), False, data)

    return continual, visit


def photos(folder, count=4) -> list[str]:
    folder.mkdir()
    for i in range(count):
        picture((135, 135, 80), 900 + i).save(folder / f"{i}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def test_matrices_fill_step_by_step_and_the_end_has_advice(plain, screen):
    continual, visit = screen
    asked = visit(plain, strategies=["prototypes", "sequential", "joint"], number=3, orders=2)
    updates = list(continual._learn(asked))
    assert updates[0][continual.stop]["interactive"] and not updates[-1][continual.stop]["interactive"]
    last = updates[-1]
    assert last[continual.matrices].count("<figure") == 3 and last[continual.table].count("<tr>") == 4
    assert "Take " in last[continual.advice] and "±" in last[continual.table]
    assert {order for order, _ in plain.continual.rows} == {0, 1}
    korean = continual.view(visit(plain, "ko"))
    assert "을" in korean[continual.advice] or "를" in korean[continual.advice]
    said = re.sub(r"<[^>]*>", " ", korean[continual.advice] + korean[continual.table] + korean[continual.matrices])
    assert not re.search(r"[A-Za-z]{3,} [A-Za-z]{3,} [A-Za-z]{3,}", said)


def test_stop_keeps_what_is_done(plain):
    request = service.Request(("prototypes", "sequential"), "3", 1, 0.0)
    found, stop = service.start(plain, request), threading.Event()
    for item in service.run(plain, found, request, stop):
        if found.now == "sequential" and isinstance(item, Progress) and item.stage == "train" and item.done > 60:
            stop.set()
    assert not found.rows[0, "prototypes"].stopped and found.rows[0, "sequential"].stopped
    assert len(found.rows[0, "sequential"].matrix) >= 1


def test_bad_input_is_told_and_nothing_is_lost(plain, screen):
    continual, visit = screen
    for values, words in (
        ({"strategies": []}, "No strategy is chosen"),
        ({"number": 9}, "9 steps and only 3 labels"),
        ({"by_hand": "red; red, blue"}, "red is in step 1 and in step 2"),
    ):
        with pytest.raises((BadLabels, BadConfig), match=words):
            list(continual._learn(visit(plain, **values)))
    assert plain.continual is None


def test_names_are_escaped(plain):
    request = service.Request(("image_prompt_pool",), "3", 1, 0.0)
    found = service.start(plain, request)
    list(service.run(plain, found, request, threading.Event()))
    t = Translator("en")
    row = found.rows[0, "image_prompt_pool"]
    nasty = replace(row, labels=(NASTY, *row.labels[1:]), step_labels=((NASTY,), *row.step_labels[1:]))
    chosen = replace(row.selection, began_as=(NASTY, *row.selection.began_as[1:]))
    html = pieces.matrix(nasty, t) + pieces.legend([nasty], t) + pieces.selection("l2p", nasty.labels, chosen, t)
    assert 'onerror="' not in html.replace("&quot;", "'") and html.count("<img") == 6  # 3 prompts, before and after
    assert "Prompt" in html and ("depends" in html or "depend on" in html)


def test_a_prompt_that_others_choose_is_named():
    from engine.continual.results import Selection

    counts = np.array([[2, 8], [9, 1]])
    html = pieces.selection(
        "l2p", ("apple", "pear"), Selection(counts, (10, 10), 9.0, 0.002, 0.6, ("apple", "pear")), Translator("en")
    )
    assert "Prompt 1 began as apple, but pear chooses it most: 90 % of its photos, against 20 % of apple." in html
    assert "The choice depends on the label (p = 0.002" in html


def test_a_label_is_added_to_what_was_learned(plain, screen, tmp_path):
    continual, visit = screen
    list(continual._learn(visit(plain, strategies=["gaussian"], number=3, orders=1)))
    more = visit(plain, label="yellow", photos=photos(tmp_path / "p"), to="gaussian")
    last = list(continual._add(more))[-1]
    assert "the new label yellow is right on" in last[continual.added] and "2 test photos" in last[continual.added]
    assert plain.continual.added.step_labels[-1] == ("yellow",) and len(plain.continual.added.matrix) == 4
    said = list(continual._add(more))[-1][continual.page.notice]
    assert "yellow was learned before, in step 4" in said.replace("<", "")


def test_a_label_is_added_where_nothing_was_learned_yet(plain, screen, tmp_path):
    continual, visit = screen
    last = list(continual._add(visit(plain, label="yellow", photos=photos(tmp_path / "p"), to="prototypes")))[-1]
    assert "yellow" in last[continual.added]
    assert [len(names) for names in plain.continual.added.step_labels] == [3, 1]


@pytest.mark.parametrize(
    ("label", "count", "words"), [("", 2, "no name yet"), ("x", 0, "no photos"), ("x", 1, "label x has 1")]
)
def test_adding_needs_a_name_and_two_photos(label, count, words, plain, tmp_path):
    paths = photos(tmp_path / "p", count)
    with pytest.raises(LabError, match=words):
        list(service.add_label(plain, "prototypes", label, paths, threading.Event()))


def test_strategies_are_explained_in_both_languages():
    for language in ("en", "ko"):
        html = pieces.explained(service.strategies(), Translator(language))
        assert html.count("<dt>") == len(service.strategies()) and "arxiv.org/abs/2112.08654" in html
