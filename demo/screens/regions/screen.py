"""The Regions screen: the picture and how it is searched on the left, its regions and their labels on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from demo import html, tasks
from demo.model_download import SEGMENTERS, Loading, entry_name
from demo.page import HIDDEN, Key, Page, Screen, Surroundings, Visit
from demo.picture_box import picture_box
from demo.screens.compare.html import hint
from demo.screens.regions import html as regions_html
from demo.screens.regions import scoring, service
from demo.screens.regions.results import RegionsResults
from demo.words import Translator
from demo.workspace import Workspace

EVERY = 0.2
"""Seconds between two updates of the page while something is looked for or downloaded."""
LAYERS = ("mask", "contour", "box", "number")
SHOWN_LAYERS = ["mask", "contour", "number"]
ATTACH = "window.ctlPicture(element, trigger, watch)"
PICK = "window.ctlPicker(element, trigger, watch) /* 'select' */"


class Regions(Screen):
    """The whole screen."""

    name = "regions"

    def __init__(self, page: Page):
        self.page, self.results = page, RegionsResults(page)

    def build(self) -> None:
        """Create the components."""
        with gr.Row(elem_id="regions", elem_classes="ctl-tune"):
            with gr.Column(scale=4, min_width=300, elem_id="regions-steps"):
                self._build_image()
                self._build_search()
                self._build_look()
            with gr.Column(scale=7, min_width=300, elem_id="regions-outcome"):
                self.page.html(_about, elem_id="regions-about")
                self.status = gr.HTML("", padding=False, elem_id="regions-status")
                with gr.Row(elem_id="regions-pair"):
                    with gr.Column(scale=5, min_width=280):
                        self._build_picture()
                    with gr.Column(scale=4, min_width=280, elem_id="regions-answer"):
                        self.results.build()

    def _build_image(self) -> None:
        page = self.page
        page.html(lambda t: html.step_title(1, t("regions.step_image")))
        self.upload = page.make(
            picture_box,
            sources=["upload", "clipboard", "webcam"],
            height=150,
            label=Key("regions.upload"),
            elem_id="regions-upload",
        )
        self.task = page.make(gr.Dropdown, choices=[], value=None, label=Key("regions.task"), elem_id="regions-task")
        self.picker = gr.HTML("", padding=False, js_on_load=PICK, elem_id="regions-picker")
        self.segmenter = page.make(
            gr.Dropdown,
            choices=[("Pocket SAM", "pocket")],
            value="pocket",
            label=Key("regions.segmenter"),
            info=Key("regions.segmenter_info"),
            elem_id="regions-segmenter",
        )

    def _build_search(self) -> None:
        page = self.page
        page.html(lambda t: html.step_title(2, t("regions.step_mark")) + hint(t("regions.mark_hint")))
        self.granularity = page.make(
            gr.Radio,
            choices=lambda t: [(t(f"regions.granularity.{name}"), name) for name in ("objects", "parts", "all")],
            value="parts",
            label=Key("regions.granularity"),
            elem_id="regions-granularity",
        )
        self.find, self.stop = page.go_row("regions.find", "regions")

    def _build_look(self) -> None:
        page = self.page
        with page.make(gr.Accordion, label=Key("regions.look"), open=False, elem_id="regions-look"):
            self.layers = page.make(
                gr.CheckboxGroup,
                choices=lambda t: [(t(f"regions.layer.{name}"), name) for name in LAYERS],
                value=SHOWN_LAYERS,
                label=Key("regions.layers"),
                elem_id="regions-layers",
            )
            self.marks = page.make(
                gr.Radio,
                choices=lambda t: [(t(f"regions.marks.{name}"), name) for name in ("numbers", "letters")],
                value="numbers",
                label=Key("regions.marks"),
                elem_id="regions-marks",
            )
            self.alpha = page.make(
                gr.Slider, 0, 1, value=0.4, step=0.05, label=Key("regions.alpha"), elem_id="regions-alpha"
            )

    def _build_picture(self) -> None:
        page = self.page
        self.empty = page.html(lambda t: f'<div class="ctl-empty">{t("regions.empty")}</div>', elem_id="regions-empty")
        with gr.Column(elem_classes=HIDDEN, elem_id="regions-clicks") as self.clicks:
            self.mode = page.make(
                gr.Radio,
                choices=lambda t: [(t(f"regions.mode.{name}"), name) for name in service.MODES],
                value="new",
                label=Key("regions.mode"),
                info=Key("regions.mode_info"),
                elem_id="regions-mode",
            )
        self.picture = gr.HTML("", padding=False, js_on_load=ATTACH, elem_id="regions-picture")
        with gr.Column(elem_classes=HIDDEN, elem_id="regions-tools") as self.tools:
            with gr.Row(elem_classes="ctl-actions"):
                self.tool = {
                    name: page.make(
                        gr.Button, value=Key(f"regions.{name}"), size="sm", min_width=90, elem_id=f"regions-{name}"
                    )
                    for name in ("undo", "other_size", "remove", "clear")
                }
            page.html(lambda t: f'<p class="ctl-hint" id="regions-keys">{t("regions.keys")}</p>')

    # ---- showing

    @property
    def shown(self) -> list[Any]:
        """What a view depends on."""
        return [self.mode, self.layers, self.marks, self.alpha]

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [
            self.task,
            self.picker,
            self.segmenter,
            self.granularity,
            self.empty,
            self.clicks,
            self.picture,
            self.tools,
            self.find,
            self.status,
            *self.tool.values(),
            *self.results.outputs,
        ]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Everything, for the workspace as it is; nothing is computed."""
        marked, t = service.marked_of(visit.workspace), visit.t
        choices = _task_choices(visit.workspace)
        return {
            self.task: gr.update(choices=choices, value=_position(visit.workspace), interactive=bool(choices)),
            self.picker: self._picker(visit),
            self.segmenter: gr.update(choices=segmenter_choices(t), value=marked.segmenter),
            self.granularity: marked.granularity,
            **self.drawn(visit),
        }

    def _picker(self, visit: Visit) -> str:
        """The task's images as thumbnails."""
        workspace = visit.workspace
        found = [(image.name, tasks.thumb(workspace, image, 96)) for image in workspace.images]
        move = self.picker.move_resource_to_block_cache
        rows = [(i, name, f"gradio_api/file={move(path)}") for i, (name, path) in enumerate(found) if path]
        return regions_html.picker(rows, _position(workspace), visit.t)

    def drawn(self, visit: Visit) -> dict[Any, Any]:
        """Return the picture, its tools and the results."""
        marked, t = service.marked_of(visit.workspace), visit.t
        scene, image, step = marked.scene, marked.image, marked.step
        there = scene is not None and image is not None
        drawn = service.overlay(marked, self.style(visit)) if there else None
        chosen, hidden = marked.chosen, bool(step.regions) and not marked.shown
        return {
            self.empty: gr.update(elem_classes=HIDDEN if there else []),
            self.picture: ""
            if drawn is None or scene is None or image is None
            else regions_html.picture(
                drawn, image.name, visit[self.mode], chosen.prompt if chosen else None, step.corner, scene.size, t
            ),
            self.status: gr.skip() if marked.stop else hint(t("regions.too_coarse")) if hidden else "",
            self.clicks: gr.update(elem_classes=[] if there else HIDDEN),
            self.tools: gr.update(elem_classes=[] if there else HIDDEN),
            self.find: gr.update(interactive=there and marked.stop is None),
            self.tool["undo"]: gr.update(interactive=bool(marked.past)),
            self.tool["other_size"]: gr.update(interactive=service.can_resize(marked)),
            self.tool["remove"]: gr.update(interactive=chosen is not None),
            self.tool["clear"]: gr.update(interactive=bool(step.regions)),
            **self.results.view(visit, visit[self.marks]),
        }

    def style(self, visit: Visit) -> Any:
        """Return how regions are drawn."""
        from engine.regions.marks import Style

        layers = visit[self.layers]
        return Style(visit[self.marks], float(visit[self.alpha] or 0), **{name: name in layers for name in LAYERS})

    # ---- events

    def bind(self, around: Surroundings) -> None:
        page, results = self.page, self.results
        opened = page.on(around.tab.select, self._open, self.shown, [*self.outputs, self.upload])
        for event in (opened.then, page.version.change):  # the backbone can be changed on any screen
            page.on(event, self._score, self.shown, results.outputs, clears=False)
        change: list[tuple[Any, Callable[[Visit], Any], list[Any]]] = [
            (self.upload.input, self._upload, [self.upload]),
            (self.task.input, self._from_task, [self.task]),
            (self.picker.select, self._pick, []),
            (self.picture.select, self._point, []),
            (results.table.select, self._row, []),
            (self.granularity.input, self._divide, [self.granularity]),
            (results.way.input, self._look_at, [results.way]),
            (results.probe.click, lambda visit: scoring.probe(visit.workspace), []),
            *((self.tool[name].click, partial(_use, name), []) for name in self.tool),
        ]
        outputs = [*self.outputs, self.upload]
        for trigger, work, inputs in change:  # several at a time: the second of two quick clicks counts too
            page.on(trigger, self._then(work), [*self.shown, *inputs], outputs, trigger_mode="multiple")
        page.on(
            [control.input for control in (self.mode, self.layers, self.marks, self.alpha)],
            self.drawn,
            self.shown,
            self.outputs,
        )
        page.on(self.find.click, self._find, self.shown, [*self.outputs, self.stop])
        page.on(self.stop.click, _halt, (), (), queue=False)
        page.on(
            self.segmenter.input,
            self._segmenter,
            [*self.shown, self.segmenter],
            [*self.outputs, self.stop],
            concurrency_id="download",
            concurrency_limit=4,
        )
        results.bind(self.shown, self.style)

    def _open(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Start with the picture that is open in Tune, unless another one is being worked on."""
        yield self.view(visit)
        if (position := service.fresh(visit.workspace)) is None:
            return
        yield {self.status: hint(visit.t("regions.reading"))}
        problem: dict[Any, Any] = {}
        try:
            service.take_image(visit.workspace, position)
        except Exception as error:
            problem = self.page.explain(error, visit.t.language)
        yield {**self.view(visit), **self._source(visit), **problem}

    def _then(self, work: Callable[[Visit], Any]) -> Callable[[Visit], Iterator[dict[Any, Any]]]:
        """Do something to the marks, show it at once, then score what is new; on an error all is shown too."""

        def handle(visit: Visit) -> Iterator[dict[Any, Any]]:
            problem = {self.page.notice: ""}
            if work in (self._upload, self._from_task, self._pick):
                yield {self.status: hint(visit.t("regions.reading"))}
            with service.marked_of(visit.workspace).lock:
                try:
                    work(visit)
                except Exception as error:
                    problem = self.page.explain(error, visit.t.language)
                shown = {**self.drawn(visit), **self._source(visit), **problem}
            yield shown
            yield from self._scores(visit)

        return handle

    def _source(self, visit: Visit) -> dict[Any, Any]:
        """The menu of the task's images says which of them is shown; the upload keeps only what is shown."""
        position = _position(visit.workspace)
        own = {self.upload: None} if position is not None else {}
        return {self.task: gr.update(value=position), self.picker: self._picker(visit), **own}

    def _scores(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Score what has no scores yet, and show them."""
        try:
            scoring.score(visit.workspace)
        except Exception as error:
            yield self.page.explain(error, visit.t.language)
        else:
            yield self.results.view(visit, visit[self.marks])

    def _score(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        if service.marked_of(visit.workspace).scene is not None:
            yield from self._scores(visit)

    def _upload(self, visit: Visit) -> None:
        if visit[self.upload]:
            service.take_file(visit.workspace, visit[self.upload])

    def _from_task(self, visit: Visit) -> None:
        if visit[self.task] is not None:
            service.take_image(visit.workspace, int(visit[self.task]))

    def _pick(self, visit: Visit) -> None:
        service.take_image(visit.workspace, int(visit.event.index))  # type: ignore[union-attr]

    def _point(self, visit: Visit) -> None:
        """A click, or a box that was drawn."""
        marked, event = service.marked_of(visit.workspace), visit.event
        assert event is not None
        if event.kind == "box":
            service.box(marked, [float(n) for n in event.corners])
        else:
            mode = "less" if event.background and visit[self.mode] != "select" else visit[self.mode]
            service.click(marked, float(event.x), float(event.y), mode)

    def _row(self, visit: Visit) -> None:
        marked = service.marked_of(visit.workspace)
        number = int(visit.event.number)  # type: ignore[union-attr]
        service.select_region(marked, None if marked.step.chosen == number else number)

    def _divide(self, visit: Visit) -> None:
        service.marked_of(visit.workspace).granularity = visit[self.granularity]

    def _look_at(self, visit: Visit) -> None:
        service.marked_of(visit.workspace).view = visit[self.results.way]

    def _find(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Look for everything."""
        marked, t = service.marked_of(visit.workspace), visit.t
        if marked.scene is None or marked.stop is not None:
            return
        yield {self.find: gr.update(interactive=False), self.stop: gr.update(interactive=True), self.page.notice: ""}
        problem: dict[Any, Any] = {}
        try:
            for done, total in service.find_everything(marked, EVERY):
                yield {self.status: html.bar(done / total, t("regions.finding"))}
        except Exception as error:
            problem = self.page.explain(error, t.language)
        yield {**self.drawn(visit), self.stop: gr.update(interactive=False), **problem}
        yield from self._scores(visit)

    def _segmenter(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Change the segmenter, downloaded where it is not here."""
        marked, t, wanted = service.marked_of(visit.workspace), visit.t, str(visit[self.segmenter])
        service.stop(marked)
        job = Loading(wanted, SEGMENTERS)
        marked.stop = job.stop
        problem: dict[Any, Any] = {}
        try:
            yield {
                self.stop: gr.update(interactive=True),
                self.find: gr.update(interactive=False),
                self.page.notice: "",
            }
            for done, total in job.watch(EVERY):
                yield {self.status: html.loading(wanted, done, total, t)}
            marked.stop = None
            service.choose_segmenter(visit.workspace, wanted)
        except Exception as error:
            problem = self.page.explain(error, t.language)
        finally:  # also where the visitor has gone
            job.stop.set()
            if marked.stop is job.stop:
                marked.stop = None
        yield {**self.view(visit), self.stop: gr.update(interactive=False), **problem}


def _about(t: Translator) -> str:
    return f"<h2>{t('regions.title')}</h2><p>{t('regions.about')}</p>"


def _use(name: str, visit: Visit) -> None:
    getattr(service, name)(service.marked_of(visit.workspace))


def _halt(visit: Visit) -> dict[Any, Any]:
    service.stop(service.marked_of(visit.workspace))
    return {}


def _position(workspace: Workspace) -> int | None:
    """Which of the task's images is shown."""
    image = service.marked_of(workspace).image
    return next((i for i, other in enumerate(workspace.images) if other == image), None)


def _task_choices(workspace: Workspace) -> list[tuple[str, int]]:
    """The task's images, with their labels."""
    return [
        (f"{image.label} · {image.name}" if image.label else image.name, i) for i, image in enumerate(workspace.images)
    ]


def segmenter_choices(t: Translator) -> list[tuple[str, str]]:
    """Return the catalogue; what is not on this machine says how much has to be downloaded."""
    from engine.regions import catalog

    return [(describe(entry, t), entry.id) for entry in catalog.ENTRIES]


def describe(entry: Any, t: Translator) -> str:
    """Return a segmenter's line in the menu."""
    parts = [entry_name(entry, t), f"{entry.parameters:g} M"]
    if not entry.cached():
        parts.append(t("header.download", size=entry.download_mb) if entry.download_mb else t("regions.missing"))
    return " · ".join(parts)
