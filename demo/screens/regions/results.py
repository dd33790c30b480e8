"""What the regions of a picture are taken for: the table, the shortcut test, and downloads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from demo.page import HIDDEN, Key, Page, Visit
from demo.screens.compare.html import hint
from demo.screens.regions import html as regions_html
from demo.screens.regions import scoring, service

FILES = ("overlay", "masks", "json")
VIEWS = ("crop", "blur", "grey", "cut")
ATTACH = "window.ctlRows(element, trigger, watch)"
FETCH = """() => setTimeout(() => {
  const file = document.querySelector("#regions-file");
  (file?.tagName === "A" || file?.tagName === "BUTTON" ? file : file?.querySelector("a, button"))?.click();
}, 250)"""
"""Presses the hidden download button once it has its file."""


class RegionsResults:
    """Components below the picture."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Column(elem_classes=HIDDEN, elem_id="regions-results") as self.column:
            self.way = page.make(
                gr.Radio,
                choices=lambda t: [(t(f"regions.way.{name}"), name) for name in VIEWS],
                value="crop",
                label=Key("regions.way"),
                elem_id="regions-way",
            )
            self.hint = gr.HTML("", padding=False, elem_id="regions-hint")
            self.table = gr.HTML("", padding=False, js_on_load=ATTACH, elem_id="regions-table")
            with page.make(gr.Accordion, label=Key("regions.shortcut"), open=False, elem_id="regions-shortcut-box"):
                page.html(lambda t: hint(t("regions.shortcut_hint")))
                self.probe = page.make(gr.Button, value=Key("regions.probe"), size="sm", elem_id="regions-probe")
                self.card = gr.HTML("", padding=False, elem_id="regions-shortcut")
            with gr.Row(elem_classes="ctl-actions"):
                self.download = {
                    kind: page.make(
                        gr.Button,
                        value=Key(f"regions.download_{kind}"),
                        size="sm",
                        min_width=110,
                        elem_id=f"regions-get-{kind}",
                    )
                    for kind in FILES
                }
            with gr.Column(elem_classes=HIDDEN):
                self.file = gr.DownloadButton("", elem_id="regions-file")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.column, self.hint, self.table, self.probe, self.card]

    def view(self, visit: Visit, marks: str) -> dict[Any, Any]:
        """Return the regions with the scores that are there; nothing is computed. ``marks``: numbers or letters."""
        from engine.regions.marks import colour_of, text_of

        workspace, t = visit.workspace, visit.t
        marked, shown = service.marked_of(workspace), service.marked_of(workspace).shown
        if not shown:
            return {self.column: gr.update(elem_classes=HIDDEN), self.table: "", self.card: "", self.hint: ""}
        labelled = bool(workspace.labels_text.strip())
        scores = {
            region.number: marked.scores[key] for region in shown if (key := (region, marked.view)) in marked.scores
        }
        tuned = labelled and bool(workspace.shown and workspace.shown.tuned)
        rows = [(region, text_of(region.number, marks), _css(colour_of(region.number))) for region in shown]
        missing = "regions.no_labels" if not labelled else "" if tuned else "regions.no_tuned"
        return {
            self.column: gr.update(elem_classes=[]),
            self.hint: hint(t(missing)) if missing else "",
            self.table: regions_html.table(
                rows, scores, marked.step.chosen, tuned, labelled, scoring.names_of(workspace), t
            ),
            # With its words: gradio drops those of a button that is updated while it is folded away.
            self.probe: gr.update(value=t("regions.probe"), interactive=labelled and marked.chosen is not None),
            self.card: self._card(visit, marks),
        }

    def _card(self, visit: Visit, marks: str) -> str:
        from engine.regions.marks import text_of
        from engine.regions.shortcut import FILLS, without_background, without_object

        marked, t = service.marked_of(visit.workspace), visit.t
        if marked.shortcut is None or marked.scene is None:
            return ""
        region, found = marked.shortcut
        if region not in marked.step.regions:
            return ""
        picture = marked.scene.picture.copy()
        picture.thumbnail((240, 240))
        mask = region.mask_at(picture.size)
        pictures = [
            ("whole", regions_html.data_uri(picture)),
            ("object_alone", regions_html.data_uri(without_background(picture, mask, FILLS[1]))),
            ("ground_alone", regions_html.data_uri(without_object(picture, mask))),
        ]
        names = scoring.names_of(visit.workspace)
        sentences = [t.engine(note.key, {k: names.get(v, v) for k, v in note.values}) for note in found.notes]
        return regions_html.shortcut(found, text_of(region.number, marks), pictures, sentences, names, t)

    def bind(self, shown: list[Any], style: Callable[[Visit], Any]) -> None:
        """Attach the handlers of the downloads; ``style`` is how regions are drawn."""
        for kind, button in self.download.items():
            made = self.page.on(button.click, partial(self._file, kind=kind, style=style), shown, [self.file])
            made.success(None, None, None, js=FETCH, api_visibility="private")

    def _file(self, visit: Visit, kind: str, style: Callable[[Visit], Any]) -> dict[Any, Any]:
        path = scoring.file_for(visit.workspace, kind, style(visit))
        return {self.file: gr.update(value=str(path) if path else None)}


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({', '.join(map(str, colour))})"
