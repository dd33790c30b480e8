"""Figures: what they hold, in which order, safely drawn, and what they say when there is nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demo import plots
from demo.plots import style, tables
from demo.words import Translator

WORDS = {
    lang: json.loads((Path(plots.__file__).parents[1] / "words" / lang / "plots.json").read_text("utf-8"))
    for lang in ("en", "ko")
}
NASTY = [
    "<b>bold</b>",
    "a & b",
    "아주아주 긴 이름을 가진 레이블 이름입니다",
    "👩‍👩‍👧 emoji",
    "x" * 500,
    "",
    "line\nbreak",
    "%{x}",
]


t = Translator("en")


def random_task(images: int, labels: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(labels), (2, images))
    return scores[0], scores[1], rng.integers(0, labels, images), [f"photo {i}.jpg" for i in range(images)]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ---- the shared look ----------------------------------------------------------------------------


def test_text_can_be_read_on_the_page():
    assert contrast(style.theme(False).text, "#ffffff") > 7
    assert contrast(style.theme(True).text, "#1f2937") > 7
    # no grey reaches 4.5 on both white and #0b0f19 (the best is 4.37); page.css gives the theme's colour
    assert min(contrast(style.theme(None).text, page) for page in ("#ffffff", "#0b0f19")) > 4.3
    for dark in (True, False, None):
        assert contrast(style.theme(dark).hover_text, style.theme(dark).hover_fill) > 7


@pytest.mark.parametrize("colour", [style.ZERO_SHOT, style.TUNED, style.LOSS])
def test_marks_stand_out_on_both_pages(colour: str):
    assert min(contrast(colour, page) for page in ("#ffffff", "#0b0f19")) >= 3


def test_shortened_names_are_escaped_and_measured_in_columns():
    assert style.shorten("<b>x</b>", 20) == "&lt;b&gt;x&lt;/b&gt;"
    assert style.shorten("abcdefghij", 5) == "abcd…"
    assert style.shorten("가나다라마바", 7) == "가나다…"
    assert style.shorten("a\n  b\t") == "a b"
    assert style.distinct(["cat", "cat", "class number 1", "class number 2"], 10) == [
        "cat",
        "cat\u200b",
        "clas…ber 1",
        "clas…ber 2",
    ]


def test_whole_names_are_broken_into_lines():
    assert style.brief("프리픽스 튜닝 (prefix tuning)", 26) == "프리픽스 튜닝"
    assert style.brief("Deep visual prompt (VPT-deep)", 10) == "Deep visu…"
    assert style.brief("(IA)³ <b>", 20) == "(IA)³ <b>"
    assert style.wrap("one two three", 7) == ["one two", "three"]
    assert style.wrap("가나다라", 4) == ["가나", "다라"]
    assert "".join(style.wrap("x" * 500, 36)) == "x" * 500
    assert style.full("a <i> b") == "a &lt;i&gt; b"
    assert style.wrap("", 10) == [""]


def test_import_is_light():
    code = "import sys, demo.plots; print([m for m in ('torch', 'gradio', 'transformers') if m in sys.modules])"
    root = Path(plots.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


# ---- scores -------------------------------------------------------------------------------------


def test_scores_show_both_sides_in_the_order_of_the_labels():
    figure = plots.scores(["cat", "dog", "fox"], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0], 0, t)
    zero, tuned = figure.data
    assert (zero.name, tuned.name) == ("zero-shot", "tuned")
    assert (zero.marker.color, tuned.marker.color) == (plots.ZERO_SHOT, plots.TUNED)
    assert list(zero.x) == [0.2, 0.5, 0.3]
    assert list(tuned.x) == [0.9, 0.1, 0.0]
    assert list(tuned.text) == ["0.90", "0.10", "0.00"]
    assert list(figure.layout.yaxis.ticktext) == ["✓ cat", "dog", "fox"]
    assert figure.layout.yaxis.range == (2.5, -0.5)
    assert figure.layout.xaxis.range[1] > 1
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.title.text is None  # gradio would add 100 px above a title


def test_scores_before_any_run_have_one_trace():
    figure = plots.scores(["cat", "dog"], [0.2, 0.8], None, -1, t)
    assert [trace.name for trace in figure.data] == ["zero-shot"]
    assert "✓" not in "".join(figure.layout.yaxis.ticktext)


def test_many_labels_show_the_highest_and_always_the_true_one():
    before, after = np.linspace(0, 0.5, 50), np.zeros(50)
    after[3] = 0.99
    names = [str(i) for i in range(50)]
    figure = plots.scores(names, before, after, None, t)
    assert len(figure.data[0].x) == 20
    assert figure.layout.yaxis.ticktext[:2] == ("3", "49")
    assert "20 highest of 50" in figure.layout.xaxis.title.text.replace("<br>", " ")
    figure = plots.scores(names, before, after, 1, t)
    assert figure.layout.yaxis.ticktext[-1] == "✓ 1"
    assert len(figure.data[0].x) == 20
    assert "true one" in figure.layout.xaxis.title.text.replace("<br>", " ")


def test_similarity_makes_room_on_both_sides():
    figure = plots.scores(["a", "b"], [-0.2, 0.1], [0.3, float("nan")], 0, t, kind="similarity")
    assert figure.layout.xaxis.range[0] < -0.2
    assert figure.layout.xaxis.range[1] > 0.3
    assert list(figure.data[0].text) == ["−0.200", "0.100"]
    assert list(figure.data[1].text) == ["0.300", "–"]
    assert "cosine" in figure.layout.xaxis.title.text


# ---- tables -------------------------------------------------------------------------------------


def test_heat_map_sorts_images_by_true_label_and_shares_the_scale():
    before = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    figure = plots.heat_map(["x.jpg", "y.jpg", "z.jpg"], ["a", "b"], before, 1 - before, [1, 0, -1], t)
    first, second = figure.data
    assert list(first.y) == ["y.jpg", "x.jpg", "z.jpg"]
    assert [list(row) for row in first.z] == [[0.8, 0.2], [0.1, 0.9], [0.4, 0.6]]
    assert list(second.z[0]) == [0.2, 0.8]
    assert first.coloraxis == second.coloraxis == "coloraxis"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert figure.layout.yaxis.ticktext == ("a", "b", "no label")
    assert len(plots.heat_map(["x.jpg"], ["a", "b"], before[:1], None, [0], t).data) == 1


def test_heat_map_is_thinned_evenly_and_says_so():
    before, after, targets, files = random_task(450, 5)
    figure = plots.heat_map(files, list("abcde"), before, after, targets, t)
    assert len(figure.data[0].z) == tables.MOST_IMAGES
    assert "200 of 450" in figure.layout.xaxis.title.text
    shown = np.bincount([targets[files.index(name)] for name in figure.data[0].y])
    assert np.abs(shown - np.bincount(targets) * 200 / 450).max() < 2


def test_similarity_heat_map_spans_its_values():
    figure = plots.heat_map(["x"], ["a", "b"], [[-0.1, 0.3]], None, [0], t, kind="similarity")
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-0.1, 0.3)


def test_confusion_colours_by_row_share_and_writes_counts():
    figure = plots.confusion([[3, 1], [0, 0]], [[4, 0], [1, 1]], ["a", "b"], t)
    before, after = figure.data
    assert [list(row) for row in before.z] == [[0.75, 0.25], [0, 0]]
    assert [list(row) for row in after.text] == [["4", "0"], ["1", "1"]]
    assert before.texttemplate == "%{text}"
    assert "3/4" in figure.layout.annotations[0].text
    assert figure.layout.xaxis2.domain[0] > figure.layout.xaxis.domain[1]


def test_many_labels_stack_the_panels_without_counts():
    counts = np.eye(20, dtype=int)
    figure = plots.confusion(counts, counts, [f"label {i}" for i in range(20)], t)
    assert figure.data[0].texttemplate is None
    assert figure.layout.xaxis.domain == figure.layout.xaxis2.domain
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]


# ---- training -----------------------------------------------------------------------------------


def test_training_has_raw_and_smoothed_lines_on_two_axes():
    curve = [(i, 2.0 / i, i / 50) for i in range(1, 41)]
    figure = plots.training(curve, 100, t)
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["loss", "training accuracy"]
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2", "y2"]
    assert figure.data[2].y[-1] == 80.0
    assert figure.layout.xaxis.range[1] >= 100
    assert figure.data[1].line.dash != figure.data[3].line.dash


@pytest.mark.parametrize("curve", [[], [(1, 0.5, 0.25)], [(1, float("nan"), 0.5), (2, None, 0.5)]])
def test_training_with_little_to_show(curve: list):
    figure = plots.training(curve, None, t)
    if curve:
        assert figure.data[3].y[0] == 100 * curve[0][2]
        assert (figure.data[1].mode == "markers") == (len(curve) == 1)
    else:
        assert figure.layout.annotations[0].text.replace("<br>", " ") == WORDS["en"]["plot.no_training"]


# ---- map ----------------------------------------------------------------------------------------


def small_map(**changes):
    arguments = {
        "before_xy": [[0, 0], [1, 1], [2, 0]],
        "after_xy": [[0, 1], [1, 0], [2, 2]],
        "names": ["a", "b"],
        "targets": [0, 1, 0],
        "predicted_before": [1, 1, 0],
        "predicted_after": [0, 1, 0],
        "label_before_xy": [[0, 2], [2, 2]],
        "label_after_xy": [[0, 2], [2, 2]],
        "image_names": ["x.jpg", "<i>.jpg", "z.jpg"],
        "thumbs": ["data:image/png;base64,AA=="] * 3,
        "t": t,
    }
    return plots.embedding_map(**(arguments | changes))


def test_map_marks_wrong_predictions_and_carries_the_pictures():
    figure = small_map()
    assert figure.layout.meta["thumbs"] == ["data:image/png;base64,AA=="] * 3
    points = [trace for trace in figure.data if trace.customdata is not None]
    first = points[0]
    assert list(first.marker.symbol) == ["circle-open", "circle"]
    assert [list(row) for row in first.customdata] == [[0, "x.jpg", "a", "b"], [2, "z.jpg", "a", "a"]]
    assert points[1].customdata[0][1] == "&lt;i&gt;.jpg"
    assert {trace.xaxis for trace in points} == {"x1", "x2"} or {trace.xaxis for trace in points} == {"x", "x2"}
    assert points[0].marker.color != points[1].marker.color
    stars = [trace for trace in figure.data if trace.marker.symbol == "star" and trace.x[0] is not None]
    assert len(stars) == 2


def test_map_before_any_run_without_pictures_or_label_texts():
    figure = small_map(after_xy=None, predicted_after=None, label_before_xy=None, label_after_xy=None, thumbs=[])
    points = [trace for trace in figure.data if trace.customdata is not None]
    assert len(points) == 2
    assert points[0].customdata[0][0] == -1
    assert figure.layout.xaxis.domain == (0, 1)


def test_more_than_ten_labels_stay_different():
    looks = set()
    figure = small_map(
        names=[f"n{i}" for i in range(80)],
        targets=range(80),
        predicted_before=range(80),
        before_xy=np.zeros((80, 2)),
        image_names=["i"] * 80,
        thumbs=[],
        after_xy=None,
        label_before_xy=None,
    )
    for trace in figure.data:
        if trace.customdata is not None:
            looks.add((trace.marker.color, trace.marker.symbol[0]))
    assert len(looks) == 80


# ---- anything a user may bring ------------------------------------------------------------------


@pytest.mark.parametrize(("images", "labels"), [(1, 2), (7, 8), (30, 200)])
@pytest.mark.parametrize("dark", [True, False, None])
def test_every_figure_takes_anything(images: int, labels: int, dark: bool | None):
    before, after, targets, files = random_task(images, labels)
    before[0, 0] = np.nan
    names = [NASTY[i % len(NASTY)] for i in range(labels)]
    table = np.zeros((labels, labels), int)
    xy = np.random.default_rng(0).normal(size=(images, 2))
    xy[0, 0] = np.nan
    label_xy = np.random.default_rng(1).normal(size=(labels, 2))
    figures = [
        plots.scores(names, before[0], after[0], int(targets[0]), t, dark=dark),
        plots.heat_map(files, names, before, after, targets, t, dark),
        plots.confusion(table, table, names, t, dark),
        plots.embedding_map(xy, xy, names, targets, targets, targets, label_xy, label_xy, files, [], t, dark),
    ]
    for figure in figures:
        text = figure.to_json()
        assert "NaN" not in text
        assert "<b>bold" not in text
        assert "\\u003cb\\u003ebold" not in text
        assert 180 <= figure.layout.height <= 1700


def test_nothing_to_show_says_so():
    nothing = np.zeros((0, 2))
    for figure in (
        plots.scores([], [], None, None, t),
        plots.heat_map([], ["a"], nothing, None, [], t),
        plots.confusion([], None, [], t),
        plots.embedding_map(nothing, None, ["a"], [], [], None, None, None, [], [], t),
    ):
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text
