"""The tuned model in forms that other programs read, from the page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo import job_queue
from demo.html import percent_text, queue_place
from demo.page import Key, Page, Visit
from demo.screens.tune import adapters
from demo.words import Translator
from demo.workspace import Workspace
from engine.export.targets import TARGETS
from engine.units import bytes_text

if TYPE_CHECKING:
    from engine.export.files import Exported

EVERY = 0.4
"""Seconds between two updates of the page while files are written."""
SECONDS = 30.0
"""What writing usually takes, for its turn among others."""


class Takeaway:
    """Components of "Use it elsewhere"."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with page.make(gr.Accordion, label=Key("take.title"), open=False, elem_id="take-box"):
            page.html(lambda t: f'<p class="ctl-hint">{t("take.hint")}</p>')
            self.form = page.make(
                gr.Dropdown,
                choices=lambda t: [(t(f"take.form.{name}"), name) for name in TARGETS],
                value="transformers",
                label=Key("take.form"),
                filterable=False,
                elem_id="take-form",
            )
            with gr.Row(elem_classes="ctl-actions"):
                self.go = page.make(
                    gr.Button, value=Key("take.go"), size="sm", interactive=False, min_width=120, elem_id="take-go"
                )
                self.files = page.make(
                    gr.DownloadButton,
                    label=Key("take.download"),
                    size="sm",
                    interactive=False,
                    min_width=120,
                    elem_id="take-download",
                )
            self.told = gr.HTML("", padding=False, elem_id="take-told")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.go, self.told, self.files]

    def view(self, workspace: Workspace) -> dict[Any, Any]:
        """Offer it where there is a run to take along; files of an earlier one go."""
        return {
            self.go: gr.update(interactive=adapters.adapter_folder(workspace) is not None),
            self.told: "",
            self.files: gr.update(value=None, interactive=False),
        }

    def bind(self) -> None:
        """Attach the handler."""
        self.page.on(
            self.go.click, self._make, [self.form], self.outputs, concurrency_id="device", concurrency_limit=16
        )

    def _make(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        """Write the files on the device thread, and offer them as one zip."""
        workspace, t, stop = visit.workspace, visit.t, threading.Event()
        found: list[tuple[Exported, Path]] = []

        def work() -> Iterator[None]:
            found.append(adapters.export_zip(workspace, str(visit[self.form])))
            yield

        busy = {self.go: gr.update(interactive=False), self.page.notice: "", self.files: gr.update(interactive=False)}
        yield {**busy, self.told: hint(t("take.writing"))}
        try:
            job = job_queue.SHARED.submit(work, stop, SECONDS)
            for _ in job.watch(EVERY):
                there = job.started.is_set()
                yield {self.told: hint(t("take.writing")) if there else queue_place(job_queue.SHARED.place(job), t)}
            done, archive = found[0]
            yield {
                self.go: gr.update(interactive=True),
                self.told: told(done, archive.stat().st_size, t),
                self.files: gr.update(value=str(archive), interactive=True),
            }
        except Exception as error:
            yield {self.go: gr.update(interactive=True), self.told: "", **self.page.explain(error, t.language)}
        finally:
            stop.set()  # also where the visitor has gone


def hint(text: str) -> str:
    """Return a sentence below the controls; ``text`` is HTML."""
    return f'<p class="ctl-hint" role="status">{text}</p>'


def told(done: Exported, size: int, t: Translator) -> str:
    """Return what was written, how near it is to the tuned model, and what it cannot carry."""
    lines = [t("take.done", count=len(done.files), size=bytes_text(size), names=escape(", ".join(done.files)))]
    if done.difference is not None:
        lines.append(t("take.difference", difference=f"{done.difference:.1g}"))
    if done.accuracy:
        shares = ", ".join(f"{form} {percent_text(share, t)}" for form, share in done.accuracy.items())
        lines.append(t("take.accuracy", shares=shares, count=done.tested))
    lines += [escape(t.engine(note.key, dict(note.values))) for note in done.notes]
    return "".join(map(hint, lines))
