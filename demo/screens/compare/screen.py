"""The Compare screen: what is compared on the left, what came out on the right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo import job_queue, labelling
from demo.html import queue_place
from demo.page import HIDDEN, Key, Page, Screen, Surroundings, Visit, notice
from demo.screens.compare import html as pieces
from demo.screens.compare import service
from demo.screens.compare.results import CompareResults
from demo.screens.tune.screen import Tune
from demo.words import Translator
from demo.workspace import Workspace
from engine.errors import LabError
from engine.types import Progress

EVERY = 0.4
"""Seconds between two updates of the page while something runs."""
SECONDS = 60.0
"""What a comparison usually takes, for its turn among others."""
SHOTS = (1, 2, 4, 8, 16)
GROUPS = ("recommended", "quick", "head", "text prompt", "visual prompt", "weights", "all")
WIDTH = """() => {
  const wide = window.innerWidth;
  return wide <= 900 ? wide - 40 : Math.round((Math.min(1280, wide) - 64) * 7 / 11);
}"""
"""Pixels that a plot will have."""
SHOW_OUTCOME = """() => window.ctlShow("#compare-outcome", "#compare-status")"""
SHOW_ADVICE = """() => window.ctlShow("#compare-outcome", "#compare-advice")"""
"""What is going on stands in view when it starts, and the advice when it has ended."""


def _about(t: Translator) -> str:
    return f"<h2>{t('compare.title')}</h2><p>{t('compare.about')}</p>"


class Compare(Screen):
    """The whole screen."""

    name = "compare"

    def __init__(self, page: Page):
        self.page, self.results = page, CompareResults(page)

    def build(self) -> None:
        """Create the components."""
        with gr.Row(elem_id="compare", elem_classes="ctl-tune"):
            with gr.Column(scale=4, min_width=300, elem_id="compare-steps"):
                self._build_choice()
                self._build_limits()
            with gr.Column(scale=7, min_width=300, elem_id="compare-outcome"):
                self.page.html(_about, elem_id="compare-about")
                self.status = gr.HTML("", padding=False, elem_id="compare-status")
                self.results.build()

    def _build_choice(self) -> None:
        page = self.page
        self.groups = page.make(
            gr.CheckboxGroup,
            choices=lambda t: [(t(f"compare.group.{name}"), name) for name in GROUPS],
            value=["recommended"],
            label=Key("compare.methods"),
            elem_id="compare-groups",
        )
        self.single = page.make(
            gr.Dropdown,
            choices=[],
            value=[],
            multiselect=True,
            label=Key("compare.single"),
            elem_id="compare-single",
        )
        self.shots = page.make(
            gr.CheckboxGroup,
            choices=[(str(count), count) for count in SHOTS],
            value=[4, 8],
            label=Key("labels.shots"),
            elem_id="compare-shots",
        )
        self.seeds = page.make(
            gr.Slider,
            1,
            10,
            value=3,
            step=1,
            label=Key("compare.seeds"),
            info=Key("compare.seeds_info"),
            elem_id="compare-seeds",
        )
        self.outlook = gr.HTML("", padding=False, elem_id="compare-outlook")
        with gr.Column(elem_classes=HIDDEN):
            self.width = gr.Number(720, show_label=False)
            self.resized = gr.Button(elem_id="compare-resized")
            """Pressed by ``resize.js`` when the window has another width."""
        self.go, self.stop = page.go_row("compare.go", "compare")

    def _build_limits(self) -> None:
        page = self.page
        page.html(lambda t: f'<h3 class="ctl-group">{t("compare.limits")}</h3>{pieces.hint(t("compare.limits_hint"))}')
        fields = ("memory", "seconds", "parameters", "file")
        self.limits: list[Any] = []
        for first in (0, 2):
            with gr.Row():
                self.limits += [
                    page.make(
                        gr.Number,
                        value=None,
                        minimum=0,
                        label=Key(f"compare.limit.{name}"),
                        min_width=120,
                        elem_id=f"limit-{name}",
                    )
                    for name in fields[first : first + 2]
                ]
        self.limits.append(
            page.make(
                gr.Checkbox,
                value=False,
                label=Key("compare.keep"),
                info=Key("compare.keep_info"),
                elem_id="limit-keep",
            )
        )
        self.results.limits = self.limits

    # ---- showing

    @property
    def shown(self) -> list[Any]:
        """What a view depends on."""
        return [*self.limits, self.results.axis, self.width, self.shots]

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.single, self.shots, self.outlook, self.status, self.go, *self.results.outputs]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Everything, for the workspace as it is."""
        workspace, t = visit.workspace, visit.t
        lacks = labelling.missing(workspace)
        ready = lacks is None
        most = service.most_shots(workspace) if ready else max(SHOTS)
        usable = [count for count in SHOTS if count <= most]
        chosen = [count for count in visit[self.shots] if count in usable] or usable[-1:]
        return {
            self.single: gr.update(choices=_methods(t)),
            self.shots: gr.update(choices=[(str(count), count) for count in usable], value=chosen),
            self.go: gr.update(interactive=ready and not running(workspace)),
            self.outlook: pieces.hint(t(lacks[0], **lacks[1])) if lacks else "",
            self.status: gr.skip() if running(workspace) else "",
            **self.results.view(visit, visit[self.width]),
        }

    # ---- events

    def bind(self, around: Surroundings) -> None:
        page, results = self.page, self.results
        choice = [self.groups, self.single, self.shots, self.seeds]
        sized = around.tab.select(None, None, [self.width], js=WIDTH, api_visibility="private")
        opened = page.on(sized.then, self.view, self.shown, self.outputs, clears=False)
        reckon: dict[str, Any] = {"inputs": choice, "outputs": [self.outlook]}
        page.on(opened.then, self._reckon, **reckon, clears=False)
        page.on([control.input for control in choice], self._reckon, **reckon)
        queue: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 16}
        busy = [self.go, self.stop, results.test, results.look, self.status]
        done = page.on(
            self.go.click, self._compare, [*choice, *self.shown], [*busy, self.outlook, *results.outputs], **queue
        )
        self.go.click(None, None, None, js=SHOW_OUTCOME, api_visibility="private")
        done.success(None, None, None, js=SHOW_ADVICE, api_visibility="private")
        page.on(self.stop.click, _stop, (), (), queue=False)
        tested = page.on(results.test.click, self._hold_back, self.shown, [*busy, *results.outputs], **queue)
        looked = page.on(results.look.click, self._check, self.shown, [*busy, *results.outputs], **queue)
        limited = page.on(
            [control.input for control in [*self.limits, results.axis]],
            lambda visit: results.view(visit, visit[self.width]),
            self.shown,
            results.outputs,
        )
        resized = self.resized.click(None, None, [self.width], js=WIDTH, api_visibility="private")
        page.on(resized.then, self._redraw, self.shown, results.sized, clears=False)
        for event in (done, tested, looked, limited, opened):
            page.on(event.then, results.files, self.shown, results.downloads, clears=False)
        results.bind(self.shown, self.width)
        self._bind_steps(around, choice, busy, queue)

    def _bind_steps(self, around: Surroundings, choice: list[Any], busy: list[Any], queue: dict[str, Any]) -> None:
        """From Tune to here ("Find the best method") and back ("Use this method")."""
        page, results, tune = self.page, self.results, around.screens["tune"]
        assert isinstance(tune, Tune)
        sized = tune.best.click(None, None, [self.width], js=WIDTH, api_visibility="private")
        tune.best.click(None, None, None, js=SHOW_OUTCOME, api_visibility="private")

        def find(visit: Visit) -> Iterator[dict[Any, Any]]:
            if lacks := labelling.missing(visit.workspace):
                yield {page.notice: notice(visit.t(lacks[0], **lacks[1]))}
                return
            working = pieces.progress(0, 0, visit.t("html.stage_forecast"), None, visit.t)
            yield {around.tabs: gr.update(selected=self.name), **self.view(visit), self.status: working}
            request = service.search(visit.workspace)
            chosen = {
                self.groups: [],
                self.single: list(request.methods),
                self.shots: list(request.shots),
                self.seeds: len(request.seeds),
            }
            visit.data |= chosen
            yield chosen
            yield from self._compare(visit)

        outputs = [*self.outputs, *choice, *busy, around.tabs]
        found = page.on(sized.then, find, [*choice, *self.shown], outputs, clears=False, **queue)
        found.success(None, None, None, js=SHOW_ADVICE, api_visibility="private")
        page.on(found.then, results.files, self.shown, results.downloads, clears=False)

        def use(visit: Visit) -> dict[Any, Any]:
            if method := results.advised(visit):
                service.choose(visit.workspace, method)
            visit.data |= {tune.results.open_tab: "scores", tune.results.kind: None}
            return {**tune.view(visit), around.tabs: gr.update(selected=tune.name)}

        chosen = page.on(results.use.click, use, self.shown, [*tune.outputs, around.tabs])
        tune.bind_run(chosen.success)

    def _redraw(self, visit: Visit) -> dict[Any, Any]:
        """What is drawn for a width."""
        updates = self.results.view(visit, visit[self.width])
        return {plot: updates[plot] for plot in self.results.sized if plot in updates}

    def _request(self, visit: Visit) -> Any:
        methods = [*visit[self.groups], *visit[self.single]]
        return service.request_of(visit.workspace, methods, visit[self.shots], int(visit[self.seeds] or 1))

    def _reckon(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """How long the chosen comparison would take."""
        workspace, t, last = visit.workspace, visit.t, 0.0
        if not workspace.images or running(workspace):
            return
        try:
            for found in service.outlook(workspace, self._request(visit)):
                if found.complete or time.monotonic() - last > EVERY:
                    last = time.monotonic()
                    yield {self.outlook: pieces.outlook(found.runs, found.reused, found.seconds, found.complete, t)}
        except LabError as error:  # told where it can be put right, not yet as a failure
            yield {self.outlook: f'<p class="ctl-warning" role="alert">{escape(t.error(error))}</p>'}

    def _compare(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        workspace, t = visit.workspace, visit.t
        if running(workspace):
            yield {self.status: pieces.hint(t("compare.busy"))}
            return
        found = service.start(workspace, self._request(visit), t.language)

        def moment(event: Any) -> dict[Any, Any]:
            return {
                self.status: pieces.progress(len(found.rows), found.total, _what(event, t), found.seconds_left, t),
                **self.results.arriving(found, t),
            }

        def end() -> dict[Any, Any]:
            service.end(found)
            return {self.outlook: "", **self.results.view(visit, visit[self.width])}

        yield from self._on_device(visit, partial(service.run, workspace, found), moment, end)

    def _hold_back(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        found, t = service.compared_of(visit.workspace), visit.t
        if found is None:
            return
        methods = service.able(found)
        yield from self._on_device(
            visit,
            lambda stop: service.hold_back(visit.workspace, found, methods, stop),
            lambda item: {self.status: pieces.progress(len(found.damage), len(methods), _what(item, t), None, t)},
            lambda: self.results.view(visit, visit[self.width]),
        )

    def _check(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        found, t = service.compared_of(visit.workspace), visit.t
        if found is None:
            return
        yield from self._on_device(
            visit,
            lambda stop: service.check_labels(visit.workspace, found, stop),
            lambda item: {self.status: pieces.progress(0, 0, _what(item, t), None, t)},
            lambda: self.results.view(visit, visit[self.width]),
        )

    def _on_device(
        self,
        visit: Visit,
        work: Callable[[threading.Event], Iterator[Any]],
        moment: Callable[[Any], dict[Any, Any]],
        end: Callable[[], dict[Any, Any]],
    ) -> Iterator[dict[Any, Any]]:
        """Do something on the device thread: waits for its turn, shows progress, then what came out; what is done when
        the visitor stops it stays."""
        workspace, t = visit.workspace, visit.t
        if running(workspace):
            yield {self.status: pieces.hint(t("compare.busy"))}
            return
        try:
            with workspace.working() as stop:
                yield {**self._buttons(True), **moment(None), self.page.notice: ""}
                job = job_queue.SHARED.submit(partial(work, stop), stop, SECONDS)
                yield from self._watch(job, moment, t)
            yield {**self._buttons(False), **end()}
        except Exception as error:
            yield {**self._buttons(False), **self.page.explain(error, t.language)}

    def _watch(
        self, job: job_queue.Job, moment: Callable[[Any], dict[Any, Any]], t: Translator
    ) -> Iterator[dict[Any, Any]]:
        """Show progress until the job ends or is stopped. Raises its error."""
        for latest in job.watch(EVERY):
            waiting = not job.started.is_set()
            yield {self.status: queue_place(job_queue.SHARED.place(job), t)} if waiting else moment(latest)

    def _buttons(self, busy: bool) -> dict[Any, Any]:
        state = gr.update(interactive=not busy)
        return {
            self.go: state,
            self.results.test: state,
            self.results.look: state,
            self.stop: gr.update(interactive=busy),
            self.status: "",
        }


def running(workspace: Workspace) -> bool:
    """Return whether something of this visitor is on the device, or waits for it."""
    return workspace.stop is not None and not workspace.stop.is_set()


def _stop(visit: Visit) -> dict[Any, Any]:
    if visit.workspace.stop:
        visit.workspace.stop.set()
    return {}


def _methods(t: Translator) -> list[tuple[str, str]]:
    """Every method but the baselines, which are always there."""
    from engine.tuning import registry

    return [(t.name(spec.id), spec.id) for spec in registry.methods() if spec.family != "baseline"]


def _what(item: Any, t: Translator) -> str:
    """What is being done, in a few words."""

    progress = item if isinstance(item, Progress) else getattr(item, "progress", None)
    job = getattr(item, "job", None)
    words = [t("compare.job", method=t.name(job.spec.method), shots=job.spec.episode.shots)] if job else []
    if progress is not None:
        words.append(t(f"html.stage_{progress.stage}"))
    elif getattr(item, "kind", "") in ("features", "forecast"):
        words.append(t(f"html.stage_{item.kind}"))
    return ", ".join(words)
