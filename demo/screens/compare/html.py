"""The Compare screen's pieces as HTML strings. Pure functions without gradio; everything a user typed is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from demo import html
from demo.html import VERDICT_SIGNS, Translate, count_text, time_text
from engine.units import bytes_text

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.compare import Advice, Ranking, Row, Standing
    from engine.metrics.calibration import Calibration
    from engine.types import Interval, Note

Say = Callable[["Note"], str]
"""From a note of the engine to its sentence in the visitor's language."""


def hint(text: str) -> str:
    """Return a sentence beside a control; ``text`` is HTML."""
    return f'<p class="ctl-hint" role="status">{text}</p>' if text else ""


def outlook(runs: int, reused: int, seconds: float, complete: bool, t: Translate) -> str:
    """Return what a comparison would take, before it is started."""
    known = t("compare.reused", count=reused) if reused else ""
    if not runs:
        return hint(f"{t('compare.nothing_left')} {known}")
    if not complete:
        return hint(f"{t('compare.reckoning', runs=runs)} {known}")
    return hint(f"{t('compare.outlook', runs=runs, time=time_text(seconds, t))} {known}")


def progress(done: int, total: int, what: str, seconds_left: float | None, t: Translate) -> str:
    """Return how far a comparison has come. ``what`` is escaped here."""
    share = min(1.0, done / total) if total else 0.0
    words = [t("compare.done_of", done=done, total=total)] if total else []
    words += [escape(what)] if what else []
    words += [t("compare.left", time=time_text(seconds_left, t))] if seconds_left else []
    return html.bar(share, " · ".join(words))


# ---- while it runs --------------------------------------------------------------------------------


def arriving(rows: Sequence[Row], name: Callable[[str], str], t: Translate) -> str:
    """Return methods with what is there of them, the most accurate first."""
    done = [row for row in rows if row.result]
    if not done:
        return ""
    largest: dict[str, int] = {}
    for row in done:
        largest[row.method] = max(largest.get(row.method, 0), row.shots or 0)
    lines = []
    for method, shots in largest.items():
        found = [row.result for row in done if row.method == method and row.shots == shots and row.result]
        value = sum(result["accuracy"]["tuned"] for result in found) / len(found)
        seconds = sum(sum(result["seconds"].values()) for result in found) / len(found)
        count = sum(row.method == method for row in done)
        lines.append((value, [
            escape(name(method)), _percent(value, t), str(shots), str(count),
            count_text(found[0]["trainable_parameters"], t), time_text(seconds, t),
        ]))  # fmt: skip
    lines.sort(key=lambda line: -line[0])
    heads = ("method", "accuracy", "shots", "runs", "parameters", "seconds")
    return table([t(f"compare.{key}") for key in heads], [cells for _, cells in lines], numbers_from=1)


# ---- advice and ranking ---------------------------------------------------------------------------


def advice(found: Advice | None, stopped: bool, say: Say, t: Translate) -> str:
    """Return the recommendation with its reasons; what the limits left out is folded away."""
    if found is None:
        return ""
    first, *rest = [escape(say(note)) for note in found.notes] or [""]
    reasons = "".join(f"<li>{sentence}</li>" for sentence in rest)
    tone, sign = ("worse", "⊘") if found.method is None else ("better", "★")
    standing = found.ranking.standing(found.method) if found.method else None
    if standing is not None and standing.family == "baseline":
        tone, sign = "baseline", VERDICT_SIGNS["baseline"]
    more = f"<p class='ctl-small'>{t('compare.stopped')}</p>" if stopped else ""
    if found.excluded:
        items = "".join(f"<li>{escape(say(note))}</li>" for _, note in found.excluded)
        more += (
            f"<details><summary>{t('compare.excluded', count=len(found.excluded))}</summary><ul>{items}</ul></details>"
        )
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    return (
        f'<div class="ctl-verdict ctl-{tone} ctl-advice" role="status"><span class="ctl-sign" aria-hidden="true">'
        f"{sign}</span><div><b>{first}</b>{listed}{more}</div></div>"
    )


def standings(ranking: Ranking, within: Ranking, chosen: str | None, name: Callable[[str], str], t: Translate) -> str:
    """Return methods by group, first those within the limits; the others are faded and have no group.

    Args:
        ranking: all methods.
        within: those within the limits, grouped among themselves.
        chosen: the recommended one.
    """
    heads = ["method", "accuracy", "over", "parameters", "memory", "seconds", "file"]
    damage = any(standing.loss is not None for standing in ranking.standings)
    heads += ["loss"] if damage else []
    columns = len(heads)
    body, group = "", 0
    sizes = [standing.group for standing in within.standings]
    for standing in within.standings:
        if standing.group != group:
            group = standing.group
            close = sizes.count(group) > 1
            title = t("compare.group_close" if close else "compare.group", number=group)
            body += f'<tr class="ctl-band"><th colspan="{columns}" scope="rowgroup">{title}</th></tr>'
        body += _standing(standing, standing.method == chosen, False, damage, name(standing.method), t)
    left_out = [s for s in ranking.standings if within.standing(s.method) is None]
    if left_out:
        body += f'<tr class="ctl-band"><th colspan="{columns}" scope="rowgroup">{t("compare.beyond")}</th></tr>'
        body += "".join(_standing(standing, False, True, damage, name(standing.method), t) for standing in left_out)
    head = "".join(f"<th scope='col'>{t(f'compare.{key}')}</th>" for key in heads)
    note = t("compare.table_note", tested=ranking.tested, shots=ranking.shots, seeds=len(ranking.seeds))
    return (
        f'{hint(note)}<div class="ctl-scroll"><table class="ctl-table ctl-ranking"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _standing(standing: Standing, chosen: bool, faded: bool, damage: bool, name: str, t: Translate) -> str:
    over = ""
    if standing.word != "baseline":
        sign, word = VERDICT_SIGNS[standing.word], t(f"verdict.{standing.word}")
        over = f'<span title="{word}" aria-label="{word}">{sign} {signed(standing.over_zero_shot.value)}</span>'
    star = '<span aria-hidden="true">★</span> ' if chosen else ""
    family = t(f"family.{standing.family}")
    cells = [
        f"{star}{escape(name)}<br><span class='ctl-small'>{family}</span>",
        interval(standing.accuracy, t),
        over,
        count_text(standing.parameters, t),
        bytes_text(standing.memory_bytes),
        time_text(standing.seconds, t),
        bytes_text(standing.adapter_bytes),
    ]
    if damage:
        cells.append(html.NOTHING if standing.loss is None else signed(-standing.loss))
    classes = [
        name
        for name, holds in (
            ("ctl-chosen", chosen), ("ctl-faded", faded), ("ctl-zero", standing.family == "baseline")
        )
        if holds
    ]  # fmt: skip
    return f'<tr class="{" ".join(classes)}">{_cells(cells, 1)}</tr>'


def failed(rows: Sequence[Row], name: Callable[[str], str], say: Say, t: Translate) -> str:
    """Return methods that did not run, each with its reason, folded away."""
    reasons = {(row.method, say(row.error)): None for row in rows if row.error is not None}
    if not reasons:
        return ""
    items = "".join(f"<li><b>{escape(name(method))}</b> {escape(why)}</li>" for method, why in reasons)
    return (
        f'<details class="ctl-problems"><summary>{t("compare.not_run", count=len(reasons))}</summary>'
        f"<ul>{items}</ul></details>"
    )


# ---- damage, calibration, wrong labels --------------------------------------------------------------


def calibration(found: Mapping[str, Calibration], name: Callable[[str], str], t: Translate) -> str:
    """Calibration of every method, the best calibrated first."""
    rows = [
        [
            escape(name(method)),
            f"{100 * c.ece:.1f}",
            f"{c.brier:.2f}",
            _percent(c.confidence, t),
            _percent(c.accuracy, t),
        ]
        for method, c in sorted(found.items(), key=lambda item: item[1].ece)
    ]
    heads = ("method", "ece", "brier", "confidence", "accuracy")
    return table([t(f"compare.{key}") for key in heads], rows, numbers_from=1) if rows else ""


def damage(found: Sequence[Forgetting], name: Callable[[str], str], t: Translate) -> str:
    """Return accuracy on labels that were not tuned on, the least damage first."""
    if not found:
        return ""
    note = t(
        "compare.damage_note",
        tuned=escape(", ".join(found[0].tuned_on)),
        others=escape(", ".join(found[0].others)),
    )
    rows = [
        [
            escape(name(d.method)),
            _change(d.tuned_labels, t),
            _change(d.other_labels, t),
            f"{VERDICT_SIGNS[d.verdict.word]} {t(f'verdict.{d.verdict.word}')}",
            f"{d.drift.image:.3f}",
            f"{d.drift.text:.3f}",
        ]
        for d in sorted(found, key=lambda d: d.loss)
    ]
    heads = ("method", "on_tuned", "on_others", "damage_verdict", "drift_images", "drift_texts")
    listed = table([t(f"compare.{key}") for key in heads], rows, numbers_from=1)
    return hint(note) + listed + hint(t("compare.drift_hint"))


def _change(pair: tuple[Interval, Interval], t: Translate) -> str:
    before, after = (_percent(side.value, t) for side in pair)
    return f'<span class="ctl-before">{before}</span> → <span class="ctl-after">{after}</span>'


def suspect(
    picture: str, file: str, given: str, suggested: str, agree: float, left: int, judges: Sequence[str], t: Translate
) -> str:
    """Return an image whose label may be wrong, with what the methods say.

    Args:
        picture: data URI of a thumbnail, empty where there is none.
        left: suspects that are open, this one included.
    """
    shown = f'<img src="{picture}" alt="{escape(file)}">' if picture else ""
    says = t("compare.suspect", given=escape(given), suggested=escape(suggested), agree=f"{100 * agree:.0f}")
    by = t("compare.judges", methods=escape(", ".join(judges)))
    rest = t("compare.suspects_left", count=left)
    return (
        f'<div class="ctl-suspect">{shown}<div><p>{says}</p><p class="ctl-small">{escape(file)} · {by}</p>'
        f'<p class="ctl-small">{rest}</p></div></div>'
    )


# ---- small things -----------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """A table that scrolls where it is too wide. Cells are HTML; those from ``numbers_from`` on stay on one line."""
    head = "".join(f"<th scope='col'>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{_cells(row, len(row) if numbers_from is None else numbers_from)}</tr>" for row in rows)
    return (
        f'<div class="ctl-scroll"><table class="ctl-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(cells: Sequence[str], numbers_from: int) -> str:
    return "".join(
        f'<td class="ctl-numeric">{cell}</td>' if k >= numbers_from else f"<td>{cell}</td>"
        for k, cell in enumerate(cells)
    )


def _percent(share: float, t: Translate) -> str:
    return t("number.percent", value=f"{100 * share:.0f}") if share == share else html.NOTHING


def interval(share: Interval, t: Translate) -> str:
    """``84 %`` with its 95 % interval in small print."""
    return (
        f'<b>{_percent(share.value, t)}</b> <span class="ctl-small">{100 * share.low:.0f}–{100 * share.high:.0f}</span>'
    )


def signed(share: float) -> str:
    """Percentage points with their sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def facts(standing: Any, t: Translate) -> tuple[tuple[str, str], ...]:
    """Return what the pointer shows of a method in the plot."""
    return (
        (t("compare.parameters"), count_text(standing.parameters, t)),
        (t("compare.memory"), bytes_text(standing.memory_bytes)),
        (t("compare.seconds"), time_text(standing.seconds, t).replace("&lt;", "<")),
        (t("compare.file"), bytes_text(standing.adapter_bytes)),
        (t("compare.over"), "" if standing.word == "baseline" else signed(standing.over_zero_shot.value)),
    )
