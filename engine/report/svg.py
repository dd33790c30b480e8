"""Plots as SVG, written by hand: they need no library, print sharply and open offline.

Grey is zero-shot, blue is tuned, as everywhere. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from engine.metrics.calibration import Bin
from engine.report.geometry import CostAxis, percent_range, percent_step
from engine.report.label_layout import Box, columns, place, spread

ZERO_SHOT, TUNED, OTHER, FADED = "#6b7688", "#3b6fe0", "#c77700", "#b9c1cf"
INK, GRID = "#374151", "#e3e6eb"
WIDTH, TOP, BOTTOM, LEFT = 720, 14, 44, 56


@dataclass(frozen=True)
class Point:
    """A method in the plot of cost against accuracy."""

    name: str
    x: float
    value: float
    """Accuracy, 0 to 1, with its 95 % interval."""
    low: float
    high: float
    colour: str = TUNED
    faded: bool = False
    """Whether another method is at least as good and costs less."""


@dataclass(frozen=True)
class Line:
    """A method's accuracy by training images a label, or by the share of its tuned weights."""

    name: str
    x: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...] = ()
    """With :attr:`highs` the 95 % intervals, where there are any."""
    highs: tuple[float, ...] = ()
    colour: str = FADED
    strong: bool = False


@dataclass(frozen=True)
class Frame:
    """The plot area and its two scales, from values to pixels."""

    area: Box
    x: Callable[[float], float]
    y: Callable[[float], float]


def number(value: float) -> str:
    """Return a coordinate without needless digits."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    """Words, escaped, with ``y`` the middle of their height."""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" dominant-baseline="central" '
        f'font-size="{size}" fill="{colour}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str = "") -> str:
    """Return a straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
        f'stroke="{colour}" stroke-width="{number(width)}"{dashes}/>'
    )


def circle(x: float, y: float, radius: float, colour: str, hint: str = "", opacity: float = 1.0) -> str:
    """Return a dot; ``hint`` is shown under the pointer."""
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return (
        f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" fill="{colour}" '
        f'fill-opacity="{number(opacity)}">{title}</circle>'
    )


def drawing(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """Return the whole figure; ``title`` is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{escape(title)}" style="max-width:{number(width)}px">{"".join(parts)}</svg>'
    )


def _accuracy_axis(area: Box, low: float, high: float, label: str) -> tuple[Callable[[float], float], list[str]]:
    def y(value: float) -> float:
        return area.bottom - (value - low) / (high - low) * (area.bottom - area.top)

    step = percent_step(low, high) / 100
    ticks = [low + step * k for k in range(int((high - low) / step + 1.001))]
    parts = [line(area.left, y(tick), area.right, y(tick), GRID) for tick in ticks]
    parts += [text(area.left - 8, y(tick), f"{100 * tick:.0f}", "end") for tick in ticks]
    middle = (area.top + area.bottom) / 2
    parts.append(f'<g transform="rotate(-90 14 {number(middle)})">{text(14, middle, label, "middle")}</g>')
    return y, parts


def scatter(
    points: Sequence[Point], x_label: str, y_label: str, tick: Callable[[float], str], height: float = 400
) -> str:
    """Cost (logarithmic, left is cheaper) against accuracy; a cost of zero stands at the left edge.

    Args:
        tick: a cost in words.
    """
    costs = CostAxis.of([p.x for p in points])
    area = Box(LEFT, TOP, WIDTH - 20, height - BOTTOM)

    def x(value: float) -> float:
        return area.left + costs.place(value) * (area.right - area.left)

    y, parts = _accuracy_axis(area, *percent_range([p.low for p in points], [p.high for p in points]), y_label)
    for value in costs.ticks(8):
        parts.append(line(x(value), area.top, x(value), area.bottom, GRID))
        parts.append(text(x(value), area.bottom + 14, tick(value), "middle"))
    parts.append(text((area.left + area.right) / 2, height - 10, x_label, "middle"))
    return drawing(WIDTH, height, parts + _dots(points, Frame(area, x, y)), y_label)


def _dots(points: Sequence[Point], frame: Frame) -> list[str]:
    """Intervals below, dots above them, names on top."""
    bars, dots, names = [], [], []
    middles = [(frame.x(p.x), frame.y(p.value)) for p in points]
    for p, (x, y) in zip(points, middles, strict=True):
        colour = FADED if p.faded and p.colour == TUNED else p.colour
        bars.append(line(x, frame.y(p.low), x, frame.y(p.high), colour, 1.5))
        hint = f"{p.name}: {100 * p.value:.1f} % ({100 * p.low:.1f} - {100 * p.high:.1f})"
        dots.append(circle(x, y, 5, colour, hint))
    order = sorted(range(len(points)), key=lambda i: (points[i].faded, -points[i].value))
    spots = place([middles[i] for i in order], [points[i].name for i in order], frame.area)
    for i, spot in zip(order, spots, strict=True):
        if spot.far:
            names.append(line(*middles[i], spot.x, spot.y, FADED, 0.8))
        names.append(text(spot.x, spot.y, points[i].name, spot.anchor, ZERO_SHOT if points[i].faded else INK))
    return bars + dots + names


def lines(curves: Sequence[Line], x_label: str, y_label: str, height: float = 340, logarithmic: bool = True) -> str:
    """Return accuracy by training images a label (a logarithmic axis) or by a share, with names at the right ends."""
    xs = sorted({x for curve in curves for x in curve.x})
    names = max((columns(curve.name) for curve in curves), default=0) * 6.3
    area = Box(LEFT, TOP, WIDTH - min(260.0, names + 24), height - BOTTOM)
    scale = math.log2 if logarithmic else float
    low, high = scale(xs[0]), scale(xs[-1])

    def x(value: float) -> float:
        share = (scale(value) - low) / (high - low) if high > low else 0.5
        return area.left + 16 + share * (area.right - area.left - 32)

    bounds = [b for c in curves for b in c.lows or c.values], [b for c in curves for b in c.highs or c.values]
    y, parts = _accuracy_axis(area, *percent_range(*bounds), y_label)
    parts += [text(x(value), area.bottom + 14, f"{value:g}", "middle") for value in xs]
    parts.append(text((area.left + area.right) / 2, height - 10, x_label, "middle"))
    for curve in sorted(curves, key=lambda c: c.strong):
        parts += _curve(curve, x, y)
    ends = spread([y(curve.values[-1]) for curve in curves], area.top, area.bottom)
    for curve, end in zip(curves, ends, strict=True):
        last = x(curve.x[-1])
        parts.append(line(last + 5, y(curve.values[-1]), area.right + 4, end, GRID))
        parts.append(text(area.right + 8, end, curve.name, colour=curve.colour if curve.strong else ZERO_SHOT))
    return drawing(WIDTH, height, parts, y_label)


def _curve(curve: Line, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    path = " ".join(f"{number(x(a))},{number(y(b))}" for a, b in zip(curve.x, curve.values, strict=True))
    width = 2.5 if curve.strong else 1.5
    parts = [f'<polyline points="{path}" fill="none" stroke="{curve.colour}" stroke-width="{width}"/>']
    for k, (a, value) in enumerate(zip(curve.x, curve.values, strict=True)):
        hint = f"{curve.name}, {a:g}: {100 * value:.1f} %"
        if curve.lows:
            low, high = curve.lows[k], curve.highs[k]
            hint += f" ({100 * low:.1f} - {100 * high:.1f})"
            parts += [line(x(a), y(low), x(a), y(high), curve.colour, 1.2)] if curve.strong else []
        parts.append(circle(x(a), y(value), 4 if curve.strong else 3, curve.colour, hint))
    return parts


def reliability(bins: Sequence[Bin], title: str, x_label: str, y_label: str, colour: str = TUNED) -> str:
    """Return the share right against confidence; a model that is as sure as it is right stays on the diagonal."""
    side, left, top = 200, 50, 28
    area = Box(left, top, left + side, top + side)

    def x(value: float) -> float:
        return area.left + value * side

    def y(value: float) -> float:
        return area.bottom - value * side

    parts = [text(left, 10, title, colour=colour, size=13)]
    for tick in (0.0, 0.5, 1.0):
        parts += [line(x(tick), area.top, x(tick), area.bottom, GRID), line(x(0), y(tick), x(1), y(tick), GRID)]
        parts += [text(x(tick), area.bottom + 12, f"{100 * tick:.0f}", "middle", size=11)]
        parts += [text(area.left - 6, y(tick), f"{100 * tick:.0f}", "end", size=11)]
    parts.append(line(x(0), y(0), x(1), y(1), INK, 1, "4 3"))
    path = " ".join(f"{number(x(b.confidence))},{number(y(b.accuracy))}" for b in bins)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    most = max((b.count for b in bins), default=1)
    for b in bins:
        hint = f"{100 * b.confidence:.0f} % / {100 * b.accuracy:.0f} %, n = {b.count}"
        parts.append(circle(x(b.confidence), y(b.accuracy), 2 + 4 * math.sqrt(b.count / most), colour, hint, 0.8))
    parts.append(text((area.left + area.right) / 2, area.bottom + 28, x_label, "middle", size=11))
    middle = (area.top + area.bottom) / 2
    parts.append(f'<g transform="rotate(-90 10 {number(middle)})">{text(10, middle, y_label, "middle", size=11)}</g>')
    return drawing(left + side + 20, area.bottom + 40, parts, title)
