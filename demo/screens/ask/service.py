"""What the Ask screen asks of the engine: answers about the picture and marks of Regions. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demo.screens.regions import scoring
from demo.screens.regions import service as regions
from demo.workspace import Workspace
from engine.errors import BadTask

if TYPE_CHECKING:
    from PIL import Image

    from engine.ask.ask import Answered
    from engine.ask.check import WaysChecked
    from engine.regions.types import Region

SHEETS = 20
"""Pictures that a check asks about."""
MOST_MARKS = 12
"""Marks that a model is shown: the largest regions, so that each can be read."""


@dataclass(eq=False)
class Conversation:
    """What the screen shows: the last question's answers, and whether marks help."""

    question: str = ""
    model: str = "pocket"
    answers: dict[str, Answered] = field(default_factory=dict)
    """By way; they grow while they are said."""
    mentioned: int | None = None
    """Number of the region that stands out."""
    checked: WaysChecked | None = None
    sample: Image.Image | None = None
    """A sheet of the check."""


def conversation_of(workspace: Workspace) -> Conversation:
    """Return the visitor's conversation."""
    if not isinstance(workspace.conversation, Conversation):
        workspace.conversation = Conversation()
    return workspace.conversation


def marks_of(workspace: Workspace) -> tuple[Region, ...]:
    """Return the regions that a model is shown, by number: of many, the largest."""
    shown = regions.marked_of(workspace).shown
    largest = sorted(shown, key=lambda region: -region.area)[:MOST_MARKS]
    return tuple(sorted(largest, key=lambda region: region.number))


def picture_of(workspace: Workspace) -> Image.Image | None:
    """Return the picture as a model is shown it, marks drawn; None without a picture."""
    from engine.ask.prompts import STYLE
    from engine.regions.marks import draw

    marked = regions.marked_of(workspace)
    if marked.scene is None:
        return None
    found = marks_of(workspace)
    picture = marked.scene.picture
    return draw(picture, found, STYLE, conversation_of(workspace).mentioned).image if found else picture


def labels_of(workspace: Workspace) -> dict[int, str]:
    """Return mark -> what CLIP, tuned where it is, says it is; empty without labels. Raises LabError."""
    marked = regions.marked_of(workspace)
    scorer = scoring.scorer_of(workspace)
    if scorer is None or marked.scene is None:
        return {}
    scoring.score(workspace)
    prompts = {label.name: label.phrase for label in scorer.labels}
    rows = [marked.scores.get((region, marked.view)) for region in marks_of(workspace)]
    return {row.number: prompts[(row.tuned or row.zero_shot).label] for row in rows if row}


def ask(workspace: Workspace, question: str, model: str, stop: threading.Event) -> Iterator[Answered]:
    """Ask about the picture, its marks, and its marks with labels; the conversation grows. Raises LabError."""
    from engine.ask import catalog
    from engine.ask.ask import ask, mentioned
    from engine.ask.prompts import checked

    marked, found = regions.marked_of(workspace), conversation_of(workspace)
    text = checked(question)
    if marked.scene is None:
        raise BadTask("no_images")
    found.question, found.model, found.answers, found.mentioned = text, model, {}, None
    answerer, marks = catalog.load(model), marks_of(workspace)
    labels = labels_of(workspace) if marks else {}
    for moment in ask(answerer, marked.scene.picture, text, marks, labels, stop=stop):
        found.answers[moment.way] = moment
        yield moment
    for moment in reversed(found.answers.values()):
        if numbers := mentioned(moment.reply.text, marks):
            found.mentioned = numbers[0]
            break


def check(workspace: Workspace, model: str, stop: threading.Event) -> Iterator[WaysChecked]:
    """Ask about sheets of the visitor's own labelled photos. Raises LabError."""
    from engine.ask import catalog
    from engine.ask.ask import pictures_of
    from engine.ask.check import check, sheets
    from engine.ask.prompts import MARKED

    scorer, found = scoring.scorer_of(workspace), conversation_of(workspace)
    if scorer is None or not workspace.images:
        raise BadTask("no_images")
    answerer, found.checked = catalog.load(model), None
    first = next(sheets(workspace.images, scorer.labels, 1))
    found.sample = pictures_of(first.picture, first.regions)[MARKED]
    for moment in check(answerer, scorer, workspace.images, SHEETS, stop=stop):
        found.checked = moment
        yield moment
