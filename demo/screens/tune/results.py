"""The right side of the Tune screen: cards, verdict and the result tabs."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from demo import html, labelling, tasks
from demo.page import Key, Page, Visit
from demo.screens.tune import figures, learned
from demo.words import Translator
from demo.workspace import DisplayedResult, Workspace
from engine.metrics import leaving, novelty, sets, training
from engine.types import SCORES, RunResult

TABS = ("scores", "heat", "confusion", "training", "learned", "map", "errors")
GROUPS = ("fixed", "broken", "still_wrong")
UNTESTED = ("nothing_to_test",)
"""Notes that explain why zero-shot has no accuracy."""
MOST_ERRORS = 60
"""Pictures in one group of errors."""


class Results:
    """Components of the right side."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        self.open_tab = gr.State("scores")
        self.status = gr.HTML("", padding=False, elem_id="status")
        self.cards = page.html(lambda t: html.cards(None, None, t), elem_id="cards")
        self.verdict = gr.HTML("", padding=False, elem_id="verdict")
        with gr.Tabs(elem_id="result-tabs", selected="scores") as self.tabs:
            self.tab: dict[str, gr.Tab] = {}
            for name in TABS:
                with page.make(
                    gr.Tab, label=Key(f"tab.{name}"), id=name, elem_id=f"tab-{name}", render_children=True
                ) as self.tab[name]:
                    getattr(self, f"_build_{name}")()

    def _build_scores(self) -> None:
        page = self.page
        with gr.Row(elem_classes="ctl-picker"):
            self.previous = page.make(
                gr.Button, value=Key("scores.previous"), size="sm", min_width=40, scale=0, elem_id="previous"
            )
            self.image = page.make(
                gr.Dropdown,
                choices=[],
                label=Key("scores.image"),
                show_label=False,
                container=False,
                min_width=160,
                scale=4,
                elem_id="score-image",
            )
            self.next = page.make(gr.Button, value=Key("scores.next"), size="sm", min_width=40, scale=0, elem_id="next")
            self.kind = kind_radio(page, "kind", min_width=200, scale=2)
        with gr.Row(elem_classes="ctl-scores"):
            with gr.Column(scale=1, min_width=180):
                self.picture = gr.HTML("", padding=False, elem_id="score-picture")
            with gr.Column(scale=2, min_width=260):
                self.scores = gr.Plot(show_label=False, container=False, elem_id="plot-scores")

    def _plot(self, name: str, hint: str | None = None, **options: Any) -> gr.Plot:
        if hint:
            self.page.html(lambda t: f'<p class="ctl-hint">{t(hint)}</p>')
        return gr.Plot(show_label=False, container=False, elem_id=f"plot-{name}", **options)

    def _build_heat(self) -> None:
        self.heat = self._plot("heat", "heat.hint")

    def _build_confusion(self) -> None:
        self.confusion = self._plot("confusion", "confusion.hint")

    def _build_training(self) -> None:
        self.training = self._plot("training")

    def _build_learned(self) -> None:
        self.learned = gr.HTML("", padding=False, elem_id="learned")

    def _build_map(self) -> None:
        self.map = self._plot("map", "map.hint", elem_classes="map-plot")

    def _build_errors(self) -> None:
        self.summary = gr.HTML("", padding=False, elem_id="errors-summary")
        self.groups: dict[str, gr.Gallery] = {}
        self.titles: dict[str, gr.HTML] = {}
        for name in GROUPS:
            self.titles[name] = gr.HTML("", padding=False)
            self.groups[name] = gr.Gallery(
                show_label=False,
                columns=6,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                visible=False,
                buttons=[],
                elem_id=f"errors-{name}",
                elem_classes="ctl-errors",
            )

    # ---- showing

    @property
    def plots(self) -> list[Any]:
        """Components that only the open tab fills."""
        return [
            self.image,
            self.picture,
            self.scores,
            self.heat,
            self.confusion,
            self.training,
            self.learned,
            self.map,
            self.summary,
            *self.titles.values(),
            *self.groups.values(),
        ]

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.cards, self.verdict, self.tab["errors"], *self.plots]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Show the workspace's result; plots of the open tab only."""
        workspace, t = visit.workspace, visit.t
        shown = workspace.shown
        result = shown.result if shown else None
        verdict = html.verdict(result, t, training_sentence(result, t)) if shown and shown.run else ""
        verdict += sets_line(result, t) if verdict else ""
        if shown and shown.tuned and not shown.run:
            verdict = f'<div class="ctl-verdict ctl-baseline"><div>{adapter_line(shown, t)}</div></div>'
            verdict += html.verdict(result, t) if shown.arrays["tested"].any() else ""
        elif shown and not shown.tuned:
            lacks = labelling.missing(workspace)
            sentences = [t(lacks[0], **lacks[1])] if lacks else []
            sentences += [t.engine(n.key, dict(n.values)) for n in shown.notes if n.key in UNTESTED]
            verdict = html.notes([*changed_lines(workspace, t), *sentences], t)
        elif not shown and workspace.images and (lacks := labelling.missing(workspace)):
            verdict = f'<div class="ctl-empty" role="status">{t(lacks[0], **lacks[1])}</div>'
        wrong = 0 if shown is None else sum(map(len, shown.wrong()))
        label = t("tab.errors_count", count=wrong) if shown and shown.arrays["tested"].any() else t("tab.errors")
        return {
            self.cards: html.cards(result, shown.zero_shot if shown else None, t),
            self.verdict: verdict,
            self.tab["errors"]: gr.update(label=label),
            **self.draw(workspace, visit.data.get(self.open_tab, "scores"), visit.data.get(self.kind), t, visit.dark),
        }

    def draw(
        self, workspace: Workspace, tab: str, kind: str | None, t: Translator, dark: bool | None
    ) -> dict[Any, Any]:
        """Return the plots of one tab."""
        shown, kind = workspace.shown, kind or "probability"
        if tab == "training":
            return {self.training: figures.training(shown, t, dark)}
        if tab == "learned":
            return {self.learned: learned.view(workspace, t)}
        if shown is None or not shown.images:
            return self._nothing(tab)
        if tab == "scores":
            index = workspace.score_image = min(max(0, workspace.score_image), len(shown.images) - 1)
            return {
                self.image: gr.update(choices=figures.image_choices(shown, t), value=index),
                self.picture: figures.picture(workspace, shown, index, kind, t),
                self.scores: figures.scores(shown, index, kind, t, dark),
            }
        if tab == "heat":
            return {self.heat: figures.heat_map(shown, kind, t, dark)}
        if tab == "confusion":
            return {self.confusion: figures.confusion(shown, t, dark)}
        if tab == "map":
            return {self.map: figures.embedding_map(workspace, shown, t, dark)}
        return self._errors(workspace, shown, t)

    def _nothing(self, tab: str) -> dict[Any, Any]:
        plot = {"scores": self.scores, "heat": self.heat, "confusion": self.confusion, "map": self.map}.get(tab)
        if plot is None:
            empty: dict[Any, Any] = {group: gr.update(value=[], visible=False) for group in self.groups.values()}
            return {self.summary: "", **empty, **dict.fromkeys(self.titles.values(), "")}
        return {
            plot: None,
            **({self.picture: "", self.image: gr.update(choices=[], value=None)} if tab == "scores" else {}),
        }

    def _errors(self, workspace: Workspace, shown: DisplayedResult, t: Translator) -> dict[Any, Any]:
        groups, names = shown.wrong(), shown.names
        updates: dict[Any, Any] = {self.summary: ""}
        if shown.tuned:
            updates[self.summary] = html.errors_summary(len(groups[0]), len(groups[1]), len(groups[2]), t)
        predicted = shown.arrays["tuned" if shown.tuned else "ensemble"].argmax(1)
        for name, positions in zip(GROUPS, groups, strict=True):
            key = name if shown.tuned or name != "still_wrong" else "zero_shot_wrong"
            pictures = []
            for i in positions[:MOST_ERRORS]:
                guess = int(shown.arrays["ensemble"][i].argmax()) if name == "fixed" else int(predicted[i])
                path = tasks.thumb(workspace, shown.images[i])
                caption = t("errors.caption", truth=names[shown.targets[i]], predicted=names[guess])
                pictures += [(path, caption)] if path else []
            updates[self.groups[name]] = gr.update(value=pictures, visible=bool(pictures), selected_index=None)
            updates[self.titles[name]] = (
                f'<h3 class="ctl-group">{t(f"errors.{key}", count=len(positions))}</h3>' if positions else ""
            )
        if not any(groups):
            updates[self.summary] = f'<p class="ctl-hint">{t("errors.none")}</p>'
        return updates

    # ---- events

    def bind(self) -> None:
        """Attach the handlers of the result tabs."""
        page = self.page
        for name in TABS:
            page.on(self.tab[name].select, partial(self._open, name=name), [self.kind], [self.open_tab, *self.plots])
        page.on([self.image.input, self.kind.input], self._look, [self.image, self.kind], self._score_outputs)
        each: dict[str, Any] = {"trigger_mode": "multiple"}  # quick presses go on by as many images
        page.on(self.previous.click, partial(self._step, by=-1), [self.kind], self._score_outputs, **each)
        page.on(self.next.click, partial(self._step, by=1), [self.kind], self._score_outputs, **each)
        for name in GROUPS:
            page.on(
                self.groups[name].select,
                partial(self._from_error, name=name),
                [self.kind],
                [self.tabs, self.open_tab, *self._score_outputs],
            )

    @property
    def _score_outputs(self) -> list[Any]:
        return [self.image, self.picture, self.scores]

    def _open(self, visit: Visit, name: str) -> dict[Any, Any]:
        return {self.open_tab: name, **self.draw(visit.workspace, name, visit[self.kind], visit.t, visit.dark)}

    def _scores(self, visit: Visit) -> dict[Any, Any]:
        return self.draw(visit.workspace, "scores", visit[self.kind], visit.t, visit.dark)

    def _look(self, visit: Visit) -> dict[Any, Any]:
        if visit[self.image] is not None:
            visit.workspace.score_image = int(visit[self.image])
        return {**self._scores(visit), self.image: gr.skip()}  # the visitor may have gone on in the menu

    def _step(self, visit: Visit, by: int) -> dict[Any, Any]:
        shown = visit.workspace.shown
        if shown and shown.images:
            order = shown.order()
            at = order.index(min(visit.workspace.score_image, len(order) - 1))
            visit.workspace.score_image = order[(at + by) % len(order)]
        return self._scores(visit)

    def _from_error(self, visit: Visit, name: str) -> dict[Any, Any]:
        shown = visit.workspace.shown
        positions = shown.wrong()[GROUPS.index(name)] if shown else []
        index = int(visit.event.index)  # type: ignore[union-attr]
        if index < len(positions):
            visit.workspace.score_image = positions[index]
        return {self.tabs: gr.update(selected="scores"), self.open_tab: "scores", **self._scores(visit)}


def kind_radio(page: Page, name: str, **options: Any) -> gr.Radio:
    """Forms of a score; ``name`` is the id."""
    return page.make(
        gr.Radio,
        choices=lambda t: [(t(f"scores.{kind}"), kind) for kind in SCORES],
        value="probability",
        label=Key("scores.kind"),
        show_label=False,
        container=False,
        elem_id=name,
        **options,
    )


def training_sentence(result: RunResult | None, t: Translator) -> str:
    """Return what is to be said about a run's training, and that zero-shot was kept; empty where all is well."""
    if result is None:
        return ""
    notes = (
        training.sentence(result.training, result.curve, result.config),
        leaving.sentence(result.chosen, len(result.labels), result.support),
    )
    return " ".join(t.engine(note.key, dict(note.values)) for note in notes if note)


def sets_line(result: RunResult | None, t: Translator) -> str:
    """Return what sets of labels reach, where one label is not sure enough, and how strange pictures stand out."""
    notes = (sets.sentence(result.sets), novelty.sentence(result.novelty)) if result else ()
    return "".join(f'<p class="ctl-hint">{t.engine(note.key, dict(note.values))}</p>' for note in notes if note)


def changed_lines(workspace: Workspace, t: Translator) -> list[str]:
    """Return why zero-shot is shown where a tuned model was."""
    return [t(key) for key, there in (("note.stale", workspace.stale), ("note.aside", workspace.put_aside)) if there]


def adapter_line(shown: DisplayedResult, t: Translator) -> str:
    """Return what a loaded adapter is."""
    assert shown.result is not None
    line = t("adapter.loaded", count=len(shown.labels), method=t.name(shown.result.method))
    if not shown.images:
        return f"{line} {t('adapter.own')}"
    tested, goal = shown.arrays["tested"], np.asarray(shown.targets)
    known = int((goal >= 0).sum()) - int(tested.sum())
    if not tested.any():
        return f"{line} {t('adapter.all_known' if known else 'adapter.no_labels')} {t('adapter.own')}"
    right = {key: int((shown.arrays[key].argmax(1) == goal)[tested].sum()) for key in ("ensemble", "tuned")}
    own = t("adapter.here", zero_shot=right["ensemble"], tuned=right["tuned"], total=int(tested.sum()))
    return f"{line} {own} {t('adapter.known', count=known)}" if known else f"{line} {own}"
