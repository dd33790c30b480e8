"""What all figures share: colours of both themes, text that is safe to draw, and the empty layout.

Colours mean the same everywhere: grey is zero-shot, blue is tuned. Figures have no background of
their own. ``dark`` is True, False or None (the theme is not known): then the text is a mid grey that
can be read on white and on the dark page, and ``page.css`` gives it the theme's own text colour.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

import numpy as np
import plotly.graph_objects as go

Translate = Callable[..., str]
"""``t(key, **fields)`` gives the sentence of a key in the visitor's language."""

ZERO_SHOT = "#8a95aa"
TUNED = "#3b6fe0"
LOSS = "#b0619f"

PALETTE = (
    "#3b6fe0",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8f6bd9",
    "#a6761d",
    "#7f8c1f",
    "#b03060",
)
"""Ten colours around those of Okabe and Ito, each visible on white and on the dark page."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "cross", "hexagon")
"""Marker shapes, one more for every ten labels; each has an open form."""

FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"
)
SCALE = "Cividis"


@dataclass(frozen=True)
class Theme:
    """Colours that depend on the page's background."""

    text: str
    grid: str
    hover_fill: str = "#1f2937"
    hover_text: str = "#f9fafb"


def theme(dark: bool | None) -> Theme:
    """Colours for a dark page, a light page, or (None) a page of unknown colour."""
    if dark is None:
        return Theme("#707a8b", "rgba(128,138,155,0.28)")
    if dark:
        return Theme("#e5e7eb", "rgba(156,163,175,0.25)", "#e5e7eb", "#111827")
    return Theme("#374151", "rgba(107,114,128,0.20)")


def clean(name: str) -> str:
    """``name`` on one line, without characters that cannot be drawn."""
    text = " ".join(str(name).split())
    return "".join(ch for ch in text if unicodedata.category(ch) not in ("Cc", "Cs", "Co"))


def width(text: str) -> int:
    """Columns that ``text`` takes: two a Korean, Chinese or Japanese character or emoji, else one."""
    return sum(map(_columns, text))


@cache
def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(text: Iterable[str], columns: int) -> int:
    """How many characters from the start of ``text`` fit into ``columns``."""
    used = 0
    for count, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return count
    return count + 1 if used else 0


def cut(text: str, columns: int) -> str:
    """Return the longest start of ``text`` within ``columns``, not ending inside a joined emoji."""
    return text[: _fitting(text, columns)].rstrip(" \u200d\ufe0f")


def shorten(name: str, columns: int = 16, end: int = 0) -> str:
    """``name`` cut to ``columns`` with "…" and escaped for plotly, which reads tags in any text.

    ``end`` columns of its end are kept behind the "…".
    """
    text = clean(name)
    if width(text) > columns:
        tail = cut(text[::-1], end)[::-1] if end else ""
        text = cut(text, columns - 1 - width(tail)) + "…" + tail
    return escape(text, quote=False)


def brief(name: str, columns: int) -> str:
    """``name`` within ``columns``, not escaped: where it is too long without what stands in brackets at its end, and
    with "…" where that is still too long."""
    text = clean(name)
    if width(text) > columns:
        text = re.sub(r" ?\([^()]*\)$", "", text) or text
    return text if width(text) <= columns else cut(text, columns - 1) + "…"


def wrap(text: str, columns: int) -> list[str]:
    """``text`` in lines of at most ``columns``, broken at spaces where there are any."""
    lines, line = [], ""
    for word in clean(text).split(" "):
        if line and width(line) + 1 + width(word) > columns:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while width(line) > columns:
            end = max(1, _fitting(line, columns))
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line] if line or not lines else lines


def full(name: str, columns: int = 36) -> str:
    """Return the whole ``name`` in lines of ``columns``, escaped, for hover labels."""
    return "<br>".join(escape(line, quote=False) for line in wrap(name, columns))


def distinct(names: Sequence[str], columns: int = 16) -> list[str]:
    """Shortened names that stay different: where starts agree the ends are kept too, and names that
    are still equal differ by invisible characters."""
    starts = [shorten(name, columns) for name in names]
    usual = Counter(starts)
    seen: Counter[str] = Counter()
    result = []
    for name, start in zip(names, starts, strict=True):
        short = start if usual[start] == 1 else shorten(name, columns, columns // 2)
        result.append(short + "\u200b" * seen[short])
        seen[short] += 1
    return result


def numbers(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Rounded plain floats; None where a value is not finite, which plotly leaves out."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in values]


def table(values: Sequence[Sequence[float]] | np.ndarray, digits: int = 4) -> list[list[float | None]]:
    """:func:`numbers` for every row."""
    return [numbers(row, digits) for row in np.atleast_2d(np.asarray(values, float))]


def even(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the positions 0 to ``count`` - 1, evenly spread."""
    if count <= limit:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, limit).round()})


def axis(dark: bool | None, **options: object) -> dict:
    """Return an axis without lines of its own, that makes room for long labels and cannot be dragged."""
    look = theme(dark)
    return {
        "automargin": True,
        "fixedrange": True,
        "showline": False,
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 3,
        "gridcolor": look.grid,
        "tickfont": {"size": 12, "color": look.text},
        "title": {"font": {"size": 12, "color": look.text}, "standoff": 8},
    } | options


def titled(dark: bool | None, text: str) -> dict:
    """Return an axis title; ``text`` is already escaped."""
    return {"text": text, "font": {"size": 12, "color": theme(dark).text}, "standoff": 8}


def layout(dark: bool | None, height: int, top: int = 36, **options: object) -> go.Layout:
    """Return the layout all figures start from. ``height`` and ``top`` (margin) in pixels."""
    look = theme(dark)
    return go.Layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": look.text},
        margin={"l": 8, "r": 12, "t": top, "b": 8, "autoexpand": True},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "font": {"size": 12, "color": look.text},
            "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={
            "bgcolor": look.hover_fill,
            "bordercolor": look.hover_fill,
            "align": "left",
            "font": {"color": look.hover_text, "family": FONT, "size": 13},
        },
        hovermode="closest",
        dragmode=False,
        modebar={
            "bgcolor": "rgba(0,0,0,0)",
            "color": look.text,
            "activecolor": TUNED,
            "remove": [
                "zoom2d",
                "pan2d",
                "select2d",
                "lasso2d",
                "zoomIn2d",
                "zoomOut2d",
                "autoScale2d",
                "resetScale2d",
                "toImage",
            ],
        },
        **options,
    )


def note(dark: bool | None, text: str, **options: object) -> dict:
    """Return an annotation without arrow at ``x``, ``y`` of the whole plot area; ``text`` is escaped."""
    return {
        "text": text,
        "showarrow": False,
        "align": "left",
        "xref": "paper",
        "yref": "paper",
        "font": {"size": 13, "color": theme(dark).text},
    } | options


def panel_titles(
    dark: bool | None, titles: Sequence[str], domains: Sequence[tuple[float, float]], tops: Sequence[float]
) -> list[dict]:
    """Return a heading above each panel. ``domains`` (left, right) and ``tops`` in shares of the plot area."""
    marks = (ZERO_SHOT, TUNED)
    return [
        note(
            dark,
            f'<span style="color:{mark}">■</span> {title}',
            x=left,
            xanchor="left",
            y=top,
            yanchor="bottom",
            yshift=3,
        )
        for title, (left, _), top, mark in zip(titles, domains, tops, marks, strict=False)
    ]


def empty(dark: bool | None, text: str, height: int = 220) -> go.Figure:
    """Return a figure that only says why there is nothing to see yet."""
    figure = go.Figure(layout=layout(dark, height))
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    figure.add_annotation(
        note(dark, full(text, 28), x=0.5, y=0.5, align="center", font={"size": 14, "color": theme(dark).text})
    )
    return figure
