"""The Regions screen's pieces as HTML strings. Pure functions without gradio; everything a user typed is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from demo.html import NOTHING, VERDICT_SIGNS, Translate

if TYPE_CHECKING:
    from PIL import Image

    from engine.regions.scores import Guess, RegionScore
    from engine.regions.shortcut import Reading, Shortcut
    from engine.regions.types import Prompt, Region

QUALITY = 88
"""Of the JPEG that is shown; what is downloaded is a PNG."""
TONES = {"object": "better", "background": "worse", "either": "close", "both": "close"}
"""What a model reads -> tone of its card."""


def picture(
    image: Image.Image,
    name: str,
    mode: str,
    prompt: Prompt | None,
    corner: tuple[float, float] | None,
    size: tuple[int, int],
    t: Translate,
) -> str:
    """Return the picture that is clicked on, with the clicks of the chosen region.

    Args:
        image: RGB, at any size; ``size`` is the width and height that ``prompt`` and ``corner`` are in.
        mode: what a click does, for the pointer and for touch.
        corner: the first one of a box whose second one is awaited.
    """
    points = list(zip(prompt.points, prompt.labels, strict=True)) if prompt else []
    dots = [_dot(x / size[0], y / size[1], "plus" if label else "minus") for (x, y), label in points]
    dots += [_dot(corner[0] / size[0], corner[1] / size[1], "corner")] if corner else []
    return (
        f'<div class="ctl-canvas" data-mode="{mode}" tabindex="0" role="application" '
        f'aria-label="{escape(t("regions.picture", name=name))}" aria-describedby="regions-keys">'
        f'<img src="{data_uri(image)}" alt="{escape(name)}" draggable="false">{"".join(dots)}</div>'
    )


def _dot(x: float, y: float, kind: str) -> str:
    return f'<span class="ctl-dot ctl-dot-{kind}" style="left:{100 * x:.2f}%;top:{100 * y:.2f}%"></span>'


def data_uri(image: Image.Image) -> str:
    """Return a picture as a JPEG in a data URI."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def picker(images: Sequence[tuple[int, str, str]], chosen: int | None, t: Translate) -> str:
    """Return thumbnails to choose from.

    Args:
        images: position, name and address of the thumbnail.
        chosen: position of the one that is shown.
    """
    buttons = "".join(
        f'<button type="button" data-index="{i}" aria-pressed="{str(i == chosen).lower()}" title="{escape(name)}">'
        f'<img src="{escape(address)}" alt="{escape(name)}" loading="lazy"></button>'
        for i, name, address in images
    )
    return f'<div class="ctl-picks" role="group" aria-label="{t("regions.task")}">{buttons}</div>' if buttons else ""


def table(
    regions: Sequence[tuple[Region, str, str]],
    scores: Mapping[int, RegionScore],
    chosen: int | None,
    tuned: bool,
    scoring: bool,
    names: Mapping[str, str],
    t: Translate,
) -> str:
    """Return a row a region, that can be chosen.

    Args:
        regions: each with its mark and the mark's colour.
        scores: of those that are scored in this view.
        tuned: whether there is a tuned model.
        scoring: whether there are labels to score with.
        names: from the models' label names to those on screen.
    """
    heads = ["mark", "size", *(["zero_shot"] if scoring else []), *(["tuned"] if tuned else [])]
    head = "".join(f"<th scope='col'>{t(f'regions.{key}')}</th>" for key in heads)
    body = ""
    for region, mark, colour in regions:
        cells = [f'<span class="ctl-mark" style="background:{colour}">{escape(mark)}</span>', _share(region, t)]
        score = scores.get(region.number)
        if scoring:
            cells.append(_guess(score.zero_shot if score else None, "before", names, t))
        if tuned:
            differs = score is not None and score.tuned is not None and score.tuned.label != score.zero_shot.label
            cells.append(_guess(score.tuned if score else None, "after", names, t, differs))
        selected = region.number == chosen
        body += (
            f'<tr data-number="{region.number}" tabindex="0" aria-selected="{str(selected).lower()}"'
            f"{' class=ctl-chosen' if selected else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    return (
        f'<div class="ctl-rows"><table class="ctl-table" role="grid" aria-label="{t("regions.table")}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _share(region: Region, t: Translate) -> str:
    percent = 100 * region.area / (region.size[0] * region.size[1])
    return t("number.percent", value=f"{percent:.0f}" if percent >= 9.95 else f"{percent:.1f}")


def _guess(guess: Guess | None, side: str, names: Mapping[str, str], t: Translate, differs: bool = False) -> str:
    """Label, probability and lead over the second label; ``differs``: from zero-shot's."""
    if guess is None:
        return f'<span class="ctl-small">{NOTHING}</span>'
    sign = '<span aria-hidden="true">→ </span>' if differs else ""
    points = t("regions.lead", value=f"{100 * guess.margin:.0f}")
    lead = f'<span class="ctl-small" title="{t("regions.lead_title")}">{points}</span>'
    percent = t("number.percent", value=f"{100 * guess.probability:.0f}")
    name = escape(names.get(guess.label, guess.label))
    return f'<span class="ctl-{side}">{sign}{name} {percent}</span><br>{lead}'


def shortcut(
    found: Shortcut,
    mark: str,
    pictures: Sequence[tuple[str, str]],
    sentences: Sequence[str],
    names: Mapping[str, str],
    t: Translate,
) -> str:
    """Return what the models say without the background and without the object, with a verdict in words.

    Args:
        pictures: the whole picture, without its background and without the object: (key of its words, data URI).
    """
    last = found.tuned or found.zero_shot
    tone = TONES[last.word]
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    shown = "".join(
        f'<figure><img src="{uri}" alt=""><figcaption>{t(f"regions.{key}")}</figcaption></figure>'
        for key, uri in pictures
    )
    sides = [("zero_shot", "before", found.zero_shot), *([("tuned", "after", found.tuned)] if found.tuned else [])]
    rows = "".join(
        f"<tr><th scope='row'>{t(f'regions.{key}')}</th>{_reading(reading, side, names, t)}</tr>"
        for key, side, reading in sides
        if reading is not None
    )
    heads = "".join(f"<th scope='col'>{t(f'regions.{key}')}</th>" for key in ("whole", "object_alone", "ground_alone"))
    return (
        f'<div class="ctl-verdict ctl-{tone}" role="status"><span class="ctl-sign" aria-hidden="true">'
        f"{VERDICT_SIGNS[tone]}</span><div><b>{t('regions.tested', mark=escape(mark))}</b><ul>{words}</ul></div></div>"
        f'<div class="ctl-three">{shown}</div><div class="ctl-scroll"><table class="ctl-table"><thead><tr>'
        f"<th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _reading(reading: Reading, side: str, names: Mapping[str, str], t: Translate) -> str:
    guesses = (reading.whole, reading.without_background, reading.without_object)
    return "".join(f"<td>{_guess(guess, side, names, t)}</td>" for guess in guesses)
