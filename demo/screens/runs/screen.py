"""The Runs screen: this visitor's earlier runs; reopen, compare two, delete."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import gradio as gr

from demo import html, tasks
from demo.page import HIDDEN, Key, Screen, Surroundings, Visit
from demo.screens.tune import service as tuning
from demo.words import Translator
from demo.workspace import RunRecord
from engine.units import bytes_text

SIGNS = html.VERDICT_SIGNS


class Runs(Screen):
    """Components of the screen."""

    name = "runs"

    def build(self) -> None:
        """Create the components."""
        page = self.page
        self.table = gr.HTML("", padding=False, elem_id="runs-table")
        with gr.Row(elem_id="runs-row", elem_classes=HIDDEN) as self.row:
            self.first = page.make(gr.Dropdown, choices=[], label=Key("runs.run"), min_width=200, elem_id="run")
            self.second = page.make(
                gr.Dropdown, choices=[], label=Key("runs.compare"), min_width=200, elem_id="run-other"
            )
            self.reopen = page.make(
                gr.Button, value=Key("runs.reopen"), variant="primary", size="sm", min_width=100, elem_id="reopen"
            )
            self.delete = page.make(gr.Button, value=Key("runs.delete"), size="sm", min_width=100, elem_id="delete-run")
        self.differences = gr.HTML("", padding=False, elem_id="runs-compare")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.table, self.row, self.first, self.second, self.differences]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Show the runs, the latest first."""
        runs, t = visit.workspace.runs[::-1], visit.t
        choices = [(_line(run, t), run.id) for run in runs]
        return {
            self.table: _table(runs, t) if runs else f'<p class="ctl-hint">{t("runs.none")}</p>',
            self.row: gr.update(elem_classes=[] if runs else HIDDEN),
            self.first: gr.update(choices=choices, value=runs[0].id if runs else None),
            self.second: gr.update(choices=[(t("runs.nothing"), ""), *choices], value=""),
            self.differences: "",
        }

    def bind(self, around: Surroundings) -> None:
        page, both, tune = self.page, [self.first, self.second], around.screens["tune"]
        page.on(around.tab.select, self.view, (), self.outputs)
        page.on([self.first.input, self.second.input], self._compare, both, [self.differences])
        page.on(self.delete.click, self._delete, both, [*self.outputs, page.version])

        def reopen(visit: Visit) -> dict[Any, Any]:
            if not visit[self.first]:
                return {}
            tuning.reopen(visit.workspace, visit[self.first])
            tasks.translate_sample(visit.workspace, visit.t.language)
            place = {around.tabs: gr.update(selected=tune.name), around.backbone: visit.workspace.backbone}
            return {**tune.view(visit), **place}

        outputs = [*tune.outputs, around.tabs, around.backbone]
        page.on(self.reopen.click, reopen, [*both, *tune.shown], outputs)

    def _delete(self, visit: Visit) -> dict[Any, Any]:
        if visit[self.first]:
            visit.workspace.forget(visit[self.first])
        return {**self.view(visit), self.page.version: visit.workspace.version}

    def _compare(self, visit: Visit) -> dict[Any, Any]:
        pair = [visit.workspace.record(visit[c] or "") for c in (self.first, self.second)]
        if pair[0] is None or pair[1] is None:
            return {self.differences: ""}
        return {self.differences: _differences(pair[0], pair[1], visit.t)}


def _clock(run: RunRecord) -> str:
    return time.strftime("%H:%M", time.localtime(run.when))


def _accuracy(run: RunRecord, key: str) -> str:
    return f"{100 * run.result.accuracy[key]:.0f} %"


def _line(run: RunRecord, t: Translator) -> str:
    return f"{_clock(run)} · {t.name(run.result.method)} · {_accuracy(run, 'tuned')} · {run.task}"


def _facts(run: RunRecord, t: Translator) -> dict[str, str]:
    """Column -> cell, escaped."""
    result = run.result
    size = t("runs.size_text", labels=len(result.labels), images=len(run.inputs.images), shots=result.shots)
    word = result.verdict.word
    verdict = f'<span aria-hidden="true">{SIGNS.get(word, "")}</span> {t("verdict." + word)}'
    return {
        "time": _clock(run),
        "method": escape(t.name(result.method)),
        "task": escape(run.task),
        "size": size,
        "accuracy": f"{_accuracy(run, 'zero_shot_ensemble')} → <b>{_accuracy(run, 'tuned')}</b>",
        "verdict": verdict,
        "parameters": html.count_text(result.cost.trainable_parameters, t),
        "memory": bytes_text(result.cost.peak_memory_bytes),
        "seconds": html.time_text(sum(result.cost.seconds.values()), t),
    }


def _table(runs: list[RunRecord], t: Translator) -> str:
    rows = [_facts(run, t) for run in runs]
    head = "".join(f"<th scope='col'>{t(f'runs.{name}')}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row.values()) + "</tr>" for row in rows)
    table = f'<table class="ctl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="ctl-scroll">{table}</div>'


def _differences(first: RunRecord, second: RunRecord, t: Translator) -> str:
    """Two runs beside each other; rows that differ are marked."""
    pairs = [(t(f"runs.{name}"), cell, _facts(second, t)[name]) for name, cell in _facts(first, t).items()]
    left, right = (
        {
            **run.result.config,
            "seed": run.result.seed,
            "preset": run.result.preset,
            "backbone": run.result.backbone,
            "templates": run.result.template_set,
        }
        for run in (first, second)
    )
    for name in dict.fromkeys([*left, *right]):
        pairs.append((escape(name), escape(str(left.get(name, "—"))), escape(str(right.get(name, "—")))))
    rows = "".join(
        f'<tr{" class=ctl-differs" if a != b else ""}><th scope="row">{name}</th><td>{a}</td><td>{b}</td></tr>'
        for name, a, b in pairs
    )
    return f'<div class="ctl-scroll"><table class="ctl-table"><tbody>{rows}</tbody></table></div>'
