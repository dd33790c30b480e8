"""What can go wrong for a user. Every message says what happened, to which file or label, and what to do."""

from __future__ import annotations

from collections.abc import Mapping


class LabError(Exception):
    """Base of every error whose message is written for the user.

    The page shows the message as it is; the command line prints it and exits with 2. ``key`` and
    ``values`` let the page say the same sentence in another language; the English message is that of
    :func:`sentence`.
    """

    def __init__(self, key: str, **values: object):
        self.key, self.values = key, values
        super().__init__(sentence(key, values))


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
