"""Figures of a comparison: what they hold, names that do not cover each other, what they say when there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from demo import plots
from demo.plots import compared, style
from demo.words import Translator
from engine.report.label_layout import COLUMN, HEIGHT, Box, columns

t = Translator("en")
NASTY = '<b onclick="x">a & b</b>'


def make_dots(count: int, seed: int = 0) -> list[plots.Dot]:
    rng = np.random.default_rng(seed)
    values, costs = rng.uniform(0.6, 0.9, count), 10 ** rng.uniform(0, 4, count)
    return [
        plots.Dot(f"Method {k} (name)", float(c), float(v), v - 0.04, v + 0.04, faded=k % 3 == 0, chosen=k == 1)
        for k, (v, c) in enumerate(zip(values, costs, strict=True))
    ]


def label_boxes(figure, width: float) -> list[Box]:
    """Where the names stand, from the figure's own ranges and margins."""
    layout = figure.layout
    wide, high = width - compared.LEFT - compared.RIGHT, layout.height - compared.TOP - compared.BOTTOM
    (x0, x1), (y0, y1) = layout.xaxis.range, layout.yaxis.range
    found = []
    for note in layout.annotations:
        dx, dy = (note.ax, note.ay) if note.showarrow else (note.xshift, -note.yshift)
        x = compared.LEFT + (note.x - x0) / (x1 - x0) * wide + dx
        y = compared.TOP + (y1 - note.y) / (y1 - y0) * high + dy
        text = note.text.replace("<b>", "").replace("</b>", "")
        size = columns(text) * COLUMN
        left = x - {"left": 0, "center": size / 2, "right": size}[note.xanchor]
        found.append(Box(left, y - HEIGHT / 2, left + size, y + HEIGHT / 2))
    return found


@pytest.mark.parametrize("width", [720, 350])
@pytest.mark.parametrize("seed", range(3))
def test_names_do_not_cover_each_other(width, seed):
    figure = plots.pareto(make_dots(12, seed), "Time", str, t, False, width)
    boxes = label_boxes(figure, width)
    assert len(boxes) == 12 if width > compared.NARROW else 5 <= len(boxes) <= 8  # faded ones are not named on a phone
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_dots_carry_everything():
    dots = [
        plots.Dot("zero-shot", 0, 0.4, 0.3, 0.5, baseline=True),
        plots.Dot(NASTY, 90, 0.8, 0.7, 0.9, (("Memory", "90 MB"),), chosen=True),
        plots.Dot("dear", 2000, 0.7, 0.6, 0.8, faded=True),
    ]
    figure = plots.pareto(dots, "Memory", lambda v: f"{v:.0f} MB", t)
    first, second, third = figure.data
    assert first.x[0] < second.x[0] < third.x[0]
    assert (first.marker.color, second.marker.color) == (style.ZERO_SHOT, style.TUNED)
    assert (second.marker.symbol, third.opacity) == ("star", compared.FADED)
    assert "Memory: 90 MB" in second.hovertemplate and "80.0 % (70.0–90.0)" in second.hovertemplate
    assert "<b onclick" not in second.hovertemplate + second.name
    assert figure.layout.xaxis.ticktext[0] == "0 MB"
    assert second.error_y.array[0] == pytest.approx(10)
    assert not any("<b onclick" in note.text for note in figure.layout.annotations)


def test_curves_end_in_their_names():
    shots = (1, 2, 4)
    curves = [
        plots.Growth("zero-shot", shots, (0.4, 0.4, 0.4), (0.3,) * 3, (0.5,) * 3, baseline=True),
        plots.Growth("CoOp", shots, (0.5, 0.6, 0.70), (0.4, 0.5, 0.6), (0.6, 0.7, 0.8), chosen=True),
        plots.Growth("LoRA", shots, (0.5, 0.6, 0.71), (0.4, 0.5, 0.6), (0.6, 0.7, 0.8)),
    ]
    figure = plots.shot_curves(curves, t, True)
    names = {note.text: note for note in figure.layout.annotations}
    assert set(names) == {"zero-shot", "<b>CoOp</b>", "LoRA"}
    inner = figure.layout.height - compared.TOP - compared.BOTTOM
    low, high = figure.layout.yaxis.range
    down = {text: inner * (high - n.y) / (high - low) - n.yshift for text, n in names.items()}
    assert abs(down["LoRA"] - down["<b>CoOp</b>"]) >= HEIGHT - 0.01
    strong = {trace.name: trace.error_y.visible for trace in figure.data}
    assert strong == {"zero-shot": True, "CoOp": True, "LoRA": False}
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "4"]


def test_reliability_has_a_diagonal_and_two_models():
    figure = plots.reliability([(0.3, 0.2, 5)], [(0.9, 0.8, 20), (0.95, 1.0, 20)], "LoRA", t)
    diagonal, before, after = figure.data
    assert (tuple(diagonal.x), tuple(diagonal.y)) == ((0, 100), (0, 100))
    assert (before.line.color, after.line.color) == (style.ZERO_SHOT, style.TUNED)
    assert tuple(after.x) == pytest.approx((90, 95))


def test_the_mix_has_two_lines_that_differ_in_more_than_colour():
    curve = plots.Mixture(NASTY, (0.0, 0.5, 1.0), (0.4, 0.7, 0.8), (0.6, 0.6, 0.3))
    tuned, others = plots.mixing([curve], t).data
    assert tuple(tuned.x) == tuple(others.x) == (0, 50, 100)
    assert tuple(others.y) == pytest.approx((60, 60, 30))
    assert (tuned.name, others.name) == ("Tuned labels", "Held-back labels")
    assert tuned.line.dash != others.line.dash and tuned.marker.symbol != others.marker.symbol
    low, high = plots.mixing([curve], t).layout.yaxis.range
    assert low < 30 and high > 80
    several = plots.mixing([curve, curve], t, True).data
    assert len({trace.name for trace in several}) == 2 and "<b onclick" not in several[0].name


def test_nothing_to_see_is_said():
    for figure in (
        plots.mixing([], t),
        plots.pareto([], "x", str, t),
        plots.reliability([], [], "", t),
        plots.shot_curves([plots.Growth("one", (4,), (0.5,), (0.4,), (0.6,))], t),
    ):
        assert figure.layout.annotations[0].text
        assert not figure.data
