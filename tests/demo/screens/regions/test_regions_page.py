"""The Regions screen on a segmenter that knows colours: marking, undoing, scores, pieces, files, both languages."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from demo.page import HIDDEN, Page, Visit
from demo.screens.regions import html as regions_html
from demo.screens.regions import scoring
from demo.screens.regions import service as regioning
from demo.screens.regions.screen import Regions, segmenter_choices
from demo.words import Translator
from demo.workspace import Workspace, Workspaces
from engine.errors import BadImage, BadRegion, Note, SegmenterUnavailable
from engine.regions import catalog
from engine.regions.marks import Style
from engine.regions.scores import Guess, RegionScore
from engine.regions.shortcut import Reading, Shortcut
from engine.types import Label
from tests.demo.screens.compare.test_compare_page import NASTY, Balanced
from tests.engine.regions.colour_sam import colour_segmenter, shapes

RED, BLUE, GREEN = (20 / 160, 20 / 120), (40 / 160, 40 / 120), (120 / 160, 95 / 120)
"""Places on the red square, on the blue dot inside it, and on the green bar."""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A visitor with the shapes on a segmenter, and no labels."""
    segmenter = colour_segmenter()
    monkeypatch.setattr(catalog, "load", lambda id="pocket", device=None: segmenter)
    found = Workspace("id", tmp_path / "visitor")
    shapes().save(tmp_path / "shapes.png")
    regioning.take_file(found, str(tmp_path / "shapes.png"))
    return found


@pytest.fixture
def marked(workspace):
    return regioning.marked_of(workspace)


class Painter:
    """Scores by colour: how red and how blue a picture is; the tuned model sees them the other way round."""

    def __init__(self, tuned: bool = False):
        self.labels, self.tuned = (Label("red", "red"), Label("blue", "blue")), tuned
        self.backbone, self.asked = SimpleNamespace(id="painter"), 0

    def probabilities(self, pictures):
        self.asked += len(pictures)
        means = np.array([np.asarray(picture, float).reshape(-1, 3).mean(0)[[0, 2]] for picture in pictures])
        rows = torch.softmax(torch.from_numpy(means / 10), 1).numpy()
        return {"zero_shot": rows, **({"tuned": rows[:, ::-1]} if self.tuned else {})}


@pytest.fixture
def painter(workspace, monkeypatch):
    """Labels, and a scorer in place of a backbone."""
    found, marked = Painter(), regioning.marked_of(workspace)
    workspace.labels_text = "red, blue"

    def scorer_of(workspace):
        marked.scorer = found
        return found

    monkeypatch.setattr(scoring, "scorer_of", scorer_of)
    return found


def numbers(marked):
    return [region.number for region in marked.shown]


# ---- marking --------------------------------------------------------------------------------------


def test_a_click_marks_what_lies_there(marked):
    regioning.click(marked, *RED, "new")
    (region,) = marked.shown
    assert (region.number, region.area, marked.step.chosen) == (1, 60 * 60 - 20 * 20, 1)
    regioning.click(marked, *GREEN, "new")
    assert numbers(marked) == [1, 2] and marked.chosen.area == 60 * 30


def test_other_sizes_of_a_click_come_one_after_the_other(marked):
    regioning.click(marked, *BLUE, "new")
    assert regioning.can_resize(marked)
    areas = []
    for _ in range(2):
        areas.append(marked.chosen.area)
        regioning.other_size(marked)
    assert areas == [20 * 20, 160 * 120] and marked.chosen.area == 20 * 20
    assert numbers(marked) == [1]


def test_more_and_less_shape_the_chosen_region(marked):
    regioning.click(marked, *RED, "new")
    regioning.click(marked, *BLUE, "more")
    assert numbers(marked) == [1] and marked.chosen.area == 60 * 60
    regioning.click(marked, *BLUE, "less")  # the same place again: the later mark counts
    assert marked.chosen.area == 60 * 60 - 20 * 20
    assert marked.chosen.prompt.labels == (1, 0)
    assert not regioning.can_resize(marked)


def test_less_of_nothing_says_what_to_do(marked):
    with pytest.raises(BadRegion, match="no click on the object"):
        regioning.click(marked, *RED, "less")
    assert marked.step == regioning.Step() and not marked.past


def test_two_clicks_are_a_box_and_so_is_a_drag(marked):
    regioning.click(marked, 75 / 160, 75 / 120, "box")
    assert marked.step.corner == pytest.approx((75, 75)) and not marked.shown
    regioning.click(marked, 1, 1, "box")
    assert marked.step.corner is None and marked.chosen.area == 60 * 30
    regioning.box(marked, (1, 1, 75 / 160, 75 / 120))  # from the other corner
    assert [region.area for region in marked.shown] == [60 * 30, 60 * 30]


def test_a_box_of_no_area_waits_for_no_second_corner(marked):
    regioning.click(marked, *GREEN, "box")
    with pytest.raises(BadRegion, match="no area"):
        regioning.click(marked, *GREEN, "box")
    assert marked.step.corner is None and not marked.shown


def test_the_smallest_region_at_a_place_is_chosen(marked):
    regioning.click(marked, *RED, "new")
    regioning.click(marked, *BLUE, "more")  # the whole square
    regioning.click(marked, *BLUE, "new")
    regioning.click(marked, *RED, "select")
    assert marked.step.chosen == 1
    regioning.click(marked, *BLUE, "select")
    assert marked.step.chosen == 2
    regioning.click(marked, *GREEN, "select")
    assert marked.step.chosen is None and marked.chosen is None


def test_everything_is_found_and_keeps_its_numbers(marked):
    regioning.click(marked, *RED, "new")
    steps = list(regioning.find_everything(marked, every=0))
    assert steps == sorted(steps)  # a step that takes long is told more than once
    assert 0 < len(set(steps)) <= steps[-1][1] + 1 and len({total for _, total in steps}) == 1
    found = {}
    for granularity in ("objects", "parts", "all"):
        marked.granularity = granularity
        found[granularity] = {region.number: region.area for region in marked.shown}
    assert found["objects"].items() < found["parts"].items() <= found["all"].items()
    regioning.click(marked, *GREEN, "new")
    assert marked.chosen.number == max(found["all"]) + 1
    assert list(regioning.find_everything(marked)) == []  # it is known now
    assert marked.stop is None


def test_a_search_that_is_stopped_changes_nothing(marked, monkeypatch):
    regioning.click(marked, *RED, "new")
    before, real = marked.step, marked.scene.everything

    def everything(granularity, progress):  # the visitor stops it after the first step
        regioning.stop(marked)
        return real(granularity, progress)

    monkeypatch.setattr(marked.scene, "everything", everything)
    assert list(regioning.find_everything(marked)) == []
    assert marked.step is before and marked.stop is None


def test_steps_are_undone_one_by_one(marked):
    regioning.click(marked, *RED, "new")
    regioning.click(marked, *GREEN, "new")
    regioning.select_region(marked, 1)
    regioning.remove(marked)
    assert numbers(marked) == [2]
    regioning.clear(marked)
    assert numbers(marked) == []
    for wanted in ([2], [1, 2], [1], []):
        regioning.undo(marked)
        assert numbers(marked) == wanted
    regioning.undo(marked)  # nothing is left: nothing happens
    assert marked.step == regioning.Step()
    for _ in range(regioning.MOST_STEPS + 5):
        regioning.click(marked, *RED, "new")
    assert len(marked.past) == regioning.MOST_STEPS


def test_a_new_picture_starts_afresh_and_a_bad_one_leaves_the_old(workspace, marked, tmp_path):
    regioning.click(marked, *RED, "new")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and rubbish")
    with pytest.raises(BadImage):
        regioning.take_file(workspace, str(tmp_path / "broken.png"))
    assert marked.image.name == "shapes.png" and numbers(marked) == [1]
    shapes(320, 240).save(tmp_path / "large.png")
    regioning.take_file(workspace, str(tmp_path / "large.png"))
    assert marked.image.name == "large.png" and not marked.shown and not marked.past
    assert [path.suffix for path in (workspace.folder / "regions").iterdir()] == [".png"]


def test_regions_stay_when_the_segmenter_changes(workspace, marked):
    regioning.click(marked, *RED, "new")
    area = marked.chosen.area
    regioning.choose_segmenter(workspace, "another")
    assert marked.segmenter == "another" and marked.chosen.area == area and marked.chosen.logits is None
    regioning.click(marked, *BLUE, "more")
    assert marked.chosen.area == 60 * 60


# ---- scores and files --------------------------------------------------------------------------------


def test_a_region_is_scored_once_a_view(workspace, marked, painter):
    regioning.click(marked, *RED, "new")
    scoring.score(workspace)
    scoring.score(workspace)
    assert painter.asked == 1
    assert marked.scores[marked.chosen, "crop"].zero_shot.label == "red"
    marked.view = "cut"
    regioning.click(marked, *BLUE, "new")
    scoring.score(workspace)
    assert painter.asked == 3
    assert marked.scores[marked.chosen, "cut"].zero_shot.label == "blue"


def test_without_labels_nothing_is_scored(workspace, marked):
    regioning.click(marked, *RED, "new")
    scoring.score(workspace)
    assert not marked.scores and scoring.names_of(workspace) == {}


def test_scores_follow_labels_backbone_and_the_tuned_model(workspace, marked, tiny, monkeypatch):
    monkeypatch.setattr("demo.screens.tune.service.backbone_of", lambda workspace: tiny)
    workspace.labels_text = "red, blue"
    regioning.click(marked, *RED, "new")
    scoring.score(workspace)
    first = marked.scorer
    assert len(marked.scores) == 1 and first.tuner is None
    assert scoring.scorer_of(workspace) is first
    workspace.labels_text = "red, blue, green"
    scoring.score(workspace)
    assert marked.scorer is not first and len(marked.scores) == 1
    assert len(next(iter(marked.scores.values())).zero_shot.probabilities) == 3


def test_the_shortcut_test_asks_with_and_without(workspace, marked, painter):
    regioning.click(marked, *BLUE, "new")
    scoring.probe(workspace)
    region, found = marked.shortcut
    assert region == marked.chosen
    assert found.tuned is None and found.zero_shot.without_background.label == "blue"


def test_files_hold_every_region(workspace, marked, painter):
    for place in (RED, GREEN):
        regioning.click(marked, *place, "new")
    scoring.score(workspace)
    style = Style()
    picture = Image.open(scoring.file_for(workspace, "overlay", style))
    assert picture.size == (720, 540) and picture.format == "PNG"
    with zipfile.ZipFile(scoring.file_for(workspace, "masks", style)) as archive:
        masks = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()]
    assert [int(mask.astype(bool).sum()) for mask in masks] == [60 * 60 - 20 * 20, 60 * 30]
    found = json.loads(scoring.file_for(workspace, "json", style).read_text())
    assert found["image"] == {"file": "shapes.png", "width": 160, "height": 120}
    assert found["regions"][0]["bbox"] == [10, 10, 60, 60]
    assert found["regions"][0]["zero_shot"]["label"] == "red"
    regioning.clear(marked)
    assert scoring.file_for(workspace, "json", style) is None


# ---- the screen ---------------------------------------------------------------------------------------


@pytest.fixture
def screen():
    """The screen's components and a visit with their first values."""
    with gr.Blocks():
        page = Page(Workspaces())
        regions = Regions(page)
        regions.build()

    def visit(workspace: Workspace, language: str = "en", event=None, **values) -> Visit:
        data = {component: component.value for component in [*regions.shown, regions.results.way, regions.task]}
        data |= {getattr(regions, name): value for name, value in values.items()}
        return Visit(workspace, Translator(language), False, data, event)

    return regions, visit


def test_before_any_picture(tmp_path, screen):
    regions, visit = screen
    for language in ("en", "ko"):
        updates = regions.view(visit(Workspace("id", tmp_path / language), language))
        assert set(updates) <= set(regions.outputs)
        assert updates[regions.empty]["elem_classes"] == []
        assert updates[regions.tools]["elem_classes"] == updates[regions.results.column]["elem_classes"] == HIDDEN
        assert updates[regions.find]["interactive"] is False and updates[regions.picture] == ""


def test_a_click_is_shown_at_once_and_scored_then(workspace, marked, painter, screen):
    regions, visit = screen
    event = SimpleNamespace(kind="point", x=RED[0], y=RED[1], background=False)
    first, second = regions._then(regions._point)(visit(workspace, event=event))
    assert 'class="ctl-dot ctl-dot-plus"' in first[regions.picture] and "data:image/jpeg" in first[regions.picture]
    assert "red" not in Balanced(first[regions.results.table]).text
    assert "red 100 %" in Balanced(second[regions.results.table]).text
    assert second[regions.results.probe]["interactive"]
    right = SimpleNamespace(kind="point", x=BLUE[0], y=BLUE[1], background=True)
    first, _ = regions._then(regions._point)(visit(workspace, event=right))  # the right button takes away in any mode
    assert "ctl-dot-minus" in first[regions.picture] and numbers(marked) == [1]


def test_what_goes_wrong_is_said_and_nothing_is_lost(workspace, marked, painter, screen):
    regions, visit = screen
    regioning.click(marked, *RED, "new")
    event = SimpleNamespace(kind="box", corners=[0.5, 0.5, 0.5, 0.9])
    first, _ = regions._then(regions._point)(visit(workspace, "ko", event))
    assert "넓이" in first[regions.page.notice] or "상자" in first[regions.page.notice]
    assert numbers(marked) == [1] and 'data-number="1"' in first[regions.results.table]


def test_rows_and_regions_are_linked_both_ways(workspace, marked, painter, screen):
    regions, visit = screen
    for place in (RED, GREEN):
        regioning.click(marked, *place, "new")
    first, _ = regions._then(regions._row)(visit(workspace, event=SimpleNamespace(number=1)))
    assert (
        marked.step.chosen == 1 and 'data-number="1" tabindex="0" aria-selected="true"' in first[regions.results.table]
    )
    lit = first[regions.picture]
    place = SimpleNamespace(kind="point", x=GREEN[0], y=GREEN[1], background=False)
    first, _ = regions._then(regions._point)(visit(workspace, event=place, mode="select"))
    assert 'data-number="2" tabindex="0" aria-selected="true"' in first[regions.results.table]
    assert first[regions.picture] != lit
    regions._row(visit(workspace, event=SimpleNamespace(number=2)))  # again: nothing stands out
    assert marked.step.chosen is None


def test_where_nothing_is_tuned_the_screen_says_how(workspace, marked, painter, screen):
    regions, visit = screen
    regioning.click(marked, *RED, "new")
    updates = regions.view(visit(workspace))
    assert "Tune a method" in updates[regions.results.hint]
    assert "Tuned" not in Balanced(updates[regions.results.table]).text
    workspace.labels_text = ""
    updates = regions.view(visit(workspace))
    assert "no labels" in updates[regions.results.hint] and "Zero-shot" not in updates[regions.results.table]
    assert updates[regions.results.probe]["interactive"] is False


def test_everything_is_found_on_the_screen(workspace, marked, painter, screen):
    regions, visit = screen
    *_, before, last = regions._find(visit(workspace))
    assert before[regions.stop]["interactive"] is False and before[regions.find]["interactive"]
    assert last[regions.results.table].count("data-number=") == len(marked.shown) > 2


def test_a_division_that_shows_nothing_says_so(workspace, marked, painter, screen):
    regions, visit = screen
    list(regioning.find_everything(marked))
    marked.step = replace(marked.step, regions=tuple(r for r in marked.step.regions if r.granularity == "all"))
    first, _ = regions._then(regions._divide)(visit(workspace, granularity="objects"))
    assert "finer division" in first[regions.status] and first[regions.results.column]["elem_classes"] == HIDDEN
    first, _ = regions._then(regions._divide)(visit(workspace, granularity="all"))
    assert first[regions.status] == "" and 'data-number="' in first[regions.results.table]


def test_a_segmenter_that_cannot_be_had_leaves_the_one_before(workspace, marked, screen, monkeypatch):
    regions, visit = screen

    def refuse(id, report=None, stop=None):
        raise SegmenterUnavailable("segmenter_offline", id=id)

    monkeypatch.setattr(catalog, "fetch", refuse)
    monkeypatch.setattr(catalog, "load", lambda id="pocket", device=None: None)
    *_, last = regions._segmenter(visit(workspace, segmenter="vit_b"))
    assert "no connection" in last[regions.page.notice]
    assert last[regions.segmenter]["value"] == marked.segmenter == "pocket"


def test_the_menu_says_what_must_be_downloaded(monkeypatch):
    monkeypatch.setattr(catalog.Entry, "cached", lambda self: self.id == catalog.POCKET)
    lines = {id: line for line, id in segmenter_choices(Translator("en"))}
    assert "download" not in lines["pocket"] and "download 375 MB" in lines["vit_b"]
    assert len(lines) == len(catalog.ENTRIES)
    korean = {id: line for line, id in segmenter_choices(Translator("ko"))}
    assert lines["pocket"].startswith("Pocket SAM (bundled)") and korean["pocket"].startswith("Pocket SAM (기본 제공)")


# ---- pieces --------------------------------------------------------------------------------------------


def guess(label: str, share: float = 0.8) -> Guess:
    return Guess(label, share, 2 * share - 1, (share, 1 - share))


def test_everything_typed_is_escaped(marked):
    t = Translator("en")
    regioning.click(marked, *RED, "new")
    scores = {1: RegionScore(1, guess(NASTY), guess("other"))}
    names = {NASTY: NASTY, "other": NASTY}
    reading = Reading(guess(NASTY), guess(NASTY), guess("other"), "object")
    for html in (
        regions_html.table([(marked.shown[0], "1", "red")], scores, 1, True, True, names, t),
        regions_html.shortcut(Shortcut(reading, reading, ()), "1", [], [NASTY], names, t),
    ):
        found = Balanced(html)
        assert "img" not in found.tags and NASTY in found.text
    drawn = regions_html.picture(shapes(), NASTY, "new", None, (5, 5), (160, 120), t)
    assert drawn.count("<img") == 1 and 'onerror="' not in drawn


def test_a_tuned_label_that_differs_is_pointed_out(marked):
    t = Translator("en")
    regioning.click(marked, *RED, "new")
    rows = [(marked.shown[0], "1", "red")]

    def text(after):
        score = RegionScore(1, guess("nut"), guess(after, 0.9))
        return Balanced(regions_html.table(rows, {1: score}, None, True, True, {}, t)).text

    assert "→ gear 90 %" in text("gear") and "80 points ahead" in text("gear")
    assert "→" not in text("nut")


def test_the_verdict_has_a_tone_of_the_last_model():
    t = Translator("ko")
    good = Reading(guess("a"), guess("a"), guess("b"), "object")
    bad = replace(good, word="background")
    assert "ctl-better" in regions_html.shortcut(Shortcut(good, None, (Note("x"),)), "1", [], ["말"], {}, t)
    assert "ctl-worse" in regions_html.shortcut(Shortcut(good, bad, ()), "A", [("whole", "data:,")], ["말"], {}, t)
