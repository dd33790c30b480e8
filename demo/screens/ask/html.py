"""The Ask screen's pieces as HTML strings. Pure functions without gradio; everything a user typed or a model said is
escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from demo.html import Translate, percent_text
from demo.screens.compare.html import hint
from demo.screens.regions.html import data_uri

if TYPE_CHECKING:
    from PIL import Image

    from engine.ask.ask import Answered
    from engine.ask.check import WaysChecked


def picture(image: Image.Image | None, t: Translate) -> str:
    """Return the picture as a model is shown it."""
    if image is None:
        return f'<div class="ctl-empty">{t("ask.empty")}</div>'
    return f'<img class="ctl-asked" src="{data_uri(image)}" alt="{escape(t("ask.picture"))}">'


def answers(found: Mapping[str, Answered], ways: Sequence[str], t: Translate) -> str:
    """Return a card for each way to ask, filled as far as it is said."""
    return f'<div class="ctl-answers">{"".join(_card(way, found.get(way), t) for way in ways)}</div>'


def _card(way: str, found: Answered | None, t: Translate) -> str:
    title = f"<h4>{t(f'ask.way.{way}')}</h4>"
    if found is None:
        return f'<article class="ctl-card" data-way="{way}">{title}{hint(t(f"ask.way.{way}_hint"))}</article>'
    reply = found.reply
    told = f"<details><summary>{t('ask.told')}</summary><p>{escape(found.prompt.hint)}</p></details>"
    cost = t("ask.cost", first=reply.first, seconds=reply.seconds, tokens=reply.tokens, asked=reply.asked_tokens)
    state = t("ask.stopped") if reply.stopped else t("ask.nothing_said") if reply.done and not reply.text else ""
    return (
        f'<article class="ctl-card" data-way="{way}">{title}'
        f'<p class="ctl-answer" lang="en" aria-live="polite">{escape(reply.text)}{"" if reply.done else " …"}</p>'
        f"{hint(state)}{told if found.prompt.hint else ''}{hint(cost) if reply.done else ''}</article>"
    )


def checked(found: WaysChecked | None, sample: Image.Image | None, t: Translate) -> str:
    """Return how many answers were right in each way, with intervals, and what that says."""
    if found is None or not found.done:
        return ""
    rates = found.rates()
    rows = "".join(
        f'<tr><th scope="row">{t(f"ask.way.{way}")}</th><td>{percent_text(rate.value, t)}</td>'
        f"<td>{percent_text(rate.low, t)} – {percent_text(rate.high, t)}</td></tr>"
        for way, rate in rates.items()
    )
    shown = f'<img class="ctl-sheet" src="{data_uri(sample)}" alt="{escape(t("ask.sheet"))}">' if sample else ""
    return (
        f'<div class="ctl-checked"><p class="ctl-verdict-line">{reading(found, t)}</p>'
        f'<div class="ctl-table-box"><table class="ctl-table"><thead><tr><th>{t("ask.asked_way")}</th>'
        f"<th>{t('ask.right')}</th><th>{t('ask.interval')}</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"{hint(t('ask.check_done', done=found.done, total=found.total))}{shown}</div>"
    )


def reading(found: WaysChecked, t: Translate) -> str:
    """Return in words whether marks, and labels beside them, help: only where the intervals do not overlap."""
    rates = found.rates()

    def word(new: str, old: str) -> str:
        if rates[new].low > rates[old].high:
            return "helps"
        return "harms" if rates[new].high < rates[old].low else "open"

    marks, labels = word("marked", "plain"), word("labelled", "marked")
    return f"{t(f'ask.marks_{marks}')} {t(f'ask.labels_{labels}')}"
