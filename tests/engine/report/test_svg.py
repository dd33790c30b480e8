"""The report's plots: well-formed, escaped, and names that do not cover each other."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from engine.metrics.calibration import Bin
from engine.report import svg
from engine.report.geometry import percent_range
from engine.report.label_layout import COLUMN, HEIGHT, Box, columns, place, spread

NASTY = '<script>alert("x")</script> & 한국어'


def parse(figure: str) -> ET.Element:
    return ET.fromstring(figure)  # raises where anything is not escaped or not closed


def words(figure: str) -> list[str]:
    return [node.text for node in parse(figure).iter() if node.tag.endswith("text")]


def boxes(places, names):
    for spot, name in zip(places, names, strict=True):
        width = columns(name) * COLUMN
        left = spot.x - {"start": 0, "middle": width / 2, "end": width}[spot.anchor]
        yield Box(left, spot.y - HEIGHT / 2, left + width, spot.y + HEIGHT / 2)


@pytest.mark.parametrize("seed", range(4))
def test_names_cover_neither_each_other_nor_points(seed):
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.uniform((80, 40), (660, 330), (14, 2))]
    names = [f"Method number {k}"[: 8 + k % 9] for k in range(14)]
    frame = Box(56, 14, 720, 356)
    found = list(boxes(place(points, names, frame), names))
    for i, box in enumerate(found):
        assert all(box.overlap(other) == 0 for other in found[i + 1 :])
        assert box.outside(frame) == pytest.approx(0)
        assert all(box.overlap(Box(x - 4, y - 4, x + 4, y + 4)) == 0 for x, y in points)


def test_names_of_points_on_one_spot_are_led_away():
    points = [(300.0, 200.0)] * 6
    names = ["one name", "another name", "a third name", "a fourth", "a fifth", "a sixth"]
    places = place(points, names, Box(0, 0, 720, 400))
    found = list(boxes(places, names))
    assert all(a.overlap(b) == 0 for i, a in enumerate(found) for b in found[i + 1 :])


def test_wide_characters_take_two_columns():
    assert columns("ab") == 2
    assert columns("가나") == 4


def test_spread_keeps_order_and_distance():
    heights = [100.0, 101.0, 102.0, 300.0]
    moved = spread(heights, 0, 310)
    assert moved[0] == 100 and moved[3] == 300
    assert all(b - a >= HEIGHT - 1e-9 for a, b in itertools.pairwise(moved))
    assert spread([305.0, 306.0], 0, 310) == [310 - HEIGHT, 310]


def test_scatter_puts_free_methods_left_and_cheap_before_dear():
    points = [
        svg.Point("zero-shot", 0, 0.4, 0.3, 0.5, svg.ZERO_SHOT),
        svg.Point(NASTY, 90, 0.8, 0.7, 0.9),
        svg.Point("dear", 2000, 0.82, 0.74, 0.9, faded=True),
    ]
    figure = svg.scatter(points, "Memory, MB", "Accuracy, %", lambda v: f"{v:,.0f}")
    dots = [node for node in parse(figure).iter() if node.tag.endswith("circle")]
    xs = [float(dot.get("cx")) for dot in dots]
    assert xs == sorted(xs)
    assert [dot.get("fill") for dot in dots] == [svg.ZERO_SHOT, svg.TUNED, svg.FADED]
    assert NASTY in words(figure)
    assert "<script" not in figure
    ys = {float(dot.get("cy")): point.value for dot, point in zip(dots, points, strict=True)}
    assert [ys[y] for y in sorted(ys)] == [0.82, 0.8, 0.4]  # higher is more accurate


def test_one_method_alone_can_be_drawn():
    figure = svg.scatter([svg.Point("only", 5, 1.0, 0.9, 1.0)], "x", "y", str)
    assert "only" in words(figure)


def test_lines_have_names_at_their_ends():
    x = (1.0, 2.0, 4.0)
    curves = [
        svg.Line(NASTY, x, (0.5, 0.6, 0.7), (0.4, 0.5, 0.6), (0.6, 0.7, 0.8), svg.TUNED, True),
        svg.Line("other", x, (0.5, 0.6, 0.71), (0.4, 0.5, 0.6), (0.6, 0.7, 0.8)),
    ]
    figure = svg.lines(curves, "shots", "accuracy")
    named = {n.text: float(n.get("y")) for n in parse(figure).iter() if n.tag.endswith("text")}
    assert abs(named[NASTY] - named["other"]) >= HEIGHT - 0.1
    assert {"1", "2", "4"} <= set(named)
    assert len(re.findall("<polyline", figure)) == 2


def test_a_share_is_drawn_to_scale_and_without_intervals():
    curve = svg.Line("mix", (0.0, 40.0, 100.0), (0.4, 0.7, 0.6), colour=svg.OTHER, strong=True)
    figure = parse(svg.lines([curve], "share", "accuracy", logarithmic=False))
    dots = [float(n.get("cx")) for n in figure.iter() if n.tag.endswith("circle")]
    assert (dots[1] - dots[0]) / (dots[2] - dots[0]) == pytest.approx(0.4, abs=1e-3)
    assert not [n for n in figure.iter() if n.tag.endswith("line") and n.get("stroke") == svg.OTHER and n.get("x1")]


def test_reliability_stays_in_its_square():
    bins = (Bin(0.2, 0.1, 10), Bin(0.9, 1.0, 30))
    figure = parse(svg.reliability(bins, NASTY, "confidence", "right"))
    dots = [(float(n.get("cx")), float(n.get("cy"))) for n in figure.iter() if n.tag.endswith("circle")]
    assert dots == [(50 + 40, 28 + 180), (50 + 180, 28)]


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.44), (0.0, 1.0), (0.985, 1.0)])
def test_the_axis_holds_all_intervals(low, high):
    bottom, top = percent_range([low], [high])
    assert 0 <= bottom <= low <= high <= top <= 1
    assert top - bottom >= 0.2 - 1e-9
