"""Step 2 of the Tune screen: labels, what the backbone makes of them, and the split."""

from __future__ import annotations

import sys
import unicodedata
from html import escape
from typing import Any

import gradio as gr

from demo import html, labelling, tasks
from demo.model_download import backbone_name, entry_of
from demo.page import Key, Page, Visit
from demo.screens.tune import service
from demo.words import Translator
from demo.workspace import Workspace
from engine.backbones import vocabulary
from engine.data import episode
from engine.data.labels import parse_labels
from engine.errors import LabError
from engine.types import Label, descriptions_of


class Labels:
    """Components of step 2."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        page.html(lambda t: html.step_title(2, t("labels.title")))
        self.text = page.make(
            gr.Textbox,
            label=Key("labels.box"),
            show_label=False,
            container=False,
            placeholder=Key("labels.placeholder"),
            lines=1,
            max_lines=8,
            elem_id="labels",
        )
        page.html(lambda t: f'<p class="ctl-hint">{t("labels.info")}</p>')
        self.reading = gr.HTML("", padding=False, elem_id="reading")
        with gr.Row():
            self.templates = page.make(
                gr.Dropdown,
                choices=template_choices,
                value="general",
                label=Key("labels.templates"),
                info=Key("labels.templates_info"),
                elem_id="templates",
                allow_custom_value=True,
                min_width=140,
            )
            self.shots = page.make(
                gr.Slider, 1, 16, value=8, step=1, label=Key("labels.shots"), elem_id="shots", min_width=170, buttons=[]
            )
        self.split = gr.HTML("", padding=False, elem_id="split")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.text, self.reading, self.templates, self.shots, self.split]

    def view(self, workspace: Workspace, t: Translator) -> dict[Any, Any]:
        """Show the workspace."""
        most = max([16, workspace.shots, *(n - 1 for n in tasks.counts(workspace)[1])])
        return {
            self.text: workspace.labels_text,
            self.reading: self.read(workspace, t),
            self.templates: gr.update(value=workspace.template_set, choices=template_choices(t)),
            self.shots: gr.update(value=workspace.shots, maximum=max(min(most, 64), workspace.shots)),
            self.split: split_line(workspace, t),
        }

    def read(self, workspace: Workspace, t: Translator) -> str:
        """Return what the labels are taken for, or what is wrong with them."""
        if not workspace.labels_text and not workspace.images:
            return ""
        try:
            labels = parse_labels(workspace.labels_text)
        except LabError as error:
            return f'<p class="ctl-warning" role="status">{escape(t.error(error))}</p>'
        return token_line(workspace, labels, t) + reading_warning(workspace, labels, t)

    # ---- handlers

    def apply(self, visit: Visit) -> bool:
        """Take over the typed labels; what is wrong with them stands below the box."""
        try:
            return tasks.set_labels(visit.workspace, visit[self.text] or "")
        except LabError:
            return True

    def set_split(self, visit: Visit) -> bool:
        """Take over shots and template set."""
        workspace, shots, chosen = visit.workspace, int(visit[self.shots]), visit[self.templates]
        chosen = str(chosen or "").strip() or "general"
        if (workspace.shots, workspace.template_set) == (shots, chosen):
            return False
        episode.templates(chosen)  # raises where the visitor's own are none
        workspace.shots, workspace.template_set = shots, chosen
        workspace.changed()
        return True


def template_choices(t: Translator) -> list[tuple[str, str]]:
    """Template sets for the menu: a name and the first sentence."""
    return [
        (t("labels.template_choice", name=t(f"templates.{name}"), count=len(sentences), first=sentences[0]), name)
        for name, sentences in episode.TEMPLATE_SETS.items()
    ]


def split_line(workspace: Workspace, t: Translator) -> str:
    """Return how many images train and how many test."""
    if not workspace.images or not workspace.labels_text:
        return ""
    if (lacks := labelling.missing(workspace)) and lacks[0] == "missing.labelled":
        return f'<p class="ctl-warning" role="status">{t(lacks[0], **lacks[1])}</p>'
    try:
        built = service.episode_of(workspace)
    except LabError as error:
        return f'<p class="ctl-warning" role="status">{escape(t.error(error))}</p>'
    if built.cross_validated:
        line = t("labels.folds", images=len(built.labelled), folds=len(built.folds))
    else:
        line = t("labels.split", train=len(built.folds[0].support), test=len(built.folds[0].test))
    sentences = [t.engine(n.key, dict(n.values)) for n in built.notes if n.key != "cross_validated"]
    return f'<p class="ctl-hint">{line}</p>' + html.notes(sentences, t)


def token_line(workspace: Workspace, labels: tuple[Label, ...], t: Translator) -> str:
    """Return how many tokens the longest label takes; nothing while the backbone is being loaded."""
    if not loaded(workspace.backbone):
        return f'<p class="ctl-hint">{t("labels.count", count=len(labels))}</p>'
    backbone = service.backbone_of(workspace)
    sentence = max(episode.templates(workspace.template_set), key=len)
    texts = [(text, x.name) for x in labels for text in (sentence.replace("{}", x.phrase), *descriptions_of(x.prompt))]
    tokens, longest = max((backbone.count_tokens(text), name) for text, name in texts)
    fields = {"count": len(labels), "label": escape(longest), "tokens": tokens, "limit": backbone.shape.context}
    if tokens > backbone.shape.context:
        return f'<p class="ctl-warning" role="status">{t("labels.too_long", **fields)}</p>'
    return f'<p class="ctl-hint">{t("labels.tokens", **fields)}</p>'


def loaded(backbone: str) -> bool:
    """Return whether a backbone is in memory; never loads anything."""
    catalog = sys.modules.get("engine.backbones.catalog")
    return catalog is not None and catalog.loaded(backbone)


def reading_warning(workspace: Workspace, labels: tuple[Label, ...], t: Translator) -> str:
    """Return a warning where an English text tower gets another script, or words it hardly saw in training."""
    foreign = [label for label in labels if not latin(label.prompt)]
    if foreign and english_only(workspace.backbone):
        text = t("labels.unreadable", label=escape(foreign[0].name), count=len(foreign))
    elif loaded(workspace.backbone) and (unseen := vocabulary.unfamiliar(workspace.backbone, labels)):
        fields = {"backbone": backbone_name(workspace.backbone, t), "words": ", ".join(unseen)}
        text = escape(t.engine("unfamiliar_words", fields))
    else:
        return ""
    return f'<p class="ctl-warning" role="status">{text}</p>'


def english_only(backbone: str) -> bool:
    """Return whether the catalogue says so; backbones that are not in it are taken for English."""
    entry = entry_of(backbone)
    return entry is None or entry.languages == "en"


def latin(text: str) -> bool:
    """Return whether every letter is a Latin one and nothing is an emoji."""
    for character in text:
        category = unicodedata.category(character)
        if category == "So" or (category[0] == "L" and "LATIN" not in unicodedata.name(character, "")):
            return False
    return True
