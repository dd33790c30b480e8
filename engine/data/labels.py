"""Labels as people type them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from engine.data.files import shown
from engine.errors import BadLabels, messages
from engine.types import Label, descriptions_of

MAX_LABELS = 200
MAX_LABEL_CHARACTERS = 300
MOST_DESCRIPTIONS = 20
_PIECE = re.compile(r"(?:\\.|[^,\n])*")
_ESCAPED = re.compile(r"\\([,=|\\])")

messages(
    no_labels="There are no labels yet. Type at least two, or upload a folder with one sub-folder a class.",
    one_label="There is only one label ({label}). Add at least one more: with a single label every image gets it.",
    too_many_labels="There are {count} labels; the limit is {limit}. Remove {extra} of them.",
    empty_label="Label {position} is empty. Type a name for it or remove the comma.",
    duplicate_label="The label {label} is there twice. Remove one, or give them different names.",
    long_label="The label that starts with {label} has {count} characters; the limit is {limit}. Shorten it.",
    many_descriptions="The label {label} has more than {limit} descriptions. Remove some.",
    labels_by_case="The labels {first} and {second} differ only in capitals. Remove one, or give them different names.",
)


def parse_labels(text: str, fewest: int = 2) -> tuple[Label, ...]:
    r"""Typed labels, by comma or new line; ``shown name = prompt text`` gives them apart.

    Descriptions may follow, each after a ``|``: what people call a class need not be how it looks. A comma, equals
    sign or bar that belongs to a name has a backslash before it. Raises BadLabels.

    >>> [label.prompt for label in parse_labels("cat, 개 = dog")]
    ['cat', 'dog']
    >>> [label.name for label in parse_labels(r"bread\, sliced, e\=mc")]
    ['bread, sliced', 'e=mc']
    """
    return check_labels([_label(name, prompt) for name, prompt in typed(text)], fewest=fewest)


def _label(name: str, prompt: str) -> Label:
    """The label of what was typed: a prompt that begins with a bar has the name's usual one before it."""
    return Label(name, f"{usual_prompt(name)} {prompt}" if prompt.startswith("|") else prompt or usual_prompt(name))


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
        if not label.name.strip() or not label.phrase:
            raise BadLabels("empty_label", position=position)
        if len(label.name) > MAX_LABEL_CHARACTERS:
            raise BadLabels(
                "long_label", label=label.name[:20] + "…", count=len(label.name), limit=MAX_LABEL_CHARACTERS
            )
        if len(descriptions_of(label.prompt)) > MOST_DESCRIPTIONS:
            raise BadLabels("many_descriptions", label=label.name, limit=MOST_DESCRIPTIONS)
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
    """Name and prompt: the name ends where an equals sign or a bar begins the rest."""
    found = re.match(r"((?:\\.|[^=|])*)(?:=(.*)|(\|.*))?", piece, re.S)
    assert found is not None
    name, prompt, described = (plain_name(_ESCAPED.sub(r"\1", part or "")) for part in found.groups())
    return name, prompt or described


def _typed(name: str, prompt: str) -> str:
    left, right = re.sub(r"[,=|\\]", r"\\\g<0>", name), re.sub(r"[,\\]", r"\\\g<0>", prompt)
    usual = usual_prompt(name)
    if prompt == usual:
        return left
    return f"{left} {right.removeprefix(usual).strip()}" if prompt.startswith(f"{usual} |") else f"{left} = {right}"
