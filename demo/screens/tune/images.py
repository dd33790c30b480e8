"""Step 1 of the Tune screen: sample tasks, uploads, the gallery and its labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from demo import html, labelling, tasks
from demo.page import Key, Page, Visit
from demo.picture_box import picture_box
from demo.screens.tune import gallery
from demo.words import Translator
from demo.workspace import Workspace
from engine.data.files import SIDE_SUFFIXES

ATTACH = "window.ctlGallery(element, trigger, watch, upload) /* 'input' and 'select' */"


class Images:
    """Components of step 1."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        page.html(lambda t: html.step_title(1, t("images.title")))
        self.sample = page.make(
            gr.Dropdown,
            choices=sample_choices,
            value="",
            label=Key("images.sample"),
            elem_id="sample",
            filterable=False,
        )
        self.upload = page.make(
            gr.File,
            file_count="multiple",
            file_types=["image", ".zip", ".heic", ".heif", ".avif", *sorted(SIDE_SUFFIXES)],
            label=Key("images.upload"),
            show_label=False,
            height=64,
            elem_id="upload",
        )
        self.folder = page.make(gr.Button, value=Key("images.folder"), size="sm", elem_id="folder")
        with page.make(gr.Accordion, label=Key("images.camera"), open=False, elem_id="camera-box"):
            page.html(lambda t: f'<p class="ctl-hint">{t("images.hint")}</p>')
            self.upload_label = page.make(
                gr.Dropdown,
                choices=[],
                value=None,
                allow_custom_value=True,
                label=Key("images.upload_label"),
                info=Key("images.upload_label_info"),
                elem_id="upload-label",
            )
            self.camera = page.make(
                picture_box,
                sources=["webcam", "clipboard"],
                label=Key("images.camera_image"),
                height=220,
                elem_id="camera",
            )
        self.gallery = gr.HTML("", padding=False, js_on_load=ATTACH, elem_id="gallery")
        self.problems = gr.HTML("", padding=False, elem_id="problems")
        self.clear = page.make(gr.Button, value=Key("images.clear"), size="sm", visible=False, elem_id="clear")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.sample, self.upload_label, self.gallery, self.problems, self.clear]

    def view(self, workspace: Workspace, t: Translator) -> dict[Any, Any]:
        """Show the workspace."""
        return {
            self.sample: gr.update(value=workspace.sample or "", choices=sample_choices(t)),
            self.upload_label: gr.update(choices=tasks.counts(workspace)[0]),
            self.problems: understood(workspace, t),
            self.clear: gr.update(visible=bool(workspace.images or workspace.labels_text)),
            self.gallery: self.draw(workspace, t),
        }

    def draw(self, workspace: Workspace, t: Translator) -> str:
        """Return the photos and the boxes of their labels."""
        return gallery.draw(workspace, t, self._address)

    def _address(self, path: str) -> str:
        """Where the browser finds a thumbnail, from the page's own address on."""
        return f"gradio_api/file={self.gallery.move_resource_to_block_cache(path)}"

    # ---- handlers; each changes the workspace, the Tune tab then shows it

    def take_sample(self, visit: Visit) -> None:
        """Load the sample that was chosen in the menu."""
        if visit[self.sample]:
            tasks.load_sample(visit.workspace, visit[self.sample], visit.t.language)

    def take_files(self, visit: Visit) -> None:
        """Take in what was dropped or chosen."""
        paths = visit[self.upload] or []
        tasks.add_files(visit.workspace, [str(path) for path in paths], visit[self.upload_label])

    def take_picture(self, visit: Visit) -> None:
        """Take in a picture of the webcam or the clipboard."""
        if visit[self.camera]:
            tasks.add_files(visit.workspace, [visit[self.camera]], visit[self.upload_label])

    def act(self, visit: Visit) -> None:
        """What was done in the gallery: labels for what is selected, files for a label, offers that were taken."""
        workspace, told = visit.workspace, visit.event
        assert told is not None
        images = [int(i) for i in getattr(told, "images", ())]
        work: dict[str, Callable[[], Any]] = {
            "give": lambda: labelling.give(workspace, images, str(told.label)),
            "unlabel": lambda: labelling.give(workspace, images, None),
            "remove": lambda: labelling.remove(workspace, images),
            "names": lambda: labelling.take_offered(workspace),
            "guesses": lambda: labelling.take_guesses(workspace),
            "confirm": lambda: labelling.confirm(workspace),
            "add": lambda: tasks.add_files(workspace, uploaded(told.paths), str(told.label)),
        }
        work[str(told.act)]()

    def take_all_out(self, visit: Visit) -> None:
        """Start over."""
        tasks.clear(visit.workspace)


def understood(workspace: Workspace, t: Translator) -> str:
    """Return how the last upload was read, and what of it could not be used, as HTML."""
    read = html.notes([t.engine(note.key, dict(note.values)) for note in workspace.understood], t)
    return read + html.problems([(p.name, t.engine(p.key, dict(p.values))) for p in workspace.problems], t)


def sample_choices(t: Translator) -> list[tuple[str, str]]:
    """Samples for the menu: title, labels and images."""
    return [(t("images.sample_none"), "")] + [
        (t("images.sample_choice", title=s.title(t.language), labels=len(s.prompts), images=count), s.id)
        for s in tasks.samples().values()
        if (count := len(list((tasks.SAMPLES / s.id).glob("*/*.jpg"))))
    ]


def uploaded(paths: list[list[str]]) -> list[str]:
    """Return uploaded files under their own names; what lies elsewhere on this machine is none."""
    folder = Path(get_upload_folder()).resolve()
    found = [Path(path).resolve() for path, _ in paths]
    return [str(path) for path in found if path.is_relative_to(folder) and path.is_file()]
