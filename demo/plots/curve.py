"""Loss and accuracy while a method trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate

PERCENT = (0, 25, 50, 75, 100)
"""Ticks of the accuracy axis."""


def training(
    curve: Sequence[tuple[int, float, float]], steps_total: int | None, t: Translate, dark: bool | None = None
) -> go.Figure:
    """Loss (left axis) and training accuracy (right axis, percent): smoothed, over the faint raw values.

    Args:
        curve: (step, loss, share of the step's images that are right, 0 to 1) so far; may be empty.
        steps_total: steps of the whole run, so that the line grows towards the right edge.
    """
    if len(curve) == 0:
        return style.empty(dark, t("plot.no_training"), 280)
    data = np.asarray([[float("nan") if v is None else v for v in point] for point in curve], float)  # (steps, 3)
    steps = data[:, 0].astype(int).tolist()
    figure = go.Figure(layout=style.layout(dark, 320))
    _pair(figure, steps, data[:, 1], t("plot.loss"), style.LOSS, "dot", "y", "%{y:.3f}", t)
    _pair(figure, steps, data[:, 2] * 100, t("plot.training_accuracy"), style.TUNED, "solid", "y2", "%{y:.0f} %", t)
    first, last = min(steps), max(steps_total or 0, max(steps))
    figure.update_layout(
        xaxis=style.axis(
            dark,
            title=style.titled(dark, t("plot.step")),
            showgrid=False,
            nticks=7,
            tickangle=0,
            tickformat=",d",
            showline=True,
            linecolor=style.theme(dark).grid,
            range=[first - 0.5, max(last, first + 1) + 0.5],
        ),
        yaxis=style.axis(dark, title=style.titled(dark, t("plot.loss")), rangemode="tozero", nticks=6),
        yaxis2=style.axis(
            dark,
            title=style.titled(dark, t("plot.training_accuracy")),
            overlaying="y",
            side="right",
            range=[0, 104],
            tickvals=list(PERCENT),
            ticktext=[f"{p} %" for p in PERCENT],
            showgrid=False,
        ),
        hovermode="x unified",
    )
    return figure


def _pair(
    figure: go.Figure,
    steps: list[int],
    values: np.ndarray,
    title: str,
    colour: str,
    dash: str,
    axis: str,
    number: str,
    t: Translate,
) -> None:
    """Add the faint raw values and the smoothed line of one quantity."""
    several = len(steps) > 1
    hover = f"{style.escape(title, quote=False)}: {number}<extra></extra>"
    figure.add_scatter(
        x=steps,
        y=style.numbers(values),
        yaxis=axis,
        mode="lines",
        opacity=0.28,
        showlegend=False,
        hoverinfo="skip",
        line={"color": colour, "width": 1.2},
    )
    figure.add_scatter(
        x=steps,
        y=style.numbers(smooth(values)),
        yaxis=axis,
        mode="lines" if several else "markers",
        name=title,
        line={"color": colour, "width": 2.6, "dash": dash},
        marker={"color": colour, "size": 9},
        hovertemplate=hover,
    )


def smooth(values: np.ndarray) -> np.ndarray:
    """Exponential mean over about a tenth of the points, unbiased at the start; gaps stay gaps."""
    keep = 1 - 2 / (1 + max(1.0, len(values) / 10))
    total = weight = 0.0
    result = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if np.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
            result[i] = total / weight
    return result
