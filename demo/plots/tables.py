"""Heat map of images by labels, and confusion of true by predicted labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate

MOST_IMAGES = 200
"""Rows of the heat map."""
MOST_COUNTS = 12
"""Labels up to which the confusion writes its counts into the cells."""
SIDE_BY_SIDE = 8
"""Labels up to which two confusion panels stand side by side; more stand one above the other."""
MOST_CELLS = 6000
"""Cells of the heat map up to which the hover text has the label's whole name; then the short one."""
MOST_LINES = 30
"""Lines between true labels; more would hide the rows."""
BETWEEN = 150
"""Pixels between two panels of which one stands above the other: column names and a heading."""
GAP = 0.03
"""Space between two panels, as a share of the plot's width."""


def heat_map(
    image_names: Sequence[str],
    names: Sequence[str],
    before: Sequence[Sequence[float]] | np.ndarray,
    after: Sequence[Sequence[float]] | np.ndarray | None,
    targets: Sequence[int],
    t: Translate,
    dark: bool | None = None,
    kind: str = "probability",
) -> go.Figure:
    """Return images (rows, sorted by true label) by labels (columns), one colour scale for both panels.

    Args:
        image_names: N file names; ``names``: K labels.
        before, after: (N, K) scores; ``after`` is None before any run.
        targets: (N,) true label of each image, -1 if it has none.
        kind: ``probability`` (colours from 0 to 1), ``similarity`` or ``margin`` (colours span the values).
    """
    if len(image_names) == 0 or len(names) == 0:
        return style.empty(dark, t("plot.no_scores"))
    goal = np.asarray(targets, int)
    order = np.argsort(np.where(goal < 0, len(names), goal), kind="stable")
    order = order[style.even(len(order), MOST_IMAGES)]
    remark = "" if len(order) == len(goal) else t("plot.thinned", shown=len(order), count=len(goal))
    panels = [
        np.asarray(v, float).reshape(-1, len(names))[order] for v in ([before] if after is None else [before, after])
    ]
    height = int(np.clip(150 + 12 * len(order), 300, 620))
    figure = go.Figure(layout=style.layout(dark, height, top=80))
    columns, rows = style.distinct(names, 12), style.distinct([image_names[i] for i in order], 60)
    labels = [style.full(name) for name in names]
    small = len(order) * len(names) <= MOST_CELLS
    for k, values in enumerate(panels):
        figure.add_heatmap(
            z=style.table(values, 3),
            x=columns,
            y=rows,
            coloraxis="coloraxis",
            hoverongaps=False,
            xgap=1 if len(names) <= 20 else 0,
            customdata=[labels] * len(order) if small else None,
            xaxis=f"x{k + 1}",
            yaxis=f"y{k + 1}",
            hovertemplate="%{y}<br><b>" + ("%{customdata}" if small else "%{x}") + "</b>: %{z:.3f}<extra></extra>",
        )
    ticks = _group_ticks(goal[order], names, (height - 150) / len(order), t)
    _two_axes(figure, dark, len(panels), len(order), ticks)
    _headings(figure, dark, _titles(panels, t), len(panels), None)
    figure.update_layout(coloraxis=_scale(panels, kind, t, dark), shapes=_group_lines(goal[order], dark, len(panels)))
    if remark:
        figure.update_layout(xaxis={"title": style.titled(dark, style.full(remark, 24))})
    return figure


def confusion(
    table_before: Sequence[Sequence[int]] | np.ndarray,
    table_after: Sequence[Sequence[int]] | np.ndarray | None,
    names: Sequence[str],
    t: Translate,
    dark: bool | None = None,
) -> go.Figure:
    """Counts (K, K), rows true, columns predicted; the colour is the share of the row."""
    if len(names) == 0:
        return style.empty(dark, t("plot.no_scores"))
    counts = [
        np.nan_to_num(np.asarray(v, float))
        for v in ([table_before] if table_after is None else [table_before, table_after])
    ]
    labels, size = style.distinct(names, 12), len(names)
    full, small = [style.full(name) for name in names], size * size * len(counts) <= MOST_CELLS
    row_name, column_name = ("%{customdata[0]}", "%{customdata[1]}") if small else ("%{y}", "%{x}")
    stacked = len(counts) == 2 and size > SIDE_BY_SIDE
    cell = 34 if size <= MOST_COUNTS else 20
    panel_height = int(np.clip(size * cell, 170, 640))
    height = panel_height * (2 if stacked else 1) + 150 + (BETWEEN if stacked else 0)
    gap = BETWEEN / (2 * panel_height + BETWEEN) if stacked else None
    figure = go.Figure(layout=style.layout(dark, height, top=50))
    for k, panel in enumerate(counts):
        total = panel.sum(axis=1, keepdims=True)
        share = np.divide(panel, total, out=np.zeros_like(panel), where=total > 0)
        written = [[f"{int(v):,}" for v in row] for row in panel]
        figure.add_heatmap(
            z=style.table(share),
            x=labels,
            y=labels,
            text=written,
            coloraxis="coloraxis",
            xgap=int(size <= 20),
            ygap=int(size <= 20),
            texttemplate="%{text}" if size <= MOST_COUNTS else None,
            xaxis=f"x{k + 1}",
            yaxis=f"y{k + 1}",
            customdata=[[[row, column] for column in full] for row in full] if small else None,
            hovertemplate=(
                f"{t('plot.true')}: <b>{row_name}</b><br>{t('plot.predicted')}: "
                f"<b>{column_name}</b><br>%{{text}} · %{{z:.0%}}<extra></extra>"
            ),
        )
    _two_axes(figure, dark, len(counts), size, None, gap)
    titles = [
        t("plot.panel_right", name=name, right=f"{int(np.trace(panel)):,}", count=f"{int(panel.sum()):,}")
        for name, panel in zip(_titles(counts, t), counts, strict=True)
    ]
    _headings(figure, dark, titles, len(counts), gap)
    for axis in ("xaxis2",) if stacked else ("xaxis", "xaxis2")[: len(counts)]:
        figure.update_layout({axis: {"title": style.titled(dark, t("plot.predicted"))}})
    figure.update_layout(
        yaxis={"title": style.titled(dark, t("plot.true"))},
        coloraxis={"colorscale": _shares(dark), "cmin": 0, "cmax": 1, "showscale": False},
    )
    return figure


def _titles(panels: list, t: Translate) -> list[str]:
    return [t("plot.zero_shot"), t("plot.tuned")][: len(panels)]


def _shares(dark: bool | None) -> str | list:
    """Colours from "none of the row" to "all of it"."""
    return [[0, "#eef2fa"], [0.5, "#86a6ec"], [1, "#1f4bb5"]] if dark is False else style.SCALE


def _domains(panels: int, gap: float | None) -> tuple[list, list]:
    """Horizontal and vertical extent of each panel, in shares of the plot area.

    ``gap`` is the space between panels that stand one above the other; None sets them side by side.
    """
    if panels == 1:
        return [[0, 1]], [[0, 1]]
    if gap is not None:
        return [[0, 1]] * 2, [[0.5 + gap / 2, 1], [0, 0.5 - gap / 2]]
    return [[0, 0.5 - GAP / 2], [0.5 + GAP / 2, 1]], [[0, 1]] * 2


def _headings(figure: go.Figure, dark: bool | None, titles: list[str], panels: int, gap: float | None) -> None:
    across, down = _domains(panels, gap)
    figure.update_layout(annotations=style.panel_titles(dark, titles, across, [top for _, top in down]))


def _two_axes(
    figure: go.Figure, dark: bool | None, panels: int, rows: int, ticks: tuple | None, gap: float | None = None
) -> None:
    """Label columns below each panel; rows from the top, named at the left only.

    ``ticks`` are (row positions, texts); None where rows are named one by one.
    """
    across, down = _domains(panels, gap)
    for k in range(panels):
        beside = k > 0 and gap is None
        x = style.axis(dark, type="category", showgrid=False, domain=across[k], anchor=f"y{k + 1}", showticklabels=True)
        y = style.axis(dark, showgrid=False, domain=down[k], anchor=f"x{k + 1}", showticklabels=not beside)
        y |= {"type": "category", "range": [rows - 0.5, -0.5]}
        if ticks is not None:
            y |= {"tickvals": ticks[0], "ticktext": ticks[1]}
        number = "" if k == 0 else str(k + 1)
        figure.update_layout({f"xaxis{number}": x, f"yaxis{number}": y})


def _group_ticks(goal: np.ndarray, names: Sequence[str], row: float, t: Translate) -> tuple[list, list]:
    """A name at the middle of each true label's rows, left out where it would touch the one above.

    ``row`` is the height of a row in pixels.
    """
    places: list[float] = []
    texts, short = [], style.distinct(names, 12)
    for label in dict.fromkeys(goal.tolist()):
        middle = float(np.flatnonzero(goal == label).mean())
        if places and (middle - places[-1]) * row < 14:
            continue
        places.append(middle)
        texts.append(short[label] if label >= 0 else t("plot.no_label"))
    return places, texts


def _group_lines(goal: np.ndarray, dark: bool | None, panels: int) -> list[dict]:
    """Thin lines between the rows of different true labels."""
    edges = np.flatnonzero(np.diff(goal)) + 0.5
    if len(edges) > MOST_LINES:
        return []
    line = {"color": "rgba(255,255,255,0.75)", "width": 1}
    return [
        {
            "type": "line",
            "xref": f"x{k + 1} domain" if k else "x domain",
            "yref": f"y{k + 1}" if k else "y",
            "x0": 0,
            "x1": 1,
            "y0": float(edge),
            "y1": float(edge),
            "line": line,
        }
        for k in range(panels)
        for edge in edges
    ]


def _scale(panels: list[np.ndarray], kind: str, t: Translate, dark: bool | None) -> dict:
    """The colour scale both panels share, lying above them."""
    values = np.concatenate([v.ravel() for v in panels])
    values = values[np.isfinite(values)]
    low, high = (0.0, 1.0) if kind == "probability" or not values.size else (float(values.min()), float(values.max()))
    text = style.theme(dark).text
    return {
        "colorscale": style.SCALE,
        "cmin": low,
        "cmax": high if high > low else low + 1,
        "colorbar": {
            "orientation": "h",
            "thickness": 10,
            "len": 0.6,
            "x": 0,
            "xanchor": "left",
            "xpad": 0,
            "ypad": 0,
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "outlinewidth": 0,
            "nticks": 6,
            "tickfont": {"size": 11, "color": text},
            "title": {"text": t(f"plot.{kind}"), "side": "top", "font": {"size": 12, "color": text}},
        },
    }
