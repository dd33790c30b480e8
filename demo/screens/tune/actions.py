"""Below the results: WiSE-FT slider, a new image, and adapters to and from disk."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from demo.page import Key, Page, Visit
from demo.picture_box import picture_box
from demo.screens.tune import adapters, figures, service
from demo.screens.tune.results import Results, kind_radio
from demo.words import Translator
from demo.workspace import Workspace
from engine.errors import LabError


class After:
    """Components below the results."""

    def __init__(self, page: Page, results: Results):
        self.page, self.results = page, results

    def build(self) -> None:
        """Create the components."""
        page = self.page
        self.mix = page.make(
            gr.Slider,
            0,
            1,
            value=1,
            step=0.05,
            label=Key("mix.label"),
            info=Key("mix.info"),
            visible=False,
            elem_id="mix",
        )
        with gr.Row(elem_classes="ctl-actions"):
            self.download = page.make(
                gr.DownloadButton,
                label=Key("after.download"),
                size="sm",
                interactive=False,
                min_width=120,
                elem_id="download",
            )
            self.load = page.make(
                gr.UploadButton,
                label=Key("after.load"),
                size="sm",
                file_types=[".zip"],
                min_width=120,
                elem_id="load-adapter",
            )
            self.copy = page.make(
                gr.Button, value=Key("after.command"), size="sm", min_width=120, elem_id="copy-command"
            )
        self.command = page.make(
            gr.Code,
            language="shell",
            label=Key("after.command_label"),
            visible=False,
            interactive=False,
            lines=2,
            max_lines=10,
            wrap_lines=True,
            elem_id="command",
        )
        self.open_command = gr.State(False)
        with page.make(gr.Accordion, label=Key("after.try"), open=False, elem_id="try-box"), gr.Row():
            with gr.Column(scale=1, min_width=200):
                self.new = page.make(
                    picture_box,
                    sources=["upload", "webcam", "clipboard"],
                    height=240,
                    label=Key("after.new_image"),
                    elem_id="new-image",
                )
            with gr.Column(scale=2, min_width=260):
                self.kind = kind_radio(page, "new-kind")
                self.bars = gr.Plot(show_label=False, container=False, elem_id="plot-new")
                self.likely = gr.HTML("", padding=False, elem_id="new-likely")

    def build_first_load(self) -> None:
        """The button that loads an adapter before there are images."""
        self.first_load = self.page.make(
            gr.UploadButton,
            label=Key("after.load_first"),
            size="sm",
            file_types=[".zip"],
            elem_id="first-load-adapter",
        )

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.mix, self.download, self.command]

    def view(self, workspace: Workspace, t: Translator) -> dict[Any, Any]:
        """Show what can be done with the workspace's result."""
        archive = adapters.adapter_zip(workspace)
        kept, mixes = workspace.kept, adapters.can_mix(workspace)
        share = kept.share if kept and workspace.shown and kept.run == workspace.shown.run else 1.0
        return {
            self.mix: gr.update(visible=mixes, value=share),
            self.download: gr.update(value=str(archive) if archive else None, interactive=archive is not None),
            self.command: service.command(workspace),
        }

    def bind(self, show: Callable[[Visit], dict[Any, Any]], outputs: list[Any], running: Any) -> None:
        """Attach the handlers; ``show`` updates ``outputs`` after an adapter was loaded, ``running`` is the event of
        a run, after which the new image is scored again."""
        page, tabs = self.page, [self.results.open_tab, self.results.kind]
        page.on([self.new.change, self.kind.input], self._try, [self.new, self.kind], [self.bars, self.likely])
        for event in (page.version.change, running.then):
            page.on(event, self._again, [self.new, self.kind], [self.bars, self.likely], clears=False)
        page.on(
            self.mix.input,
            self._mix,
            [self.mix, *tabs],
            [self.download, *self.results.outputs],
        )
        for button in (self.load, self.first_load):

            def load(visit: Visit, button: gr.UploadButton = button) -> dict[Any, Any]:
                if visit[button]:
                    adapters.load_adapter(visit.workspace, str(visit[button]))
                return show(visit)

            page.on(button.upload, load, [button, *tabs], outputs)
        page.on(self.copy.click, self._command, [self.open_command], [self.command, self.open_command])

    def _try(self, visit: Visit) -> dict[Any, Any]:
        if not visit[self.new]:
            return {self.bars: None, self.likely: ""}
        found, _ = adapters.try_image(visit.workspace, visit[self.new])
        return {
            self.bars: figures.bars(found, visit[self.kind], visit.t, visit.dark),
            self.likely: likely_line(found.likely, visit.t) + unlike_line(found.unlike, visit.t),
        }

    def _again(self, visit: Visit) -> dict[Any, Any]:
        try:
            return self._try(visit)
        except LabError:  # told where it belongs; here it only means that there are no scores
            return {self.bars: None, self.likely: ""}

    def _mix(self, visit: Visit) -> dict[Any, Any]:
        adapters.mix(visit.workspace, float(visit[self.mix]))
        return {**self.results.view(visit), self.download: self.view(visit.workspace, visit.t)[self.download]}

    def _command(self, visit: Visit) -> dict[Any, Any]:
        visible = not visit[self.open_command]
        text = service.command(visit.workspace)
        return {self.command: gr.update(value=text, visible=visible), self.open_command: visible}


def likely_line(labels: tuple[str, ...], t: Translator) -> str:
    """Return the labels among which the right one most likely is; nothing where too few images tested."""
    if not labels:
        return ""
    names = f" {t('after.or')} ".join(f"<b>{escape(label)}</b>" for label in labels)
    return f'<p class="ctl-hint" role="status">{t("after.likely", labels=names)}</p>'


def unlike_line(unlike: bool | None, t: Translator) -> str:
    """Return that a picture is unlike every label, where it is."""
    return f'<p class="ctl-hint" role="status"><b>{t("scores.unlike")}</b></p>' if unlike else ""
