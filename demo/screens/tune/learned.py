"""What a run trained, as HTML: pictures before and after, or the words nearest to trained vectors. No gradio."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from demo.screens.tune import adapters
from demo.words import Translator
from demo.workspace import Workspace

if TYPE_CHECKING:
    from engine.tuning.learned import Learned, LearnedImage, LearnedTokens, Piece


def view(workspace: Workspace, t: Translator) -> str:
    """Return the tuned model that is shown, or a sentence that says why there is nothing to see. Raises LabError."""
    kept = adapters.tuned_model(workspace)
    shown = workspace.shown
    if kept is None or shown is None or shown.result is None:
        return _hint(t("learned.none_yet"))

    parts = kept.active.learned()
    if not parts:
        key = "learned.nothing" if kept.active.trains else "learned.untrained"
        return _hint(t(key, method=t.name(shown.result.method)))
    names = dict(zip((label.name for label in kept.setting.labels), shown.names, strict=True))  # as this language says
    return html(parts, names, t)


def html(parts: tuple[Learned, ...], names: dict[str, str], t: Translator) -> str:
    """Parts one below the other; those of single labels are folded, but for the first.

    Args:
        names: labels as the parts call them -> as they are shown.
    """
    from engine.tuning.learned import LearnedImage

    rows = []
    for number, part in enumerate(parts):
        values = {key: names.get(value, value) for key, value in part.about.values}
        about = escape(t.engine(part.about.key, values))
        body = _picture(part, t) if isinstance(part, LearnedImage) else _tokens(part, t)
        if len(parts) == 1:
            rows.append(f"<p>{about}</p>{body}")
        else:
            rows.append(f"<details{'' if number else ' open'}><summary>{about}</summary>{body}</details>")
    if not isinstance(parts[0], LearnedImage):
        if not parts[0].shared and len(names) > len(parts):
            rows.append(_hint(t("learned.more", count=len(names) - len(parts))))
        rows.append(f'<p class="ctl-warning">{escape(t("learned.warning"))}</p>')
    return f'<div class="ctl-learned">{"".join(rows)}</div>'


def _hint(sentence: str) -> str:
    return f'<p class="ctl-hint">{escape(sentence)}</p>'


def _picture(part: LearnedImage, t: Translator) -> str:
    """Before and after side by side, every pixel a square."""
    figures = "".join(
        f'<figure><img src="{_uri(pixels)}" alt="{escape(t(key))}"><figcaption>{escape(t(key))}</figcaption></figure>'
        for key, pixels in (("learned.before", part.before), ("learned.after", part.after))
    )
    return f'<div class="ctl-pixels">{figures}</div>'


def _uri(pixels: np.ndarray) -> str:
    """RGB uint8 ``(H, W, 3)`` as a data URI without loss."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _tokens(part: LearnedTokens, t: Translator) -> str:
    """Where the vectors stand, then a line for each; what they started as only where some started as words."""
    text, lines = " ".join(map(_piece, part.layout)), []
    words = any(token.start for token in part.tokens)
    keys = ("vector", "start", "moved", "nearest") if words else ("vector", "nearest")
    heads = "".join(f'<th scope="col">{escape(t(f"learned.{key}"))}</th>' for key in keys)
    for token in part.tokens:
        near = ", ".join(f"{escape(word)} <small>{distance:.2f}</small>" for word, distance in token.nearest)
        start = escape(token.start) if token.start else f"<small>{escape(t('learned.noise'))}</small>"
        moved = "" if token.moved is None else f"{token.moved:.2f}"
        cells = [f"<b>{token.name}</b>", *([start, moved] if words else []), near]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f'<table class="ctl-table"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<p class="ctl-sentence">{text}</p><div class="ctl-scroll">{table}</div>'


def _piece(piece: Piece) -> str:
    return f"<b>{piece.text}</b>" if piece.trained else f"<span>{escape(piece.text)}</span>"
