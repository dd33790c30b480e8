"""Scores of one image: a bar a label, zero-shot beside tuned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate

MOST_BARS = 20
"""Labels shown at most; the highest scores win, the true label always stays."""


def scores(
    names: Sequence[str],
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray | None,
    truth: int | None,
    t: Translate,
    kind: str = "probability",
    dark: bool | None = None,
) -> go.Figure:
    """Horizontal bars a label.

    Args:
        names: K labels.
        before, after: (K,) zero-shot and tuned scores; ``after`` is None before any run.
        truth: position of the true label, or None (or negative) if not known.
        kind: ``probability`` (axis from 0 to 1), ``similarity`` or ``margin`` (of cosines, may be negative).
    """
    if len(names) == 0:
        return style.empty(dark, t("plot.no_scores"))
    both = [np.asarray(before, float)] + ([] if after is None else [np.asarray(after, float)])
    truth = int(truth) if truth is not None and 0 <= truth < len(names) else None
    shown, remark = _choose(both, len(names), truth, t)
    series = [
        _bars(names, values[shown], shown, title, colour, kind, dark)
        for values, title, colour in zip(
            both, (t("plot.zero_shot"), t("plot.tuned")), (style.ZERO_SHOT, style.TUNED), strict=False
        )
    ]
    short = style.distinct([names[i] for i in shown], 16 if kind == "probability" else 13)
    ticks = [f"✓ {name}" if i == truth else name for i, name in zip(shown, short, strict=True)]
    title = t(f"plot.{kind}") + (f"<br>{style.full(remark, 24)}" if remark else "")
    height = 88 + 16 * (title.count("<br>") + 1) + len(shown) * (38 if len(both) == 2 else 26)
    figure = go.Figure(series, style.layout(dark, height, barmode="group", bargap=0.24, bargroupgap=0.08))
    figure.update_xaxes(style.axis(dark, title=style.titled(dark, title), **_range(both, shown, kind)))
    figure.update_yaxes(
        style.axis(
            dark, showgrid=False, tickvals=list(range(len(shown))), ticktext=ticks, range=[len(shown) - 0.5, -0.5]
        )
    )
    figure.update_layout(legend={"traceorder": "normal"}, showlegend=True)
    return figure


def _choose(both: list[np.ndarray], count: int, truth: int | None, t: Translate) -> tuple[list[int], str]:
    """Positions of the labels to show and the sentence that says if some are left out."""
    if count <= MOST_BARS:
        return list(range(count)), ""
    top = np.nan_to_num(np.stack(both), nan=-np.inf).max(axis=0)
    order = [int(i) for i in np.argsort(-top, kind="stable")[:MOST_BARS]]
    if truth is None or truth in order:
        return order, t("plot.top_labels", shown=MOST_BARS, count=count)
    return [*order[:-1], truth], t("plot.top_labels_and_truth", shown=MOST_BARS - 1, count=count)


def _bars(
    names: Sequence[str], values: np.ndarray, shown: list[int], title: str, colour: str, kind: str, dark: bool | None
) -> go.Bar:
    """One colour of bars with its values written at their ends."""
    digits = 2 if kind == "probability" else 3
    written = [f"{v:.{digits}f}".replace("-", "−") if np.isfinite(v) else "–" for v in values]
    return go.Bar(
        x=[0 if v is None else v for v in style.numbers(values)],
        y=list(range(len(shown))),
        orientation="h",
        name=title,
        marker={"color": colour},
        text=written,
        textposition="outside",
        textangle=0,
        textfont={"size": 11, "color": style.theme(dark).text},
        cliponaxis=False,
        customdata=[style.full(names[i]) for i in shown],
        hovertemplate="<b>%{customdata}</b><br>" + style.escape(title, quote=False) + ": %{text}<extra></extra>",
    )


def _range(both: list[np.ndarray], shown: list[int], kind: str) -> dict:
    """Axis range with room for the written values."""
    values = np.concatenate([v[shown] for v in both])
    values = values[np.isfinite(values)]
    if kind == "probability" and (values.size == 0 or values.max() > 0.4):
        return {"range": [0, 1.16], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    low, high = (min(0.0, values.min()), max(0.0, values.max())) if values.size else (0.0, 1.0)
    spread = (high - low) or 1.0
    return {"range": [low - 0.6 * spread if low < 0 else 0, high + 0.32 * spread], "nticks": 5, "tickangle": 0}
