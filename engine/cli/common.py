"""What several commands need: the task, its episode, settings, and tables for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import BadConfig, messages

messages(
    bad_set="--set {text!r} is not of the form name=value.",
)


def read_task(options: argparse.Namespace, work: Path) -> tuple[Any, Any, Any]:
    """Return (images, labels, backbone) of the options; problems go to stderr."""
    from engine.backbones import catalog, vocabulary
    from engine.data import episode, uploads
    from engine.errors import sentence
    from engine.types import Label

    intake = uploads.collect([options.task], work, uploads_limits())
    for problem in intake.problems:
        print(problem.message, file=sys.stderr)
    if options.labels:
        labels = episode.parse_labels(options.labels)
    else:
        names = dict.fromkeys(image.label for image in intake.images if image.label)
        labels = episode.check_labels([Label(name, name.replace("_", " ")) for name in names])
    if unseen := vocabulary.unfamiliar(options.backbone, labels):
        print(sentence("unfamiliar_words", {"backbone": options.backbone, "words": unseen}), file=sys.stderr)
    return intake.images, labels, catalog.load(options.backbone, options.device)


def uploads_limits() -> Any:
    """Return the visitor's limits on number and bytes do not hold for one's own files; the others do."""
    from engine.data.images import Limits

    return replace(Limits.from_environment(), images=1_000_000, upload_bytes=64 << 30)


def build_episode(options: argparse.Namespace, images: Any, labels: Any) -> Any:
    """Return the episode of the options; its notes go to stderr."""
    from engine.data import episode
    from engine.errors import sentence

    built = episode.build(
        labels, [image.label for image in images], getattr(options, "shots", 1), getattr(options, "seed", 0),
        options.templates, [image.name for image in images],
    )  # fmt: skip
    for note in built.notes:
        print(sentence(note.key, dict(note.values)), file=sys.stderr)
    return built


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
