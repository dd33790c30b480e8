"""The Tune screen: three steps left, results right, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo import html, job_queue, labelling, tasks
from demo.html import queue_place
from demo.page import HIDDEN, Page, Screen, Surroundings, Visit, notice
from demo.screens.tune import adapters, figures, service
from demo.screens.tune.actions import After
from demo.screens.tune.images import Images
from demo.screens.tune.labels import Labels
from demo.screens.tune.method import Method
from demo.screens.tune.results import Results
from demo.screens.tune.takeaway import Takeaway
from demo.words import Translator
from demo.workspace import Workspace
from engine.types import Progress

EVERY = 0.25
"""Seconds between two updates of the page while something runs."""
CURVE_EVERY, CURVE_SHARE, CURVE_RARELY = 0.5, 0.25, 5.0
"""The live curve is drawn every half second, later after a quarter of the time that the run has taken, and at last
every 5 seconds: a browser on a busy machine draws it more slowly than it comes, and stands still until it caught up."""


SHOW_OUTCOME = """() => window.ctlShow("#outcome", "#status")"""
"""What a run says stands in view when it starts ..."""
SHOW_VERDICT = """() => window.ctlShow("#outcome", "#verdict")"""
"""... and its verdict when it has ended."""


class Tune(Screen):
    """The whole screen."""

    name = "tune"

    def __init__(self, page: Page):
        super().__init__(page)
        self.images, self.labels, self.method, self.results = Images(page), Labels(page), Method(page), Results(page)
        self.after, self.takeaway = After(page, self.results), Takeaway(page)

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="tune", elem_classes="ctl-tune"):
            with gr.Column(scale=4, min_width=300, elem_id="steps"):
                self.images.build()
                self.labels.build()
                self.method.build()
                self.go, self.stop, self.best = page.go_row("go.tune", "tune", "go.best")
            with gr.Column(scale=7, min_width=300, elem_id="outcome"):
                self._build_welcome()
                with gr.Column(elem_id="results", elem_classes=HIDDEN) as self.right:
                    self.results.build()
                    self.after.build()
                    self.takeaway.build()

    def _build_welcome(self) -> None:
        page = self.page
        with gr.Column(elem_id="welcome") as self.welcome:
            page.html(lambda t: f"<h2>{t('welcome.title')}</h2><p>{t('welcome.text')}</p>")
            self.samples: dict[str, gr.Button] = {}
            with gr.Row():
                for id, sample in tasks.samples().items():
                    with gr.Column(min_width=260, elem_classes="ctl-sample"):
                        page.html(partial(_sample_card, sample=sample))
                        self.samples[id] = gr.Button(
                            sample.title(page.t.language), elem_id=f"start-{id}", variant="secondary"
                        )
                        page.bound.append((self.samples[id], {"value": partial(_title, sample=sample)}))
            self.after.build_first_load()

    # ---- showing

    @property
    def left(self) -> list[Any]:
        """What a change of images or labels updates at once."""
        return [*self.images.outputs, *self.labels.outputs, self.welcome, self.right, self.page.version]

    @property
    def parts(self) -> list[Any]:
        """Everything that depends on the workspace, but for the method."""
        return [*self.left, *self.results.outputs, *self.after.outputs, *self.takeaway.outputs]

    @property
    def shown(self) -> list[Any]:
        return [self.results.open_tab, self.results.kind]

    @property
    def outputs(self) -> list[Any]:
        return [*self.parts, *self.method.outputs]

    def show_left(self, workspace: Workspace, t: Translator) -> dict[Any, Any]:
        """Return steps 1 and 2, and whether there is anything to show on the right."""
        filled = bool(workspace.images) or workspace.shown is not None
        return {
            **self.images.view(workspace, t),
            **self.labels.view(workspace, t),
            self.welcome: gr.update(elem_classes=HIDDEN if filled else []),
            self.right: gr.update(elem_classes=[] if filled else HIDDEN),
            self.page.version: workspace.version,
        }

    def show(self, visit: Visit) -> dict[Any, Any]:
        """Everything but the method."""
        return {
            **self.show_left(visit.workspace, visit.t),
            **self.results.view(visit),
            **self.after.view(visit.workspace, visit.t),
            **self.takeaway.view(visit.workspace),
        }

    def view(self, visit: Visit) -> dict[Any, Any]:
        return {**self.show(visit), **self.method.view(visit.workspace, visit.t)}

    # ---- events

    def bind(self, around: Surroundings) -> None:
        self._bind_images()
        self._bind_labels()
        self.method.bind()
        self.results.bind()
        page, results = self.page, self.results
        scored = [
            self.results.status,
            self.labels.reading,
            self.images.gallery,
            self.method.panel,
            *results.outputs,
            *self.after.outputs,
            *self.takeaway.outputs,
        ]
        self.scoring = page.on(page.version.change, self._zero_shot, [results.open_tab, results.kind], scored)
        self.running = self.bind_run(self.go.click)
        self.go.click(None, None, None, js=SHOW_OUTCOME, api_visibility="private")
        self.after.bind(self.show, self.parts, self.running)
        self.takeaway.bind()
        page.on(self.stop.click, self._stop, (), [self.go, self.stop, results.status], queue=False)

    def bind_run(self, trigger: Any) -> Any:
        """Tune on an event; afterwards the verdict is in view. Returns the event of the run."""
        results = self.results
        run = self.page.on(
            trigger,
            self._tune,
            [results.open_tab, results.kind, self.method.seed],
            [self.go, self.stop, results.status, results.training, results.tabs, results.open_tab, *self.parts],
            concurrency_id="device",
            concurrency_limit=16,
        )
        run.success(None, None, None, js=SHOW_VERDICT, api_visibility="private")
        return run

    def _bind_images(self) -> None:
        page, images = self.page, self.images
        for id, button in self.samples.items():
            page.on(button.click, self._then_left(partial(self._start, id=id)), (), self.left)
        change = [
            (images.sample.input, images.take_sample, [images.sample]),
            (images.upload.upload, images.take_files, [images.upload, images.upload_label]),
            (images.camera.input, images.take_picture, [images.camera, images.upload_label]),
            (images.clear.click, images.take_all_out, []),
        ]
        images.folder.click(None, None, None, js="() => window.ctlFolder()", api_visibility="private")
        for trigger, work, inputs in change:
            page.on(trigger, self._then_left(work), inputs, [*self.left, images.upload])
        many: dict[str, Any] = {"trigger_mode": "multiple"}  # each carries what was selected
        page.on(images.gallery.input, self._then_left(images.act), (), [*self.left, images.upload], **many)
        results = self.results
        page.on(images.gallery.select, self._select, [results.open_tab, results.kind], results.plots)

    def _bind_labels(self) -> None:
        page, labels = self.page, self.labels
        page.on([labels.text.submit, labels.text.blur], self._if_changed(labels.apply), [labels.text], self.left)
        page.on(
            [labels.shots.input, labels.templates.input],
            self._split,
            [labels.shots, labels.templates],
            [*self.left, self.method.form],
        )
        page.on(self.method.seed.blur, self._if_changed(self._set_seed), [self.method.seed], self.left)

    def _then_left(self, work: Callable[[Visit], None]) -> Callable[[Visit], dict[Any, Any]]:
        """Do something to the workspace, then show it; on an error it is shown too."""

        def handle(visit: Visit) -> dict[Any, Any]:
            problem = {}
            try:
                work(visit)
            except Exception as error:
                problem = self.page.explain(error, visit.t.language)
            done = {self.images.upload: None} if self.images.upload in visit.data else {}
            return {**self.show_left(visit.workspace, visit.t), **done, **problem}

        return handle

    def _if_changed(
        self, work: Callable[[Visit], bool], own: tuple[Any, ...] = ()
    ) -> Callable[[Visit], dict[Any, Any]]:
        """Do something, and show the workspace where it changed; ``own`` controls stay as the visitor has them, who may
        be moving them still."""

        def handle(visit: Visit) -> dict[Any, Any]:
            if not work(visit):
                return {}
            updates = self.show_left(visit.workspace, visit.t)
            return {component: update for component, update in updates.items() if component not in own}

        return handle

    def _split(self, visit: Visit) -> dict[Any, Any]:
        labels = self.labels
        updates = self._if_changed(labels.set_split, own=(labels.shots, labels.templates))(visit)
        return updates and {**updates, **self.method.redraw(visit)}

    def _start(self, visit: Visit, id: str) -> None:
        tasks.load_sample(visit.workspace, id, visit.t.language)

    def _set_seed(self, visit: Visit) -> bool:
        seed = int(visit[self.method.seed] or 0)
        if visit.workspace.seed == seed:
            return False
        visit.workspace.seed = max(0, seed)
        visit.workspace.changed()
        return True

    def _select(self, visit: Visit) -> dict[Any, Any]:
        """Show an image of the gallery in Scores."""
        visit.workspace.score_image = int(visit.event.index)  # type: ignore[union-attr]
        if visit[self.results.open_tab] != "scores":
            return {}
        return self.results.draw(visit.workspace, "scores", visit[self.results.kind], visit.t, visit.dark)

    # ---- zero-shot by itself

    def _zero_shot(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Compute zero-shot where it is missing, then show it."""
        workspace, t, last = visit.workspace, visit.t, 0.0
        lacks = labelling.missing(workspace)
        for moment in service.zero_shot(workspace) if not lacks or lacks[0] != "missing.second" else ():
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                yield {self.results.status: bar(moment, t)}
        adapters.score_again(workspace)
        yield {
            self.results.status: "" if not self._running(workspace) else gr.skip(),
            self.labels.reading: self.labels.read(workspace, t),
            self.images.gallery: self.images.draw(workspace, t),
            **self.results.view(visit),
            **self.after.view(workspace, t),
            **self.takeaway.view(workspace),
        }
        yield self.method.forecast(visit)

    # ---- a run

    @staticmethod
    def _running(workspace: Workspace) -> bool:
        return workspace.stop is not None and not workspace.stop.is_set()

    def _tune(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """One run: waits for its turn, shows progress, then the result. What was there stays until then."""
        workspace, t, results = visit.workspace, visit.t, self.results
        if self._running(workspace):
            yield {results.status: gr.skip()}
            return
        if lacks := labelling.missing(workspace):
            yield {self.page.notice: notice(t(lacks[0], **lacks[1]))}
            return
        self._set_seed(visit)
        try:
            with workspace.working() as stop:
                yield {
                    self.go: gr.update(interactive=False),
                    self.stop: gr.update(interactive=True),
                    results.tabs: gr.skip(),
                    results.status: bar(Progress("features", 0, 0), t),
                    self.page.notice: "",
                }
                work = partial(service.tune, workspace, stop)
                job = job_queue.SHARED.submit(work, stop, service.expected_seconds(workspace))
                opened = yield from self._watch(visit, job)
            yield {**self._idle(), **self._outcome(visit, job, opened)}
        except Exception as error:
            yield {**self._idle(), **self.page.explain(error, t.language)}

    def _watch(self, visit: Visit, job: job_queue.Job) -> Generator[dict[Any, Any], None, bool]:
        """Show progress until the job ends; returns whether it ended well. Raises its error."""
        t, results = visit.t, self.results
        curve: list[tuple[int, float, float]] = []
        last = drawn = 0.0
        started = time.monotonic()
        latest: Progress | None = None
        for kind, item in job.listen():
            if kind == "error":
                raise item
            if kind in ("done", "stopped"):
                return kind == "done"
            if kind == "item" and isinstance(item, Progress):
                latest = item
                if item.stage == "train" and item.loss is not None:
                    if curve and item.done <= curve[-1][0]:
                        curve.clear()
                    curve.append((item.done, item.loss, item.accuracy or 0.0))
            now = time.monotonic()
            if now - last < EVERY:
                continue
            last = now
            if kind == "waiting":
                yield {results.status: queue_place(job_queue.SHARED.place(job), t)}
            elif latest is not None:
                update: dict[Any, Any] = {results.status: bar(latest, t)}
                rest = max(CURVE_EVERY, min(CURVE_SHARE * (now - started), CURVE_RARELY))
                if curve and now - drawn > rest:
                    if not drawn:
                        update |= {results.tabs: gr.update(selected="training"), results.open_tab: "training"}
                    drawn = now
                    update[results.training] = figures.live(curve, latest.total, t, visit.dark)
                yield update
        return False

    def _idle(self) -> dict[Any, Any]:
        return {self.go: gr.update(interactive=True), self.stop: gr.update(interactive=False), self.results.status: ""}

    def _outcome(self, visit: Visit, job: job_queue.Job, ended: bool) -> dict[Any, Any]:
        if not ended:
            return {self.results.status: f'<p class="ctl-hint" role="status">{visit.t("go.stopped")}</p>'}
        visit.data[self.results.open_tab] = "scores"
        return {
            **self.show(visit),
            self.results.tabs: gr.update(selected="scores"),
            self.results.open_tab: "scores",
        }

    def _stop(self, visit: Visit) -> dict[Any, Any]:
        if visit.workspace.stop:
            visit.workspace.stop.set()
        t = visit.t
        return {**self._idle(), self.results.status: f'<p class="ctl-hint" role="status">{t("go.stopped")}</p>'}


def bar(moment: Progress, t: Translator) -> str:
    """Return a progress bar."""
    return html.progress(moment.stage, moment.done, moment.total, moment.seconds_left, moment.loss, t)


def _title(t: Translator, sample: tasks.Sample) -> str:
    return t("welcome.try", title=sample.title(t.language))


def _sample_card(t: Translator, sample: tasks.Sample) -> str:
    names = sample.names(t.language)
    pictures = []
    for folder, name in list(names.items())[:4]:
        uri = tasks.sample_thumb(sample.id, folder)
        pictures.append(f'<img src="{uri}" alt="{escape(name)}">' if uri else "")
    about = escape(sample.about(t.language))
    return f'<div class="ctl-sample-card"><div class="ctl-strip">{"".join(pictures)}</div><p>{about}</p></div>'
