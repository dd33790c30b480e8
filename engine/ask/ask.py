"""One question in three ways: of the plain picture, of the marked one, of the marked one with CLIP's labels as text."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from engine.ask.answerer import Answerer, Reply
from engine.ask.prompts import LABELLED, MARKED, PLAIN, STYLE, WAYS, Prompt, checked, hint
from engine.errors import BadConfig, messages
from engine.regions.marks import draw
from engine.regions.types import Region

messages(
    ask_way="There is no way to ask called {name!r}. Choose some of: {known}.",
    ask_no_labels="Without labels for the marks there is nothing to tell the model. Give --labels or --adapter, or "
    "leave the way 'labelled' out.",
)


@dataclass(frozen=True)
class Answered:
    """What was said so far in one of the ways."""

    way: str
    prompt: Prompt
    reply: Reply


def pictures_of(picture: Image.Image, regions: Sequence[Region]) -> dict[str, Image.Image]:
    """Return what the model is shown in each way."""
    marked = draw(picture, regions, STYLE).image if regions else picture
    return {PLAIN: picture, MARKED: marked, LABELLED: marked}


def ways_for(regions: Sequence[Region], labels: Mapping[int, str]) -> tuple[str, ...]:
    """Return the ways that differ: without marks one, without labels two."""
    return WAYS if regions and labels else WAYS[:2] if regions else WAYS[:1]


def ask(
    answerer: Answerer,
    picture: Image.Image,
    question: str,
    regions: Sequence[Region] = (),
    labels: Mapping[int, str] | None = None,
    ways: Sequence[str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Answered]:
    """Ask in one way after the other; each moment holds all that one way has said so far.

    Args:
        picture: RGB, the regions' own or the same at another size.
        labels: number of a region -> what CLIP says it is.
        ways: of ``WAYS``; by default those that differ.
        stop: ends the answer that is being given, and the later ones.

    Raises BadConfig for a question that is empty or too long, an unknown way, or one that lacks marks or labels.
    """
    text, told, stop = checked(question), labels or {}, stop or threading.Event()
    chosen = tuple(ways or ways_for(regions, told))
    for way in chosen:
        if way not in WAYS:
            raise BadConfig("ask_way", name=way, known=WAYS)
        if way != PLAIN and not regions:
            raise BadConfig("ask_no_marks")
        if way == LABELLED and not told:
            raise BadConfig("ask_no_labels")
    shown = pictures_of(picture, regions)
    for way in chosen:
        if stop.is_set():
            return
        prompt = Prompt(text, hint(told) if way == LABELLED else "")
        for reply in answerer.stream(shown[way], prompt, stop):
            yield Answered(way, prompt, reply)


def mentioned(text: str, regions: Sequence[Region]) -> tuple[int, ...]:
    """Return the numbers of regions that an answer names, in their order there."""
    there = {str(region.number): region.number for region in regions}
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return tuple(dict.fromkeys(there[word] for word in words if word in there))
