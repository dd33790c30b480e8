"""``export``: a saved adapter as files that other programs read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import table
from engine.export.targets import TARGETS
from engine.outputs import checked_folder
from engine.units import bytes_text

if TYPE_CHECKING:
    from engine.export.files import Exported


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add what decides an export."""
    sub.add_argument("--adapter", type=Path, required=True, help="folder or zip of a saved adapter")
    sub.add_argument("--to", required=True, choices=tuple(TARGETS), help="the form of the files")
    sub.add_argument("folder", type=checked_folder, metavar="DIR", help="new or empty folder for the files")
    sub.add_argument("--backbone", help="where the adapter's backbone lies now (default: where it was)")
    sub.add_argument(
        "--task", nargs="+", help="labelled images as tune takes them; those that did not train measure what int8 costs"
    )
    sub.add_argument("--device", help="cpu or cuda")


def run(options: argparse.Namespace) -> tuple[Any, str]:
    """Write the files."""
    from engine import front_door

    adapter = front_door.load_adapter(options.adapter, options.device, options.backbone)
    task = front_door.read_task(options.task, adapter.labels) if options.task else None
    done = front_door.export_adapter(adapter, options.to, options.folder, task)
    return done.to_json(), export_table(done)


def export_table(done: Exported) -> str:
    """Return an export for people."""
    lines = [table([done.to, "size"], [[name, bytes_text(size)] for name, size in done.files.items()])]
    if done.difference is not None:
        lines.append(f"read again, probabilities differ by at most {done.difference:.1g}")
    lines += [f"{form}: {share:.1%} of {done.tested} images" for form, share in done.accuracy.items()]
    return "\n".join([*lines, *map(str, done.notes)])
