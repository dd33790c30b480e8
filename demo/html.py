"""Small pieces of the page as HTML strings. Pure functions without gradio.

Everything a user typed or uploaded is escaped here. ``t`` is the translator: ``t(key, **fields)``;
its sentences are this project's own and may hold tags, so only their fields are escaped. The look
is in ``assets/style/page.css``; every class starts with ``ctl-``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from demo.workspace import Baselines
from engine.report import figures
from engine.report.figures import NOTHING, count_text
from engine.report.figures import SIGNS as VERDICT_SIGNS
from engine.types import Cost, RunResult
from engine.units import bytes_text

Translate = Callable[..., str]

MOST_PROBLEMS = 50
"""Files listed one by one."""


# ---- numbers for people -------------------------------------------------------------------------


def time_text(seconds: float, t: Translate) -> str:
    """``0.4 s``, ``12 s``, ``1 min 20 s``, ``2 h 5 min``; ``<`` is escaped."""
    return figures.time_text(seconds, t).replace("<", "&lt;")


def percent_text(share: float, t: Translate) -> str:
    """Return a share from 0 to 1 as ``84 %``, ``1.2 %``, ``0.04 %`` or ``< 0.01 %`` (escaped)."""
    percent = 100 * share
    if percent == 0 or percent >= 9.95:
        value = f"{percent:.0f}"
    elif percent < 0.005:
        value = "&lt; 0.01"
    else:
        value = f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"
    return t("number.percent", value=value)


def _known(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _accuracy(share: float | None, t: Translate) -> str:
    return t("number.percent", value=f"{100 * share:.0f}") if _known(share) else NOTHING  # type: ignore[operator]


# ---- header and headings ------------------------------------------------------------------------


def header(title: str, tagline: str) -> str:
    """Return the page's name and its promise."""
    return f'<div class="ctl-header"><h1>{escape(title)}</h1><p>{escape(tagline)}</p></div>'


def device_chip(text: str) -> str:
    """Return what the page computes on."""
    return f'<span class="ctl-chip ctl-device">{escape(text)}</span>'


def step_title(number: int, text: str) -> str:
    """Heading of a step: its number in a circle, then its name."""
    return f'<h2 class="ctl-step"><span class="ctl-number">{number}</span>{escape(text)}</h2>'


# ---- the four cards -----------------------------------------------------------------------------


def cards(result: RunResult | None, zero_shot: Baselines | None, t: Translate) -> str:
    """Accuracy, trained parameters, peak memory and time.

    Args:
        result: None before any run.
        zero_shot: shown before any run; None where nothing can be tested.
    """
    parts = [_accuracy_card(result, zero_shot, t)]
    if result is None:
        waiting = t("html.after_tuning")
        parts += [_card(t(f"html.{key}"), NOTHING, waiting) for key in ("parameters", "memory", "time")]
    else:
        parts += [_parameter_card(result.cost, t), _memory_card(result.cost, t), _time_card(result.cost, t)]
    return f'<div class="ctl-cards">{"".join(parts)}</div>'


def _card(label: str, value: str, detail: str) -> str:
    return (
        f'<div class="ctl-card"><div class="ctl-label">{label}</div>'
        f'<div class="ctl-value">{value}</div><div class="ctl-detail">{detail}</div></div>'
    )


def _accuracy_card(result: RunResult | None, zero_shot: Baselines | None, t: Translate) -> str:
    source = result if result is not None else zero_shot
    if source is None:
        return _card(t("html.accuracy"), NOTHING, t("html.after_images"))
    accuracy, which = source.accuracy, "zero_shot_ensemble"
    before = f'<span class="ctl-before">{_accuracy(accuracy.get(which), t)}</span>'
    details = []
    if result is None:
        value = before
        details.append(t("html.zero_shot_only"))
    elif result.verdict.word == "baseline":
        value, which = f'<span class="ctl-before">{_accuracy(accuracy.get("tuned"), t)}</span>', "tuned"
        details.append(t("html.zero_shot_only"))
    else:
        after = f'<span class="ctl-after">{_accuracy(accuracy.get("tuned"), t)}</span>'
        value, which = t("html.accuracy_change", before=before, after=after), "tuned"
    low, high = source.interval95.get(which, (None, None))
    if low is not None and high is not None and _known(low) and _known(high):
        details.append(t("html.interval", low=f"{100 * low:.0f}", high=f"{100 * high:.0f}"))
    tested = source.verdict.tested if isinstance(source, RunResult) else source.tested
    if tested:
        details.append(t("html.tested", count=f"{tested:,}"))
    if source.labels:
        details.append(t("html.chance", share=_accuracy(1 / len(source.labels), t)))
    return _card(t("html.accuracy"), value, " · ".join(details))


def _parameter_card(cost: Cost, t: Translate) -> str:
    trained, total = cost.trainable_parameters, cost.total_parameters
    details = []
    if total:
        details.append(t("html.share", share=percent_text(trained / total, t), total=count_text(total, t)))
    if cost.adapter_bytes:
        details.append(t("html.file", size=bytes_text(cost.adapter_bytes)))
    return _card(t("html.parameters"), count_text(trained, t), " · ".join(details))


def _memory_card(cost: Cost, t: Translate) -> str:
    peak, forecast = cost.peak_memory_bytes, cost.forecast_memory_bytes
    details = [t("html.memory_cuda" if cost.memory_kind == "cuda" else "html.memory_process")]
    if peak and forecast:
        error = t("number.percent", value=f"{100 * (forecast - peak) / peak:+.0f}".replace("-", "−"))
        details.append(t("html.forecast", size=bytes_text(forecast), error=error))
    elif forecast is None:
        details.append(t("html.forecast_unknown"))
    return _card(t("html.memory"), bytes_text(peak) if peak else NOTHING, " · ".join(details))


def _time_card(cost: Cost, t: Translate) -> str:
    seconds = cost.seconds
    parts = {name: time_text(seconds.get(name, 0.0), t) for name in ("features", "train", "evaluate")}
    return _card(t("html.time"), time_text(sum(seconds.values()), t), t("html.time_parts", **parts))


# ---- the verdict --------------------------------------------------------------------------------


def verdict(result: RunResult | None, t: Translate, training: str = "") -> str:
    """Return the outcome in words with a sign of its own shape; empty before any run.

    Args:
        training: what is to be said about the training; empty where all is well.
    """
    if result is None:
        return ""
    found, folds = result.verdict, result.folds
    word = found.word if found.word in VERDICT_SIGNS else "close"
    gained, lost = round(found.gained, 1), round(found.lost, 1)
    key = "html.same_text" if word == "close" and gained == lost == 0 else f"html.{word}_text"
    p = _p_value(found.p_value, t)
    text = t(key, gained=f"{gained:g}", lost=f"{lost:g}", tested=found.tested, p=p)
    if folds > 1:
        halves = f" {t('html.halves')}" if gained % 1 or lost % 1 else ""
        text += f'<br><span class="ctl-small">{t("html.folds", folds=folds)}{halves}</span>'
    if training:
        text += f'<p class="ctl-training"><span aria-hidden="true">⚠</span> {escape(training)}</p>'
    return (
        f'<div class="ctl-verdict ctl-{word}" role="status"><span class="ctl-sign" aria-hidden="true">'
        f"{VERDICT_SIGNS[word]}</span><div><b>{t(f'html.{word}')}</b> {text}</div></div>"
    )


def _p_value(p: float | None, t: Translate) -> str:
    """``p < 0.001``, ``p = 0.013`` or ``p = 0.66``, escaped, on one line."""
    if not _known(p):
        text = t("html.p_value", value="?")
    elif p < 0.001:  # type: ignore[operator]
        text = t("html.p_small")
    else:
        text = t("html.p_value", value=f"{p:.3f}" if p < 0.1 else f"{p:.2f}")  # type: ignore[operator]
    return escape(text).replace(" ", "\u00a0")


# ---- lists --------------------------------------------------------------------------------------


def problems(problems: Sequence[tuple[str, str]], t: Translate) -> str:
    """Return files that could not be used, each with its sentence, folded away; empty if there are none."""
    if not problems:
        return ""
    count = len(problems)
    heading = t("html.problem_one") if count == 1 else t("html.problems", count=count)
    items = [
        f"<li><b>{escape(str(name))}</b> {escape(str(message))}</li>" for name, message in problems[:MOST_PROBLEMS]
    ]
    if count > MOST_PROBLEMS:
        items.append(f"<li>{t('html.problems_more', count=count - MOST_PROBLEMS)}</li>")
    opened = " open" if count <= 3 else ""
    return (
        f'<details class="ctl-problems"{opened}><summary><span aria-hidden="true">⚠</span> {heading}</summary>'
        f"<ul>{''.join(items)}</ul></details>"
    )


def notes(sentences: Sequence[str], t: Translate) -> str:
    """Sentences that the user should know and that stop nothing; empty if there are none."""
    items = "".join(f"<li>{escape(str(sentence))}</li>" for sentence in sentences)
    return f'<ul class="ctl-notes">{items}</ul>' if items else ""


def errors_summary(fixed: int, broken: int, still: int, t: Translate) -> str:
    """Return how many test images tuning fixed, broke and left wrong; each with its own sign."""
    rows = (("fixed", "✓", fixed), ("broken", "✕", broken), ("still_wrong", "○", still))
    chips = "".join(
        f'<span class="ctl-chip ctl-{key}"><span aria-hidden="true">{sign}</span> '
        f"{t(f'html.{key}')} <b>{number:,}</b></span>"
        for key, sign, number in rows
    )
    return f'<div class="ctl-chips">{chips}</div>'


# ---- method and progress ------------------------------------------------------------------------


def method_panel(
    sentence: str,
    family: str,
    parameters: int,
    share: float,
    memory_bytes: float | None,
    seconds: float | None,
    reason_unavailable: str | None,
    failures: Sequence[str],
    paper: str,
    t: Translate,
    fits: Mapping[str, bool] | None = None,
    unknown: str = "",
) -> str:
    """Return what a method does and what it will need, before the run.

    Args:
        family: the family's name in the visitor's language.
        parameters: trained parameters; ``share`` of the backbone's, 0 to 1.
        memory_bytes, seconds: forecasts, None where there is none yet.
        reason_unavailable: why it cannot run here, or None.
        failures: known ways to disappoint, folded away.
        paper: authors, year, arXiv id.
        fits: places to run (graphics cards, Spaces) and whether the run fits there.
        unknown: why there is no forecast; empty where there is one.
    """
    parts = [f'<p><span class="ctl-chip">{escape(family)}</span> {escape(sentence)}</p>']
    if reason_unavailable:
        parts.append(
            f'<p class="ctl-unavailable"><span aria-hidden="true">⊘</span> <b>{t("html.unavailable")}</b> '
            f"{escape(reason_unavailable)}</p>"
        )
    else:
        needs = _needs(parameters, share, memory_bytes, seconds, t)
        parts.append(f"<p>{' '.join(filter(None, (needs, escape(unknown))))}</p>{_fits(fits or {}, t)}")
    more = "".join(f"<li>{escape(failure)}</li>" for failure in failures)
    source = f"<p>{t('html.paper')} {escape(paper)}</p>" if paper else ""
    if more or source:
        listed = f"<ul>{more}</ul>" if more else ""
        heading = t("html.known_failures") if more else t("html.paper").rstrip(":： ")
        parts.append(f"<details><summary>{heading}</summary>{listed}{source}</details>")
    return f'<div class="ctl-method{" ctl-off" if reason_unavailable else ""}">{"".join(parts)}</div>'


def _fits(fits: Mapping[str, bool], t: Translate) -> str:
    """Where a run fits, one mark a place."""
    if not fits:
        return ""
    marks = "".join(
        f'<li class="{"ctl-fits" if good else "ctl-full"}" title="{t("html.fits_yes" if good else "html.fits_no")}">'
        f'{escape(place)} <span aria-hidden="true">{"✓" if good else "✕"}</span>'
        f'<span class="ctl-said">{t("html.fits_yes" if good else "html.fits_no")}</span></li>'
        for place, good in fits.items()
    )
    return f'<div class="ctl-places"><span>{t("html.fits_on")}</span><ul>{marks}</ul></div>'


def _needs(parameters: int, share: float, memory: float | None, seconds: float | None, t: Translate) -> str:
    """The forecast in one sentence."""
    if parameters == 0 and not _known(seconds):
        return t("html.needs_nothing")
    known = {"parameters": count_text(parameters, t), "share": percent_text(share, t)}
    if not (_known(memory) and _known(seconds)):
        return t("html.needs_parameters", **known)
    return t("html.needs", memory=bytes_text(memory), time=time_text(seconds, t), **known)  # type: ignore[arg-type]


def loading(name: str, done: int, total: int, t: Translate) -> str:
    """Return a thin bar for a backbone that is being downloaded, or a sentence while it is being loaded."""
    if not total:
        return f'<p class="ctl-detail" role="status">{t("header.loading", name=escape(name))}</p>'
    text = t("header.downloading", name=escape(name), done=f"{done / 1e6:.0f}", size=f"{total / 1e6:.0f}")
    return bar(min(1.0, done / total), text)


def queue_place(place: tuple[int, float], t: Translate) -> str:
    """Return how many runs come before a visitor's own, and for about how long; of less than a second nothing is
    said."""
    before, seconds = place
    text = t("go.waiting_for", count=max(1, before))
    if seconds >= 1:
        text = f"{text} {t('go.waiting_time', time=time_text(seconds, t))}"
    return f'<p class="ctl-hint" role="status">{text}</p>'


def bar(share: float, detail: str) -> str:
    """Return a thin bar, ``share`` 0 to 1, with words below it."""
    return (
        f'<div class="ctl-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><div class="ctl-track"><div class="ctl-fill" '
        f'style="width:{100 * share:.1f}%"></div></div><div class="ctl-detail">{detail}</div></div>'
    )


def progress(stage: str, done: int, total: int, seconds_left: float | None, loss: float | None, t: Translate) -> str:
    """Return a thin bar with words. ``stage`` is ``features``, ``prepare``, ``train`` or ``evaluate``."""
    share = min(1.0, max(0.0, done / total)) if total else 0.0
    words = [f"<b>{t(f'html.stage_{stage}')}</b>"]
    if total:
        words.append(t("html.progress_count", done=f"{done:,}", total=f"{total:,}"))
    if _known(loss):
        words.append(t("html.progress_loss", value=f"{loss:.3f}"))
    if _known(seconds_left) and share < 1:
        words.append(t("html.progress_left", time=time_text(max(0.0, seconds_left or 0.0), t)))
    return bar(share, " · ".join(words))
