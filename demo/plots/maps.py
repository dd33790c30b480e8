"""Two-dimensional map of image and label embeddings, before and after tuning.

For ``assets/style/hover.js`` every picture's point carries ``customdata`` with four columns:

0. position of the image in ``layout.meta["thumbs"]``, the list of data URIs (each stored once,
   though the image has a point in both panels); -1 where there is no picture;
1. image name, 2. true label, 3. predicted label; all three escaped, ready for plotly's hover text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from demo.plots import style
from demo.plots.style import Translate

MOST_LEGEND = 12
"""Labels up to which the legend names them."""
MOST_TEXTS = 8
"""Labels up to which a name stands beside its star."""
NO_LABEL = "#8a95aa"


@dataclass(frozen=True)
class Panel:
    """One side of the map."""

    title: str
    points: np.ndarray
    """(N, 2) images."""
    labels: np.ndarray | None
    """(K, 2) label texts, or None."""
    predicted: np.ndarray
    """(N,) predicted label of each image."""


def embedding_map(
    before_xy: Sequence[Sequence[float]] | np.ndarray,
    after_xy: Sequence[Sequence[float]] | np.ndarray | None,
    names: Sequence[str],
    targets: Sequence[int],
    predicted_before: Sequence[int],
    predicted_after: Sequence[int] | None,
    label_before_xy: Sequence[Sequence[float]] | np.ndarray | None,
    label_after_xy: Sequence[Sequence[float]] | np.ndarray | None,
    image_names: Sequence[str],
    thumbs: Sequence[str],
    t: Translate,
    dark: bool | None = None,
) -> go.Figure:
    """Return images as points coloured by true label, open where the prediction is wrong; label texts as stars.

    Args:
        before_xy, after_xy: (N, 2) positions; ``after_xy`` is None before any run.
        targets: (N,) true labels, -1 if unknown; ``predicted_*``: (N,) predicted labels.
        label_before_xy, label_after_xy: (K, 2) positions of the label texts, or None.
        thumbs: N small pictures as data URIs (may be empty).
    """
    goal = np.asarray(targets, int)
    if len(goal) == 0:
        return style.empty(dark, t("plot.no_map"), 320)
    panels = [Panel(t("plot.zero_shot"), _xy(before_xy), _xy_of(label_before_xy), np.asarray(predicted_before, int))]
    if after_xy is not None:
        after = predicted_before if predicted_after is None else predicted_after
        panels.append(Panel(t("plot.tuned"), _xy(after_xy), _xy_of(label_after_xy), np.asarray(after, int)))
    figure = go.Figure(layout=style.layout(dark, 460, top=30, meta={"thumbs": [str(thumb) for thumb in thumbs]}))
    for k, panel in enumerate(panels):
        _images(figure, k, panel, goal, names, image_names, len(thumbs), t)
        _stars(figure, k, panel, names, dark, t)
    _legend(figure, goal, names, panels, dark, t)
    _frames(figure, dark, panels, t)
    return figure


def _xy(points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    return np.asarray(points, float).reshape(-1, 2)


def _xy_of(points: Sequence[Sequence[float]] | np.ndarray | None) -> np.ndarray | None:
    return None if points is None else _xy(points)


def _look(label: int) -> tuple[str, str]:
    """Colour and marker shape of a label."""
    if label < 0:
        return NO_LABEL, "circle"
    return style.PALETTE[label % len(style.PALETTE)], style.SYMBOLS[label // len(style.PALETTE) % len(style.SYMBOLS)]


def _images(
    figure: go.Figure,
    k: int,
    panel: Panel,
    goal: np.ndarray,
    names: Sequence[str],
    image_names: Sequence[str],
    thumbs: int,
    t: Translate,
) -> None:
    """One trace a true label, so that a click on the legend hides it in both panels."""
    full = [style.full(name) for name in names]
    called = lambda i: full[i] if 0 <= i < len(full) else t("plot.no_label")  # noqa: E731
    for label in sorted(set(goal.tolist())):
        rows = np.flatnonzero(goal == label).tolist()
        colour, shape = _look(label)
        title = style.shorten(names[label]) if label >= 0 else t("plot.no_label")
        wrong = [label >= 0 and int(panel.predicted[i]) != label for i in rows]
        figure.add_scatter(
            x=style.numbers(panel.points[rows, 0]),
            y=style.numbers(panel.points[rows, 1]),
            mode="markers",
            xaxis=f"x{k + 1}",
            yaxis=f"y{k + 1}",
            name=title,
            legendgroup=f"label {label}",
            showlegend=False,
            marker={
                "color": colour,
                "symbol": [shape + ("-open" if bad else "") for bad in wrong],
                "size": 9,
                "line": {"width": 2, "color": colour},
            },
            customdata=[
                [i if i < thumbs else -1, style.full(image_names[i]), called(label), called(int(panel.predicted[i]))]
                for i in rows
            ],
            hovertemplate=(
                f"%{{customdata[1]}}<br>{t('plot.true')}: <b>%{{customdata[2]}}</b><br>"
                f"{t('plot.predicted')}: <b>%{{customdata[3]}}</b><extra></extra>"
            ),
        )


def _stars(figure: go.Figure, k: int, panel: Panel, names: Sequence[str], dark: bool | None, t: Translate) -> None:
    """Where each label's text lies. Its hover has no picture, so no ``customdata`` columns."""
    if panel.labels is None or len(panel.labels) == 0:
        return
    text = style.theme(dark).text
    count, sides = len(panel.labels), _text_sides(panel.labels, panel.points)
    figure.add_scatter(
        x=style.numbers(panel.labels[:, 0]),
        y=style.numbers(panel.labels[:, 1]),
        mode="markers+text" if count <= MOST_TEXTS else "markers",
        xaxis=f"x{k + 1}",
        yaxis=f"y{k + 1}",
        name=t("plot.label_text"),
        legendgroup="stars",
        showlegend=False,
        cliponaxis=False,
        text=[style.shorten(name, 10) if side else "" for name, side in zip(names, sides, strict=False)],
        textposition=[side or "top center" for side in sides],
        textfont={"size": 11, "color": text},
        marker={
            "symbol": "star",
            "size": 15,
            "color": [_look(i)[0] for i in range(count)],
            "line": {"width": 1, "color": text},
        },
        hovertext=[style.full(name) for name in names[:count]],
        hovertemplate=f"{t('plot.label_text')}: <b>%{{hovertext}}</b><extra></extra>",
    )


def _text_sides(points: np.ndarray, others: np.ndarray) -> list[str | None]:
    """Where each star's name stands, above or below it, so that names do not meet; None if they would.

    ``others`` (N, 2) share the panel and with it the scale.
    """
    filled = np.nan_to_num(points)
    spread = np.ptp(np.nan_to_num(np.concatenate([points, others])), axis=0) + 1e-9
    taken: list[np.ndarray] = []
    sides: list[str | None] = []
    for point in filled / spread:
        side = None
        for name, shift in (("top center", 0.04), ("bottom center", -0.04)):
            place = point + np.array([0, shift])
            if all(abs(place[0] - other[0]) > 0.3 or abs(place[1] - other[1]) > 0.05 for other in taken):
                taken.append(place)
                side = name
                break
        sides.append(side)
    return sides


def _legend(
    figure: go.Figure, goal: np.ndarray, names: Sequence[str], panels: list[Panel], dark: bool | None, t: Translate
) -> None:
    """Entries that are not data: one a label, then what an open point and a star mean."""
    present = sorted(set(goal.tolist()))
    text = style.theme(dark).text
    entries = []
    if len(present) <= MOST_LEGEND:
        short = style.distinct(names, 12)
        entries = [(short[i] if i >= 0 else t("plot.no_label"), f"label {i}", *_look(i)) for i in present]
    entries.append((t("plot.wrong_prediction"), "open", text, "circle-open"))
    if any(panel.labels is not None and len(panel.labels) for panel in panels):
        entries.append((t("plot.label_text"), "stars", text, "star"))
    for title, group, colour, symbol in entries:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=title,
            legendgroup=group,
            showlegend=True,
            hoverinfo="skip",
            marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
        )
    figure.update_layout(
        legend={"yref": "container", "y": 0, "yanchor": "bottom", "tracegroupgap": 0},
        height=420 + 12 * len(entries),
    )


def _frames(figure: go.Figure, dark: bool | None, panels: list[Panel], t: Translate) -> None:
    """Headings and one framed square a panel; positions have no unit, so no ticks."""
    domains = [(0.0, 1.0)] if len(panels) == 1 else [(0.0, 0.49), (0.51, 1.0)]
    for k, domain in enumerate(domains):
        number = "" if k == 0 else str(k + 1)
        plain = style.axis(
            dark,
            showticklabels=False,
            showgrid=False,
            showline=True,
            mirror=True,
            fixedrange=False,
            linecolor=style.theme(dark).grid,
            title={"text": ""},
        )
        figure.update_layout(
            {
                f"xaxis{number}": plain | {"domain": domain, "anchor": f"y{k + 1}"},
                f"yaxis{number}": plain | {"anchor": f"x{k + 1}"},
            }
        )
    figure.update_layout(
        annotations=style.panel_titles(dark, [panel.title for panel in panels], domains, [1, 1]),
        modebar={"remove": ["select2d", "lasso2d", "autoScale2d", "toImage"]},
    )
