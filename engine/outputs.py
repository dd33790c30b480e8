"""Where results are written: looked at before the work, so that nothing is worked out that has no place; written
beside and put in place when whole."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import BadOutput, Note, messages, reason_of

ROOM = 1 << 20
"""Free bytes that a place must have."""

messages(
    output_bad="{path} cannot be written ({reason}). Choose another place.",
    output_no_name="it has no name",
    output_not_a_folder="a file of this name is in the way",
    output_not_a_file="it is a folder",
)


class Replacing:
    """A temporary file that takes its target's place when the block ends well, and goes otherwise."""

    def __init__(self, target: Path):
        self.target, self.fresh = target, target.with_name(f".{uuid.uuid4().hex}")

    def __enter__(self) -> Path:
        return self.fresh

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            os.replace(self.fresh, self.target)
        else:
            self.fresh.unlink(missing_ok=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files take their places in ``folder`` when the block ends well; others there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as fresh:
        yield Path(fresh)
        for file in sorted(Path(fresh).iterdir()):
            os.replace(file, folder / file.name)


def checked_folder(path: str | Path) -> Path:
    """Return the folder in which files can be written; it need not be there yet. Raises BadOutput."""
    return _checked(path, folder=True)


def checked_file(path: str | Path) -> Path:
    """Return the file that can be written, in a folder that need not be there yet. Raises BadOutput."""
    return _checked(path, folder=False)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise BadOutput where what is written in the block cannot be written after all."""
    try:
        yield
    except OSError as error:
        raise BadOutput("output_bad", path=path, reason=reason_of(error)) from error


def _checked(text: str | Path, folder: bool) -> Path:
    try:
        path = Path(text).expanduser()
        reason = _obstacle(path, folder) if str(text).strip() else Note("output_no_name")
    except (OSError, RuntimeError, ValueError) as error:  # not writable, of no user, too long, or with a zero byte
        raise BadOutput("output_bad", path=str(text)[:200], reason=reason_of(error)) from error
    if reason:
        raise BadOutput("output_bad", path=text, reason=reason)
    return path


def _obstacle(path: Path, folder: bool) -> Note | None:
    """Why nothing can be written at a place, as far as the file system says no itself."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()  # raises for a name that cannot be
    there = path.exists()
    if folder and there and not path.is_dir():
        return Note("output_not_a_folder")
    if not folder and there and path.is_dir():
        return Note("output_not_a_file")
    above = path if there and folder else path.parent
    while not above.exists():
        above = above.parent
    with tempfile.NamedTemporaryFile(dir=above) as file:
        file.write(b"0")
    return Note("no_space") if shutil.disk_usage(above).free < ROOM else None
