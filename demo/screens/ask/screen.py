"""The Ask screen: the picture with its marks and the question on the left, three answers side by side on the right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from demo import html, job_queue
from demo.html import queue_place
from demo.model_download import ANSWERERS, Loading
from demo.page import Key, Page, Screen, Surroundings, Visit
from demo.screens.ask import html as pieces
from demo.screens.ask import service
from demo.screens.compare.html import hint
from demo.screens.compare.screen import running
from demo.screens.regions import service as regions
from demo.words import Translator

SHOW_ANSWERS = """() => window.ctlShow("#ask-outcome", "#ask-answers")"""
"""Puts the answers in view, where they come."""
EVERY = 0.3
"""Seconds between two updates of the page while something is answered."""
SECONDS = 5.0
"""What an answer usually takes, for its turn among others."""
EXAMPLES = ("what", "which", "many", "colour", "describe")


class Ask(Screen):
    """The whole screen."""

    name = "ask"

    def __init__(self, page: Page):
        super().__init__(page)
        self.examples: dict[str, Any] = {}

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="ask", elem_classes="ctl-tune"):
            with gr.Column(scale=4, min_width=300, elem_id="ask-steps"):
                self._build_picture()
                self._build_question()
            with gr.Column(scale=7, min_width=300, elem_id="ask-outcome"):
                page.html(_about, elem_id="ask-about")
                self.status = gr.HTML("", padding=False, elem_id="ask-status")
                self.answers = gr.HTML("", padding=False, elem_id="ask-answers")
                page.html(lambda t: f'<h3 class="ctl-group">{t("ask.check")}</h3>{hint(t("ask.check_hint"))}')
                self.check = page.make(gr.Button, value=Key("ask.check_go"), size="sm", elem_id="ask-check")
                self.checked = gr.HTML("", padding=False, elem_id="ask-checked")

    def _build_picture(self) -> None:
        page = self.page
        page.html(lambda t: html.step_title(1, t("ask.step_picture")) + hint(t("ask.picture_hint")))
        self.picture = gr.HTML("", padding=False, elem_id="ask-picture")
        self.mark = page.make(gr.Button, value=Key("ask.mark"), size="sm", elem_id="ask-mark")

    def _build_question(self) -> None:
        page = self.page
        page.html(lambda t: html.step_title(2, t("ask.step_question")))
        self.question = page.make(
            gr.Textbox,
            value="",
            lines=2,
            max_lines=4,
            label=Key("ask.question"),
            placeholder=Key("ask.placeholder"),
            elem_id="ask-question",
        )
        with gr.Row(elem_classes="ctl-actions", elem_id="ask-examples"):
            for name in EXAMPLES:
                self.examples[name] = page.make(
                    gr.Button, value=Key(f"ask.example.{name}"), size="sm", min_width=120, elem_id=f"ask-{name}"
                )
        self.tokens = gr.HTML("", padding=False, elem_id="ask-tokens")
        self.model = page.make(
            gr.Dropdown,
            choices=[("Pocket VLM", "pocket")],
            value="pocket",
            label=Key("ask.model"),
            info=Key("ask.model_info"),
            elem_id="ask-model",
        )
        self.go, self.stop = page.go_row("ask.go", "ask")

    # ---- showing

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.picture, self.mark, self.model, self.go, self.check, self.answers, self.checked, self.status]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Everything, for the workspace as it is; nothing is computed."""
        workspace, t = visit.workspace, visit.t
        there = regions.marked_of(workspace).scene is not None
        able = there and not running(workspace)
        return {
            self.mark: gr.update(interactive=able),
            self.go: gr.update(interactive=able),
            self.check: gr.update(interactive=bool(workspace.images) and not running(workspace)),
            self.model: gr.update(choices=model_choices(t), value=service.conversation_of(workspace).model),
            self.status: gr.skip() if running(workspace) else "",
            **self.found(visit),
        }

    def found(self, visit: Visit) -> dict[Any, Any]:
        """Return the picture and what was said about it."""
        from engine.ask.prompts import WAYS

        workspace, t = visit.workspace, visit.t
        said = service.conversation_of(workspace)
        return {
            self.picture: pieces.picture(service.picture_of(workspace), t),
            self.answers: pieces.answers(said.answers, WAYS, t),
            self.checked: pieces.checked(said.checked, said.sample, t),
        }

    # ---- events

    def bind(self, around: Surroundings) -> None:
        page = self.page
        page.on(around.tab.select, self._open, (), self.outputs)
        page.on(page.version.change, self.view, (), self.outputs, clears=False)
        for name, button in self.examples.items():
            page.on(button.click, partial(self._example, name), (), [self.question, self.tokens])
        page.on(self.question.change, self._count, [self.question, self.model], [self.tokens], clears=False)
        queue: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 16}
        outputs = [*self.outputs, self.stop]
        page.on(self.mark.click, self._mark, (), outputs)
        for asked in (self.go.click, self.question.submit):
            answered = page.on(asked, self._ask, [self.question], outputs, **queue)
            answered.success(None, None, None, js=SHOW_ANSWERS, api_visibility="private")
        self.go.click(None, None, None, js=SHOW_ANSWERS, api_visibility="private")
        page.on(self.check.click, self._check, (), outputs, **queue)
        page.on(self.stop.click, _halt, (), (), queue=False)
        page.on(self.model.input, self._choose, [self.model], outputs, concurrency_id="download", concurrency_limit=4)

    def _open(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Start with the picture that is open in Tune, unless Regions works on another one."""
        yield self.view(visit)
        if (position := regions.fresh(visit.workspace)) is not None:
            yield {self.status: hint(visit.t("regions.reading"))}
            regions.take_image(visit.workspace, position)
            yield {**self.view(visit), self.page.notice: ""}

    def _example(self, name: str, visit: Visit) -> dict[Any, Any]:
        """Put an example into the box, in English, which every model reads."""
        marks = service.marks_of(visit.workspace)
        return {self.question: Translator("en")(f"ask.example.{name}_text", mark=marks[0].number if marks else 1)}

    def _count(self, visit: Visit) -> dict[Any, Any]:
        """Say what the question costs in tokens, where the model is in memory."""
        from engine.ask import catalog

        text, name = str(visit[self.question] or "").strip(), str(visit[self.model])
        if not text or not catalog.loaded(name):
            return {self.tokens: ""}
        answerer, t = catalog.load(name), visit.t
        said = t("ask.tokens", count=answerer.count_tokens(text), letters=len(text))
        foreign = any(ord(c) > 0x2FF and c.isalpha() for c in text) and "ko" not in answerer.languages
        return {self.tokens: hint(f"{said} {t('ask.english_only', model=answerer.name)}" if foreign else said)}

    def _mark(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Mark everything that is found in the picture."""
        marked, t = regions.marked_of(visit.workspace), visit.t
        marked.granularity = "objects"
        yield {self.mark: gr.update(interactive=False), self.page.notice: ""}
        for done, total in regions.find_everything(marked, EVERY):
            yield {self.status: html.bar(done / total, t("regions.finding"))}
        yield self.view(visit)

    def _ask(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        found = service.conversation_of(visit.workspace)
        work = partial(service.ask, visit.workspace, str(visit[self.question] or ""), found.model)
        yield from self._on_device(visit, work)

    def _check(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        found = service.conversation_of(visit.workspace)
        yield from self._on_device(visit, partial(service.check, visit.workspace, found.model))

    def _choose(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Change the model, downloaded where it is not here."""
        found, wanted, t = service.conversation_of(visit.workspace), str(visit[self.model]), visit.t
        job = Loading(wanted, ANSWERERS)
        problem: dict[Any, Any] = {}
        try:
            for done, total in job.watch(EVERY):
                yield {self.status: html.loading(wanted, done, total, t), self.page.notice: ""}
            found.model = wanted
        except Exception as error:
            problem = self.page.explain(error, t.language)
        finally:
            job.stop.set()
        yield {**self.view(visit), **problem}

    def _on_device(self, visit: Visit, work: Callable[[threading.Event], Iterator[Any]]) -> Iterator[dict[Any, Any]]:
        """Do something on the device thread and show what comes; what was said when it is stopped stays."""
        workspace, t = visit.workspace, visit.t
        if running(workspace):
            yield {self.status: hint(t("compare.busy"))}
            return
        problem: dict[Any, Any] = {}
        try:
            with workspace.working() as stop:
                yield {**self._buttons(True), self.page.notice: "", self.status: hint(t("ask.reading"))}
                job = job_queue.SHARED.submit(partial(work, stop), stop, SECONDS)
                for _ in job.watch(EVERY):
                    there = job.started.is_set()
                    status = hint(t("ask.reading")) if there else queue_place(job_queue.SHARED.place(job), t)
                    yield {**self.found(visit), self.status: status}
        except Exception as error:
            problem = self.page.explain(error, t.language)
        yield {**self._buttons(False), **self.found(visit), self.status: "", **problem}

    def _buttons(self, busy: bool) -> dict[Any, Any]:
        state = gr.update(interactive=not busy)
        return {self.go: state, self.check: state, self.mark: state, self.stop: gr.update(interactive=busy)}


def _halt(visit: Visit) -> dict[Any, Any]:
    regions.stop(regions.marked_of(visit.workspace))
    if visit.workspace.stop:
        visit.workspace.stop.set()
    return {}


def _about(t: Translator) -> str:
    """Return heading and promise of the screen."""
    return f"<h2>{t('ask.title')}</h2><p>{t('ask.about')}</p>"


def model_choices(t: Translator) -> list[tuple[str, str]]:
    """Return the catalogue; what is not on this machine says how much has to be downloaded."""
    from engine.ask.catalog import ENTRIES

    return [(" · ".join(_line(entry, t)), entry.id) for entry in ENTRIES]


def _line(entry: Any, t: Translator) -> list[str]:
    parts = [entry.name, f"{entry.parameters:g} M"]
    parts += [t("header.multilingual")] if "ko" in entry.languages else []
    return parts if entry.cached() else [*parts, t("header.download", size=entry.download_mb)]
