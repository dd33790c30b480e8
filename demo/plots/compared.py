"""A comparison of methods: cost against accuracy, accuracy by training images, and reliability."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate
from engine.report.geometry import CostAxis, Dot, Growth, percent_range, percent_step
from engine.report.label_layout import Box, LabelPosition, place, spread

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 52
"""Margins in pixels, fixed so that places of names can be computed."""
NARROW = 560
"""Pixels below which only the methods that matter are named; pointing at a dot names the others."""
FADED = 0.35


def _colour(method: Dot | Growth) -> str:
    """Grey for zero-shot, blue for tuned."""
    return style.ZERO_SHOT if method.baseline else style.TUNED


def pareto(
    dots: Sequence[Dot],
    cost: str,
    tick: Callable[[float], str],
    t: Translate,
    dark: bool | None = None,
    width: float = 720,
) -> go.Figure:
    """Cost (logarithmic) against accuracy, with names that do not cover each other.

    Args:
        cost: the axis in words, escaped.
        tick: a cost in words.
        width: pixels that the figure will have; names are placed for these.
    """
    if not dots:
        return style.empty(dark, t("compare.empty_plot"))
    height = 420 if width >= NARROW else 340
    costs = CostAxis.of([dot.cost for dot in dots])
    position, ticks = costs.place, costs.ticks(6)
    low, high = percent_range([dot.low for dot in dots], [dot.high for dot in dots])
    span = (-0.04, 1.04)
    figure = go.Figure(layout=style.layout(dark, height, showlegend=False))
    figure.update_layout(margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM, "autoexpand": False})
    figure.update_xaxes(
        style.axis(
            dark,
            title=style.titled(dark, cost),
            range=list(span),
            automargin=False,
            tickvals=[position(v) for v in ticks],
            ticktext=[tick(v) for v in ticks],
        )
    )
    figure.update_yaxes(
        style.axis(
            dark,
            title=style.titled(dark, t("compare.axis_accuracy")),
            automargin=False,
            range=[100 * low - 1, 100 * high + 1],
            dtick=percent_step(low, high),
        )
    )
    for dot in dots:
        figure.add_scatter(**_dot(dot, position(dot.cost)))
    area = Box(LEFT, TOP, width - RIGHT, height - BOTTOM)

    def pixels(dot: Dot) -> tuple[float, float]:
        across = (position(dot.cost) - span[0]) / (span[1] - span[0])
        up = (100 * dot.value - (100 * low - 1)) / (100 * (high - low) + 2)
        return area.left + across * (area.right - area.left), area.bottom - up * (area.bottom - area.top)

    _name(figure, dots, pixels, position, area, width, dark)
    return figure


def _dot(dot: Dot, x: float) -> dict:
    """One method's point with its interval."""
    facts = "".join(
        f"<br>{style.escape(name, quote=False)}: {style.escape(value, quote=False)}" for name, value in dot.facts
    )
    error = {
        "type": "data",
        "symmetric": False,
        "array": [100 * (dot.high - dot.value)],
        "arrayminus": [100 * (dot.value - dot.low)],
        "thickness": 1.5,
        "width": 3,
        "color": _colour(dot),
    }
    return {
        "x": [x],
        "y": [100 * dot.value],
        "mode": "markers",
        "error_y": error,
        "name": style.shorten(dot.name, 40),
        "opacity": FADED if dot.faded else 1,
        "marker": {
            "color": _colour(dot),
            "size": 14 if dot.chosen else 10,
            "symbol": "star" if dot.chosen else "circle",
        },
        "hovertemplate": f"<b>{style.full(dot.name)}</b><br>{100 * dot.value:.1f} % "
        f"({100 * dot.low:.1f}–{100 * dot.high:.1f}){facts}<extra></extra>",
    }


def _name(
    figure: go.Figure,
    dots: Sequence[Dot],
    pixels: Callable[[Dot], tuple[float, float]],
    position: Callable[[float], float],
    area: Box,
    width: float,
    dark: bool | None,
) -> None:
    """Write the names as far as there is room; those of faded dots last, and on a narrow page not at all."""
    order = sorted(dots, key=lambda dot: (not dot.chosen, dot.faded, -dot.value))
    named = [width >= NARROW or dot.chosen or dot.baseline or not dot.faded for dot in order]
    names = [
        style.brief(dot.name, 28 if width >= NARROW else 18) if wanted else ""
        for dot, wanted in zip(order, named, strict=True)
    ]
    places = place([pixels(dot) for dot in order], names, area, 7)
    for dot, name, spot in zip(order, names, places, strict=True):
        if not name or (spot.covers and not (dot.chosen or dot.baseline)):
            continue
        bold = f"<b>{style.escape(name, quote=False)}</b>" if dot.chosen else style.escape(name, quote=False)
        figure.add_annotation(_label(bold, dot, position(dot.cost), pixels(dot), spot, dark))


def _label(text: str, dot: Dot, x: float, middle: tuple[float, float], spot: LabelPosition, dark: bool | None) -> dict:
    anchor = {"start": "left", "middle": "center", "end": "right"}[spot.anchor]
    dx, dy = spot.x - middle[0], spot.y - middle[1]
    found = {
        "text": text,
        "x": x,
        "y": 100 * dot.value,
        "xref": "x",
        "yref": "y",
        "xanchor": anchor,
        "yanchor": "middle",
        "opacity": 0.75 if dot.faded else 1,
        "font": {"size": 12, "color": style.theme(dark).text},
    }
    if not spot.far:
        return found | {"showarrow": False, "xshift": dx, "yshift": -dy}
    return found | {
        "showarrow": True,
        "ax": dx,
        "ay": dy,
        "arrowhead": 0,
        "arrowwidth": 1,
        "standoff": 6,
        "arrowcolor": style.theme(dark).grid,
    }


def shot_curves(curves: Sequence[Growth], t: Translate, dark: bool | None = None, width: float = 720) -> go.Figure:
    """Return accuracy by training images a label; intervals for the recommended method and for zero-shot."""
    shots = sorted({count for curve in curves for count in curve.shots})
    if len(shots) < 2:
        return style.empty(dark, t("compare.empty_curve"))
    names = [style.brief(curve.name, 26 if width >= NARROW else 13) for curve in curves]
    right = 24 + 6.6 * max(style.width(name) for name in names)
    height = 380
    low, high = percent_range([x for c in curves for x in c.lows], [x for c in curves for x in c.highs])
    figure = go.Figure(layout=style.layout(dark, height, showlegend=False))
    figure.update_layout(margin={"l": LEFT, "r": right, "t": TOP, "b": BOTTOM, "autoexpand": False})
    figure.update_xaxes(
        style.axis(
            dark,
            title=style.titled(dark, t("compare.axis_shots")),
            tickvals=[math.log2(n) for n in shots],
            ticktext=[str(n) for n in shots],
            automargin=False,
        )
    )
    bounds = (100 * low - 1, 100 * high + 1)
    figure.update_yaxes(
        style.axis(
            dark,
            title=style.titled(dark, t("compare.axis_accuracy")),
            range=list(bounds),
            automargin=False,
            dtick=percent_step(low, high),
        )
    )
    for curve in sorted(curves, key=lambda c: (c.chosen, c.baseline)):
        figure.add_scatter(**_growth(curve))
    inner = height - TOP - BOTTOM

    def down(value: float) -> float:
        return inner * (bounds[1] - 100 * value) / (bounds[1] - bounds[0])

    ends = [down(curve.values[-1]) for curve in curves]
    for curve, name, was, now in zip(curves, names, ends, spread(ends, 0, inner), strict=True):
        text = f"<b>{style.escape(name, quote=False)}</b>" if curve.chosen else style.escape(name, quote=False)
        figure.add_annotation(
            text=text,
            xref="paper",
            x=1,
            xanchor="left",
            xshift=8,
            y=100 * curve.values[-1],
            yshift=was - now,
            showarrow=False,
            font={"size": 12, "color": style.theme(dark).text},
        )
    return figure


def _growth(curve: Growth) -> dict:
    """One line; the ones that matter are strong and have intervals."""
    strong = curve.chosen or curve.baseline
    colour = _colour(curve)
    values = [100 * value for value in curve.values]
    error = {
        "type": "data",
        "symmetric": False,
        "array": [100 * h - v for h, v in zip(curve.highs, values, strict=True)],
        "arrayminus": [v - 100 * lo for lo, v in zip(curve.lows, values, strict=True)],
        "thickness": 1.2,
        "width": 3,
        "visible": strong,
    }
    return {
        "x": [math.log2(n) for n in curve.shots],
        "y": values,
        "mode": "lines+markers",
        "error_y": error,
        "name": style.shorten(curve.name, 40),
        "opacity": 1 if strong else FADED,
        "line": {"color": colour, "width": 3 if strong else 1.5},
        "marker": {"color": colour, "size": 7 if strong else 5},
        "customdata": [[n, 100 * lo, 100 * h] for n, lo, h in zip(curve.shots, curve.lows, curve.highs, strict=True)],
        "hovertemplate": f"<b>{style.full(curve.name)}</b>, %{{customdata[0]}}: %{{y:.1f}} % "
        "(%{customdata[1]:.1f}–%{customdata[2]:.1f})<extra></extra>",
    }


def reliability(
    before: Sequence[tuple[float, float, int]],
    after: Sequence[tuple[float, float, int]],
    name: str,
    t: Translate,
    dark: bool | None = None,
) -> go.Figure:
    """Return the share right against confidence, zero-shot in grey and a tuned model in blue.

    Args:
        before, after: (confidence, share right, images) of each bin, shares 0 to 1.
        name: the tuned model's.
    """
    if not before and not after:
        return style.empty(dark, t("compare.empty_plot"))
    figure = go.Figure(layout=style.layout(dark, 320))
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": style.theme(dark).grid, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    pairs = ((before, t("plot.zero_shot"), style.ZERO_SHOT), (after, style.shorten(name, 30), style.TUNED))
    for bins, title, colour in pairs:
        most = max((count for *_, count in bins), default=1)
        figure.add_scatter(
            x=[100 * confidence for confidence, *_ in bins],
            y=[100 * right for _, right, _ in bins],
            name=title,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"color": colour, "size": [6 + 10 * math.sqrt(count / most) for *_, count in bins]},
            customdata=[count for *_, count in bins],
            hovertemplate=f"{title}: %{{x:.0f}} % → %{{y:.0f}} %, n = %{{customdata}}<extra></extra>",
        )
    for update, key in ((figure.update_xaxes, "compare.axis_confidence"), (figure.update_yaxes, "compare.axis_right")):
        update(style.axis(dark, title=style.titled(dark, t(key)), range=[0, 103], tickvals=[0, 25, 50, 75, 100]))
    return figure
