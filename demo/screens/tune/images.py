"""Step 1 of the Tune screen: sample tasks, uploads, the gallery and one image's label."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from demo import html, tasks
from demo.page import HIDDEN, Key, Page, Visit
from demo.words import Translator
from demo.workspace import Workspace


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
            file_types=["image", ".zip"],
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
                gr.Image,
                sources=["webcam", "clipboard"],
                type="filepath",
                label=Key("images.camera_image"),
                height=220,
                elem_id="camera",
            )
        self.counts = gr.HTML("", padding=False, elem_id="counts")
        self.gallery = page.make(
            gr.Gallery,
            label=Key("images.gallery"),
            show_label=False,
            columns=4,
            height=236,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            visible=False,
            buttons=[],
            elem_id="gallery",
        )
        with gr.Group(elem_id="selected", elem_classes=HIDDEN) as self.selected:
            self.picture = gr.HTML("", padding=False, elem_id="selected-picture")
            self.label = page.make(
                gr.Dropdown, choices=[], allow_custom_value=True, label=Key("images.label"), elem_id="image-label"
            )
            self.remove = page.make(gr.Button, value=Key("images.remove"), size="sm", elem_id="remove")
        self.problems = gr.HTML("", padding=False, elem_id="problems")
        self.clear = page.make(gr.Button, value=Key("images.clear"), size="sm", visible=False, elem_id="clear")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [
            self.sample,
            self.upload_label,
            self.counts,
            self.gallery,
            self.selected,
            self.picture,
            self.label,
            self.problems,
            self.clear,
        ]

    def view(self, workspace: Workspace, t: Translator, gallery: bool = True) -> dict[Any, Any]:
        """Show the workspace; without ``gallery`` the pictures stay as they are."""
        images, (names, numbers) = workspace.images, tasks.counts(workspace)
        index = workspace.selected if workspace.selected is not None and workspace.selected < len(images) else None
        updates = {
            self.sample: gr.update(value=workspace.sample or "", choices=sample_choices(t)),
            self.upload_label: gr.update(choices=names),
            self.counts: html.class_counts(names, numbers, t),
            self.problems: html.problems([(p.name, t.engine(p.key, dict(p.values))) for p in workspace.problems], t),
            self.clear: gr.update(visible=bool(images or workspace.labels_text)),
            self.selected: gr.update(elem_classes=HIDDEN if index is None else []),
            self.picture: "" if index is None else picture(workspace, index, t),
            self.label: gr.update(choices=names, value=None if index is None else images[index].label),
        }
        if gallery:
            pictures = [(tasks.thumb(workspace, image), image.label or t("images.no_label")) for image in images]
            updates[self.gallery] = gr.update(
                value=[pair for pair in pictures if pair[0]], visible=bool(images), selected_index=index
            )
        return updates

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
        """Take in a picture of the webcam or the clipboard and open it for a label."""
        if not visit[self.camera]:
            return
        if tasks.add_files(visit.workspace, [visit[self.camera]], visit[self.upload_label]):
            visit.workspace.selected = len(visit.workspace.images) - 1

    def select(self, visit: Visit) -> None:
        """Open an image of the gallery."""
        visit.workspace.selected = visit.workspace.score_image = int(visit.event.index)  # type: ignore[union-attr]

    def change_label(self, visit: Visit) -> None:
        """Give the open image another label."""
        if visit.workspace.selected is not None:
            tasks.set_image_label(visit.workspace, visit.workspace.selected, visit[self.label])

    def take_out(self, visit: Visit) -> None:
        """Remove the open image."""
        if visit.workspace.selected is not None:
            tasks.remove_image(visit.workspace, visit.workspace.selected)

    def take_all_out(self, visit: Visit) -> None:
        """Start over."""
        tasks.clear(visit.workspace)


def sample_choices(t: Translator) -> list[tuple[str, str]]:
    """Samples for the menu: title, labels and images."""
    return [(t("images.sample_none"), "")] + [
        (t("images.sample_choice", title=s.title.get(t.language, s.id), labels=len(s.labels), images=count), s.id)
        for s in tasks.samples().values()
        if (count := len(list((tasks.SAMPLES / s.id).glob("*/*.jpg"))))
    ]


def picture(workspace: Workspace, index: int, t: Translator, side: int = 320) -> str:
    """Return an image with its name, as HTML."""
    image = workspace.images[index]
    uri, name = tasks.thumb_uri(workspace, image, side), escape(image.name)
    return (
        f'<figure class="ctl-picture"><img src="{uri}" alt="{name}"><figcaption>{name} · {image.width} × {image.height}'
        "</figcaption></figure>"
    )
