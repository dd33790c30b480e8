"""The Continual screen's pieces as HTML strings: matrices, standings, advice, chosen prompts. No gradio; everything
that a user typed is escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demo.html import bytes_text, time_text
from demo.screens.learn.lessons import paper
from demo.words import Translator

if TYPE_CHECKING:
    from engine.continual.results import Selection, Standing, StrategyResult
    from engine.continual.strategy import StrategySpec
    from engine.errors import Note
    from engine.types import Interval

MEASURES = ("accuracy", "forgetting", "backward", "forward", "never_tuned", "open")
"""Columns of the standings."""
SIGNED = ("backward", "forward")
PICTURE = 48
"""Pixels of a prompt's picture."""


def name_of(strategy: str, t: Translator) -> str:
    """Return a strategy's name, escaped."""
    return escape(t.engine(f"strategy.{strategy}.name", {}))


def percent(value: float) -> str:
    """Return a share in percent without its sign; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{100 * value:.0f}"


def matrices(results: Iterable[StrategyResult], now: str, t: Translator) -> str:
    """Return small multiples: a matrix a strategy, each as far as it has come."""
    cards = [matrix(result, t, working=result.strategy == now and result.stopped) for result in results]
    return f'<div class="ctl-matrices">{"".join(cards)}</div>' if cards else ""


def matrix(result: StrategyResult, t: Translator, working: bool = False) -> str:
    """Return a strategy's accuracy matrix as a table whose cells are coloured: a picture that can be read aloud."""
    steps = len(result.step_labels)
    titles = [escape(", ".join(names)) for names in result.step_labels]
    head = "".join(f'<th scope="col" title="{title}">{number}</th>' for number, title in enumerate(titles, 1))
    rows = []
    for i in range(steps):
        values = result.matrix[i] if i < len(result.matrix) else [math.nan] * steps
        cells = "".join(_cell(float(value), j > i, titles[j]) for j, value in enumerate(values))
        rows.append(f'<tr><th scope="row">{i + 1}</th>{cells}</tr>')
    state = f" <small>{t('continual.working')}</small>" if working else ""
    end = t("continual.at_end", accuracy=percent(result.measures["accuracy"]))
    lost = result.measures["forgetting"]
    lost_text = "" if math.isnan(lost) else " · " + t("continual.lost", points=f"{100 * lost:.1f}")
    return (
        f'<figure class="ctl-matrix"><figcaption><b>{name_of(result.strategy, t)}</b>{state}<br>'
        f'<span class="ctl-small">{end}{lost_text}</span></figcaption><table><thead><tr>'
        f'<th scope="col" title="{t("continual.after_title")}">{t("continual.after")}</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></figure>"
    )


def _cell(value: float, later: bool, title: str) -> str:
    if math.isnan(value):
        return '<td class="ctl-unknown">–</td>'
    kind = ' class="ctl-later"' if later else ""
    return f'<td{kind} style="--share:{100 * value:.0f}%" title="{title}">{percent(value)}</td>'


def legend(results: Sequence[StrategyResult], t: Translator) -> str:
    """Return how the matrices are read, and which labels each step brings."""
    if not results:
        return ""
    steps = "".join(f"<li>{escape(', '.join(names))}</li>" for names in results[0].step_labels)
    return (
        f'<p class="ctl-hint">{t("continual.legend")}</p><details class="ctl-small"><summary>'
        f"{t('continual.steps_are')}</summary><ol>{steps}</ol></details>"
    )


def standings(rows: Sequence[Standing], t: Translator) -> str:
    """Return the strategies side by side, best first; empty before any is done."""
    if not rows:
        return ""
    names = [
        *(f"continual.measure.{name}" for name in MEASURES),
        "continual.trained",
        "continual.kept",
        "continual.of_old",
        "continual.seconds",
    ]
    head = "".join(f'<th scope="col">{t(key)}</th>' for key in ("continual.strategy", *names))
    body = []
    for row in rows:
        cells = [interval_text(row.measures[name], name in SIGNED) for name in MEASURES]
        cells += [f"{row.trained_parameters:,}", bytes_text(row.kept_bytes), escape(t.engine(f"keeps.{row.keeps}", {}))]
        cells.append(time_text(row.seconds, t))
        body.append(
            f'<tr><th scope="row">{name_of(row.strategy, t)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    return (
        f'<h3 class="ctl-group">{t("continual.side_by_side")}</h3><div class="ctl-scroll">'
        f'<table class="ctl-table ctl-ranking">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="ctl-hint">{t("continual.measures_hint")}</p>'
    )


def interval_text(value: Interval, signed: bool = False) -> str:
    """Return percent or points with half the interval over the orders, where there are several."""
    if math.isnan(value.value):
        return "–"
    text = f"{100 * value.value:{'+' if signed else ''}.1f}"
    return text if math.isnan(value.low) else f"{text} ± {100 * (value.high - value.value):.1f}"


def advice(notes: Sequence[Note], t: Translator) -> str:
    """Return the recommendation, its first sentence in bold."""
    if not notes:
        return ""
    first, *rest = (escape(t.engine(note.key, dict(note.values))) for note in notes)
    items = "".join(f"<li>{text}</li>" for text in rest)
    more = f"<ul>{items}</ul>" if rest else ""
    return f'<div class="ctl-verdict ctl-better ctl-advice" role="status"><div><b>{first}</b>{more}</div></div>'


def selections(results: Iterable[StrategyResult], t: Translator) -> str:
    """Return for each strategy with a pool how often each prompt was chosen for each label."""
    parts = [selection(r.strategy, r.labels, r.selection, t) for r in results if r.selection is not None]
    return f'<h3 class="ctl-group">{t("continual.selection")}</h3>{"".join(parts)}' if parts else ""


def selection(strategy: str, names: Sequence[str], found: Selection, t: Translator) -> str:
    """Return a table of labels by prompts, with the pictures of prompts that have one, and what a test says."""
    shares = found.counts / np.maximum(1, np.array(found.images))[:, None]
    head = "".join(_prompt_head(m, found, t) for m in range(found.counts.shape[1]))
    rows = ""
    for k, name in enumerate(names):
        if found.images[k]:
            cells = "".join(_cell(float(share), False, escape(name)) for share in shares[k])
            rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    depends = "depends" if found.p_value < 0.05 else "does_not_depend"
    said = t(f"continual.{depends}", p=f"{found.p_value:.3f}", strength=f"{found.cramers_v:.2f}")
    own = "".join(
        "<li>"
        + escape(t("continual.other_choice", number=m + 1, own=mine, most=most, own_share=percent(a), top=percent(b)))
        + "</li>"
        for m, mine, most, a, b in found.own_choice(names)
        if mine != most
    )
    return (
        f'<figure class="ctl-matrix ctl-selection"><figcaption><b>{name_of(strategy, t)}</b></figcaption>'
        f'<div class="ctl-scroll"><table><thead><tr><th scope="col">{t("continual.prompt")}</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>{said}</p>{f'<ul>{own}</ul>' if own else ''}</figure>"
    )


def _prompt_head(m: int, found: Selection, t: Translator) -> str:
    began = escape(found.began_as[m]) if m < len(found.began_as) else ""
    pictures = ""
    if m < len(found.pictures):
        title = t("continual.began_as", label=began)
        pictures = "".join(
            f'<br><img src="{data_uri(picture)}" alt="{title}" title="{title}" width="{PICTURE}">'
            for picture in (found.starts[m], found.pictures[m])
        )
    return f'<th scope="col">{m + 1}{pictures}</th>'


def data_uri(picture: np.ndarray) -> str:
    """Return an RGB picture as a PNG inside the page."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def added(result: StrategyResult, t: Translator) -> str:
    """Return what a new label changed: old and new accuracy."""
    last = result.matrix[-1]
    old = result.matrix[-2][:-1] if len(result.matrix) > 1 else []
    known = [(before, after) for before, after in zip(old, last[:-1], strict=False) if not math.isnan(before + after)]
    before, after = (float(np.mean(side)) for side in (np.array(known).T if known else (math.nan, math.nan)))
    said = t(
        "continual.added",
        label=escape(result.step_labels[-1][0]),
        new=percent(float(last[-1])),
        tested=result.tested[-1],
        before=percent(before),
        after=percent(after),
    )
    return f'<p role="status"><b>{name_of(result.strategy, t)}</b>: {said}</p>'


def explained(specs: Sequence[StrategySpec], t: Translator) -> str:
    """Return what each strategy does, its equation, its paper and how it disappoints, folded away."""
    items = "".join(_explained(spec, t) for spec in specs)
    return f'<details class="ctl-small"><summary>{t("continual.explained")}</summary><dl>{items}</dl></details>'


def _explained(spec: StrategySpec, t: Translator) -> str:
    said = escape(t.engine(f"strategy.{spec.id}", {}))
    kept = t("continual.keeps", kept=escape(t.engine(f"keeps.{spec.keeps}", {})))
    failures = " ".join(escape(t.engine(f"strategy.{spec.id}.failures.{k}", {})) for k in range(len(spec.failures)))
    return (
        f"<dt><b>{name_of(spec.id, t)}</b></dt><dd>{said} {kept} <i>{failures}</i><br>"
        f"<code>{escape(spec.equation)}</code><br>{paper(spec.paper)}</dd>"
    )
