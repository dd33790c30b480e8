"""What can go wrong for a user. Every message says what happened, to which file or label, and what to do.

A sentence is a key of :data:`MESSAGES` and its fields, and so is a phrase inside one: :class:`Note`. Their English is
here and nowhere else; another language finds its own words by the same key.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any


@dataclass(frozen=True)
class Note:
    """A sentence for the user, or a phrase inside one: a key of :data:`MESSAGES` and its fields. ``str()`` is the
    English."""

    key: str
    values: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, key: str, /, **values: Any) -> Note:
        """Return the note of a key and its fields, which may be notes themselves, or several of them."""
        return cls(key, tuple(values.items()))

    def __str__(self) -> str:
        return sentence(self.key, dict(self.values))

    def to_json(self) -> dict[str, Any]:
        """Plain data: a phrase among the fields as its English."""
        values = {name: _english(value) for name, value in self.values}
        return {"key": self.key, "values": values, "sentence": str(self)}


PLAIN = (str, int, float, bool, type(None))


class LabError(Exception):
    """Base of every error whose message is written for the user.

    The page shows the message as it is; the command line prints it and exits with 2. ``key`` and
    ``values`` let the page say the same sentence in another language; the English message is that of
    :func:`sentence`.
    """

    def __init__(self, key: str, **values: object):
        self.key = key
        self.values = {name: value.note if isinstance(value, LabError) else value for name, value in values.items()}
        super().__init__(sentence(key, self.values))

    @property
    def note(self) -> Note:
        """The same sentence as plain data, which can be sent to another process."""
        return Note(self.key, tuple((name, _plain(value)) for name, value in self.values.items()))


class BadImage(LabError):
    """An image that cannot be read or used."""


class BadTask(LabError):
    """A folder, zip or set of images from which no task can be made."""


class BadLabels(LabError):
    """Labels that contradict each other, the images or the limits."""


class BadConfig(LabError):
    """A method setting that is unknown, out of range or contradicts another."""


class BackboneUnavailable(LabError):
    """A backbone that cannot be loaded here."""


class SegmenterUnavailable(LabError):
    """A segmentation model that cannot be loaded here."""


class BadRegion(LabError):
    """A click, box or image that gives no region."""


class Untraceable(LabError):
    """A method whose step cannot be followed on tensors that have no values; it can be run all the same."""


class OutOfMemory(LabError):
    """The run needs more memory than there is."""


class BadAdapter(LabError):
    """A saved adapter that is damaged or belongs to something else."""


class AnswererUnavailable(LabError):
    """A vision-language model that cannot be loaded here."""


class BadOutput(LabError):
    """A place where results cannot be written."""


class BadExport(LabError):
    """A tuned model that cannot be written in the wanted form, or not here."""


MESSAGES: dict[str, str] = {}
"""Key -> English sentence with named fields. Each module adds its own with :func:`messages`."""


def messages(**sentences: str) -> None:
    """Register sentences; a key may be registered once."""
    for key, text in sentences.items():
        if MESSAGES.setdefault(key, text) != text:
            raise ValueError(f"error message {key!r} is registered twice with different sentences")


def sentence(key: str, values: Mapping[str, object]) -> str:
    """The English sentence of a key; of several values for one field, such as methods' names, it says them all."""
    return MESSAGES[key].format(**{name: listed(value) for name, value in values.items()})


def listed(value: object) -> object:
    """Several values as one text; one value as it is."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _english(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return list(map(_english, value))
    return value if isinstance(value, PLAIN) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return value if isinstance(value, (*PLAIN, Note)) else str(value)


messages(
    bad_count="--{name} must be at least {low}.",
    none="none",
    both="{first} and {second}",
    in_turn="{first} {second}",
    nested="it is nested too deeply",
    no_such_file="No such file or directory",
    no_permission="Permission denied",
    is_a_folder="Is a directory",
    no_space="No space left on device",
)

_OF_THE_SYSTEM = {
    errno.ENOENT: "no_such_file",
    errno.EACCES: "no_permission",
    errno.EISDIR: "is_a_folder",
    errno.ENOSPC: "no_space",
}


def reason_of(error: BaseException) -> Note | str:
    """Return why something failed, for the field of a sentence: the lab's own words, the system's usual reasons, or
    else what the library said."""
    if isinstance(error, LabError):
        return error.note
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return Note(_OF_THE_SYSTEM[error.errno])
    text = getattr(error, "strerror", None) or str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def any_of(names: Iterable[object]) -> tuple[object, ...] | Note:
    """Return names for the field of a sentence, which says that there are none where there are none."""
    return tuple(names) or Note("none")


def joined(key: str, parts: Iterable[Note]) -> Note:
    """Return several phrases as one: those of ``both`` with "and" between them, those of ``in_turn`` one after the
    other."""
    return reduce(lambda first, second: Note.of(key, first=first, second=second), parts)
