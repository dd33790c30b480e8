"""The Continual screen: steps and strategies on the left, what is learned and forgotten on the right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from demo import html, job_queue, labelling
from demo.html import queue_place
from demo.page import Key, Page, Screen, Surroundings, Visit
from demo.screens.compare.html import hint
from demo.screens.compare.screen import running
from demo.screens.continual import html as pieces
from demo.screens.continual import service
from demo.words import Translator
from engine.types import Progress

EVERY = 0.4
"""Seconds between two updates of the page while something is learned."""
SECONDS = 20.0
"""What a comparison of strategies usually takes, for its turn among others."""


class Continual(Screen):
    """The whole screen."""

    name = "continual"

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="continual", elem_classes="ctl-tune"):
            with gr.Column(scale=4, min_width=300, elem_id="continual-steps"):
                self._build_choice(page)
                self._build_adding(page)
            with gr.Column(scale=7, min_width=300, elem_id="continual-outcome"):
                page.html(_about, elem_id="continual-about")
                self.status = gr.HTML("", padding=False, elem_id="continual-status")
                self.advice = gr.HTML("", padding=False, elem_id="continual-advice")
                self.matrices = gr.HTML("", padding=False, elem_id="continual-matrices")
                self.table = gr.HTML("", padding=False, elem_id="continual-table")
                self.chosen = gr.HTML("", padding=False, elem_id="continual-chosen")

    def _build_choice(self, page: Page) -> None:
        self.number = page.make(
            gr.Slider,
            2,
            20,
            value=3,
            step=1,
            label=Key("continual.steps"),
            info=Key("continual.steps_info"),
            elem_id="continual-number",
        )
        self.by_hand = page.make(
            gr.Textbox,
            value="",
            label=Key("continual.by_hand"),
            info=Key("continual.by_hand_info"),
            elem_id="continual-by-hand",
        )
        self.strategies = page.make(
            gr.CheckboxGroup,
            choices=list(service.QUICK),
            value=list(service.QUICK),
            label=Key("continual.strategies"),
            info=Key("continual.strategies_info"),
            elem_id="continual-strategies",
        )
        self.explained = gr.HTML("", padding=False, elem_id="continual-explained")
        self.orders = page.make(
            gr.Slider,
            1,
            10,
            value=3,
            step=1,
            label=Key("continual.orders"),
            info=Key("continual.orders_info"),
            elem_id="continual-orders",
        )
        self.lwf = page.make(
            gr.Slider,
            0,
            1000,
            value=100,
            step=10,
            label=Key("continual.lwf"),
            info=Key("continual.lwf_info"),
            elem_id="continual-lwf",
        )
        self.go, self.stop = page.go_row("continual.go", "continual")

    def _build_adding(self, page: Page) -> None:
        page.html(lambda t: f'<h3 class="ctl-group">{t("continual.add")}</h3>{hint(t("continual.add_hint"))}')
        self.label = page.make(gr.Textbox, value="", label=Key("continual.add_label"), elem_id="continual-label")
        self.photos = page.make(
            gr.File,
            file_count="multiple",
            type="filepath",
            height=120,
            label=Key("continual.add_photos"),
            elem_id="continual-photos",
        )
        self.to = page.make(
            gr.Dropdown, choices=["gaussian"], value="gaussian", label=Key("continual.add_to"), elem_id="continual-to"
        )
        self.add = page.make(gr.Button, value=Key("continual.add_go"), size="sm", elem_id="continual-add")
        self.added = gr.HTML("", padding=False, elem_id="continual-added")

    # ---- showing

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.strategies, self.explained, self.to, self.go, self.add, *self.results]

    @property
    def results(self) -> list[Any]:
        """What came out."""
        return [self.status, self.advice, self.matrices, self.table, self.chosen, self.added]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Everything, for the workspace as it is."""
        workspace, t = visit.workspace, visit.t
        names = strategy_names(t)
        lacks = labelling.missing(workspace)
        able = bool(workspace.images) and not running(workspace)
        return {
            self.strategies: gr.update(choices=names),
            self.to: gr.update(choices=names),
            self.explained: pieces.explained(service.strategies(), t),
            self.go: gr.update(interactive=able),
            self.add: gr.update(interactive=able),
            **self.found(visit),
            self.status: gr.skip() if running(workspace) else hint(t(lacks[0], **lacks[1])) if lacks else "",
        }

    def found(self, visit: Visit) -> dict[Any, Any]:
        """Return what is there of the results."""
        from engine.continual.results import standings

        found, t = service.learned_of(visit.workspace), visit.t
        if found is None:
            return dict.fromkeys(self.results, "")
        rows = list(found.rows.values())
        old = found.version != visit.workspace.version and rows
        return {
            self.status: hint(t("continual.old")) if old else "",
            self.advice: pieces.advice(service.advice(found), t),
            self.matrices: pieces.matrices(found.first, found.now, t) + pieces.legend(found.first, t),
            self.table: pieces.standings(standings(rows), t),
            self.chosen: pieces.selections(found.first, t),
            self.added: pieces.added(found.added, t) if found.added else "",
        }

    # ---- events

    def bind(self, around: Surroundings) -> None:
        page = self.page
        page.on(around.tab.select, self.view, (), self.outputs, clears=False)
        page.on(page.version.change, self.view, (), self.outputs, clears=False)
        queue: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 16}
        outputs = [self.go, self.stop, self.add, *self.results]
        choice = [self.number, self.by_hand, self.strategies, self.orders, self.lwf]
        page.on(self.go.click, self._learn, choice, outputs, **queue)
        page.on(self.add.click, self._add, [self.label, self.photos, self.to], outputs, **queue)
        page.on(self.stop.click, _stop, (), (), queue=False)

    def _learn(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        workspace = visit.workspace
        if running(workspace):
            yield {self.status: hint(visit.t("compare.busy"))}
            return
        steps = str(visit[self.by_hand] or "").strip() or str(int(visit[self.number] or 2))
        request = service.Request(
            tuple(visit[self.strategies]), steps, int(visit[self.orders] or 1), float(visit[self.lwf] or 0)
        )
        found = service.start(workspace, request)
        yield from self._on_device(visit, partial(service.run, workspace, found, request))
        found.now = ""

    def _add(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        workspace = visit.workspace
        if running(workspace):
            yield {self.status: hint(visit.t("compare.busy"))}
            return
        found = service.learned_of(workspace) or service.Learned(workspace.version, workspace.backbone)
        workspace.continual = found
        name, paths = str(visit[self.label] or ""), [str(path) for path in visit[self.photos] or ()]

        def work(stop: threading.Event) -> Iterator[Progress]:
            for item in service.add_label(workspace, str(visit[self.to]), name, paths, stop):
                if isinstance(item, Progress):
                    yield item
                else:
                    found.added = item

        yield from self._on_device(visit, work)

    def _on_device(self, visit: Visit, work: Callable[[threading.Event], Iterator[Any]]) -> Iterator[dict[Any, Any]]:
        """Do something on the device thread and show what comes; what is done when the visitor stops it stays."""
        workspace, t = visit.workspace, visit.t
        problem: dict[Any, Any] = {}
        try:
            with workspace.working() as stop:
                yield {**self._buttons(True), **self.found(visit), self.page.notice: ""}
                job = job_queue.SHARED.submit(partial(work, stop), stop, SECONDS)
                for latest in job.watch(EVERY):
                    waiting = not job.started.is_set()
                    status = queue_place(job_queue.SHARED.place(job), t) if waiting else self._progress(visit, latest)
                    yield {**self.found(visit), self.status: status}
        except Exception as error:
            problem = self.page.explain(error, t.language)
        if learned := service.learned_of(workspace):
            learned.now = ""
        yield {**self._buttons(False), **self.found(visit), **problem}

    def _progress(self, visit: Visit, item: Any) -> str:
        t = visit.t
        if not isinstance(item, Progress):
            return ""
        learned = service.learned_of(visit.workspace)
        now = learned.now if learned else ""
        words = pieces.name_of(now, t) if now else ""
        text = " · ".join(part for part in (words, t(f"html.stage_{item.stage}")) if part)
        return html.bar(item.done / item.total if item.total else 0.0, text)

    def _buttons(self, busy: bool) -> dict[Any, Any]:
        state = gr.update(interactive=not busy)
        return {self.go: state, self.add: state, self.stop: gr.update(interactive=busy)}


def _stop(visit: Visit) -> dict[Any, Any]:
    if visit.workspace.stop:
        visit.workspace.stop.set()
    return {}


def _about(t: Translator) -> str:
    """Return heading and promise of the screen."""
    return f"<h2>{t('continual.title')}</h2><p>{t('continual.about')}</p>"


def strategy_names(t: Translator) -> list[tuple[str, str]]:
    """Return the strategies' names for a menu, with their ids."""
    return [(t.engine(f"strategy.{spec.id}.name", {}), spec.id) for spec in service.strategies()]
