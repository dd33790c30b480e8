"""Labels as people type them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from engine.data.files import shown
from engine.errors import BadLabels, messages
from engine.types import Label

MAX_LABELS = 200
MAX_LABEL_CHARACTERS = 300
_PIECE = re.compile(r"(?:\\.|[^,\n])*")
_ESCAPED = re.compile(r"\\([,=\\])")

messages(
    no_labels="There are no labels yet. Type at least two, or upload a folder with one sub-folder a class.",
    one_label="There is only one label ({label}). Add at least one more: with a single label every image gets it.",
    too_many_labels="There are {count} labels; the limit is {limit}. Remove {extra} of them.",
    empty_label="Label {position} is empty. Type a name for it or remove the comma.",
    duplicate_label="The label {label} is there twice. Remove one, or give them different names.",
    long_label="The label that starts with {label} has {count} characters; the limit is {limit}. Shorten it.",
    labels_by_case="The labels {first} and {second} differ only in capitals. Remove one, or give them different names.",
)


def parse_labels(text: str, fewest: int = 2) -> tuple[Label, ...]:
    r"""Typed labels, by comma or new line; ``shown name = prompt text`` gives them apart.

    A comma or equals sign that belongs to a name has a backslash before it. Raises BadLabels.

    >>> [label.prompt for label in parse_labels("cat, 개 = dog")]
    ['cat', 'dog']
    >>> [label.name for label in parse_labels(r"bread\, sliced, e\=mc")]
    ['bread, sliced', 'e=mc']
    """
    return check_labels([Label(name, prompt or usual_prompt(name)) for name, prompt in typed(text)], fewest=fewest)


def typed(text: str) -> list[tuple[str, str]]:
    """Return name and prompt of each typed label, whether or not they can be used together; what was not typed is
    empty. Nothing after the last comma is no label."""
    pieces = [piece for line in text.split("\n") if line.strip() for piece in _pieces(line)]
    return [_pair(piece) for piece in pieces]


def as_text(labels: Sequence[Label]) -> str:
    """Return labels as they are typed."""
    return ", ".join(_typed(label.name, label.prompt) for label in labels)


def usual_prompt(name: str) -> str:
    """Return what a name says in a sentence."""
    return name.replace("_", " ")


def plain_name(text: str) -> str:
    """Return a label's name as it is shown: one line, and marks that would turn its letters round made visible."""
    return shown(" ".join(text.split()))


def check_labels(labels: Sequence[Label], limit: int = MAX_LABELS, fewest: int = 2) -> tuple[Label, ...]:
    """Return the labels, if they can be used together; raises BadLabels otherwise. ``fewest`` is 1 where others are
    known already."""
    if not labels:
        raise BadLabels("no_labels")
    if len(labels) > limit:
        raise BadLabels("too_many_labels", count=len(labels), limit=limit, extra=len(labels) - limit)
    for position, label in enumerate(labels, 1):
        if not label.name.strip() or not label.prompt.strip():
            raise BadLabels("empty_label", position=position)
        if len(label.name) > MAX_LABEL_CHARACTERS:
            raise BadLabels(
                "long_label", label=label.name[:20] + "…", count=len(label.name), limit=MAX_LABEL_CHARACTERS
            )
    _check_distinct(labels)
    if len(labels) < fewest:
        raise BadLabels("one_label", label=labels[0].name)
    return tuple(labels)


def _check_distinct(labels: Sequence[Label]) -> None:
    counts = Counter(label.name.casefold() for label in labels)
    twice = [label.name for label in labels if counts[label.name.casefold()] > 1]
    if not twice:
        return
    first, second = [name for name in twice if name.casefold() == twice[0].casefold()][:2]
    if first == second:
        raise BadLabels("duplicate_label", label=first)
    raise BadLabels("labels_by_case", first=first, second=second)


def _pieces(line: str) -> list[str]:
    """Parts of a line by comma, but for commas after a backslash; the line's last comma is an ending."""
    line, found, place = line.strip(), [], 0
    while place <= len(line):
        end = _PIECE.match(line, place).end()  # type: ignore[union-attr]
        found.append(line[place:end])
        place = end + 1
    return found[:-1] if len(found) > 1 and not found[-1].strip() else found


def _pair(piece: str) -> tuple[str, str]:
    found = re.match(r"((?:\\.|[^=])*)=?(.*)", piece, re.S)
    assert found is not None
    name, prompt = (plain_name(_ESCAPED.sub(r"\1", part)) for part in found.groups())
    return name, prompt


def _typed(name: str, prompt: str) -> str:
    left, right = re.sub(r"[,=\\]", r"\\\g<0>", name), re.sub(r"[,\\]", r"\\\g<0>", prompt)
    return left if prompt == usual_prompt(name) else f"{left} = {right}"
