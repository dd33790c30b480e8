"""The three ways to ask: of the plain picture, of the marked picture (Set-of-Mark, arXiv 2310.11441), and of the
marked picture with what CLIP says of each mark as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import BadConfig, messages
from engine.regions.marks import Style

PLAIN, MARKED, LABELLED = "plain", "marked", "labelled"
WAYS = (PLAIN, MARKED, LABELLED)
STYLE = Style(alpha=0.2)
"""How marks are drawn for a model: pale, so that the colours of what lies under them can be told."""
MOST_CHARACTERS = 500

messages(
    ask_empty="There is no question. Type one, such as: What is in mark 1?",
    ask_long="The question has {count:,} characters; at most {limit} can be read. Shorten it.",
    ask_no_marks="The picture has no marks yet, so it can only be asked about as a whole. Mark regions first.",
)


@dataclass(frozen=True)
class Prompt:
    """What a model is given beside the picture."""

    question: str
    hint: str = ""
    """What is told about the marks; empty where nothing is."""


def checked(question: str) -> str:
    """Return a question in one line. Raises BadConfig where it is empty or too long."""
    text = " ".join(question.split())
    if not text:
        raise BadConfig("ask_empty")
    if len(text) > MOST_CHARACTERS:
        raise BadConfig("ask_long", count=len(text), limit=MOST_CHARACTERS)
    return text


def hint(labels: Mapping[int, str], marks: Sequence[str] = ()) -> str:
    """What is told about the marks: ``mark 1 is a cup, mark 2 is a dog``.

    ``marks`` are their texts where they are not numbers, by position.
    """
    names = {number: marks[k] if marks else str(number) for k, number in enumerate(sorted(labels))}
    return ", ".join(f"mark {names[number]} is {labels[number]}" for number in sorted(labels))
