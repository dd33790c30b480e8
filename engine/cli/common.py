"""What several commands need: the task, settings, and tables for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import BadConfig, messages

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.front_door import Task

messages(
    bad_set="--set {text!r} is not of the form name=value.",
)


def read_task(options: argparse.Namespace, fewest: int = 2) -> tuple[Task, Backbone]:
    """The task of at least ``fewest`` labels and the backbone of the options; problems go to stderr."""
    from engine import front_door, temporary
    from engine.backbones import vocabulary
    from engine.errors import sentence

    temporary.sweep()
    task = front_door.read_task(options.task, options.labels or None, fewest)
    for said in (*task.understood, *(problem.message for problem in task.problems)):
        print(said, file=sys.stderr)
    if unseen := vocabulary.unfamiliar(options.backbone, task.labels):
        print(sentence("unfamiliar_words", {"backbone": options.backbone, "words": unseen}), file=sys.stderr)
    return task, front_door.load_backbone(options.backbone, options.device)


def settings_of(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """``--set`` as pairs."""
    pairs = []
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadConfig("bad_set", text=text)
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest cell."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
