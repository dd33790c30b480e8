"""The WiSE-FT curve: accuracy between the original weights and the tuned ones."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate
from engine.report.geometry import Mixture, percent_range, percent_step

OTHER = "#e69f00"
"""Labels that were not tuned on."""


def mixing(curves: Sequence[Mixture], t: Translate, dark: bool | None = None) -> go.Figure:
    """Return accuracy on tuned labels (blue) and on labels that were held back (orange, dashed) over the mix."""
    if not curves:
        return style.empty(dark, t("compare.empty_plot"))
    figure = go.Figure(layout=style.layout(dark, 300))
    for curve in curves:
        sides = (
            (curve.tuned_labels, t("compare.on_tuned"), style.TUNED, "solid", "circle"),
            (curve.other_labels, t("compare.on_others"), OTHER, "dash", "diamond"),
        )
        for values, side, colour, dash, symbol in sides:
            title = f"{style.shorten(curve.name, 24)}: {side}" if len(curves) > 1 else side
            figure.add_scatter(
                x=[100 * share for share in curve.shares],
                y=[100 * value for value in values],
                name=title,
                mode="lines+markers",
                line={"color": colour, "width": 2.5, "dash": dash},
                marker={"color": colour, "size": 8, "symbol": symbol},
                hovertemplate=f"{title}<br>%{{x:.0f}} %: %{{y:.1f}} %<extra></extra>",
            )
    shares = [v for curve in curves for v in (*curve.tuned_labels, *curve.other_labels)]
    low, high = percent_range(shares, shares)
    figure.update_xaxes(
        style.axis(
            dark, title=style.titled(dark, t("compare.axis_mix")), range=[-3, 103], tickvals=[0, 20, 40, 60, 80, 100]
        )
    )
    figure.update_yaxes(
        style.axis(
            dark,
            title=style.titled(dark, t("compare.axis_plain")),
            range=[100 * low - 2, 100 * high + 2],
            dtick=percent_step(low, high),
        )
    )
    return figure
