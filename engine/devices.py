"""The device that models run on."""

from __future__ import annotations

import os

import torch

from engine.errors import BadConfig, messages

messages(device_unknown="There is no device {device!r} on this machine. Choose {known}.")


def device_of(wanted: str | None = None) -> str:
    """Return the device that was asked for, or else what ``CTL_DEVICE`` says, or else ``cuda`` where there is one and
    ``cpu`` where there is none.

    Raises BadConfig where this machine has no such device, with those that it has.
    """
    here = devices()
    name = (wanted or os.environ.get("CTL_DEVICE", "")).strip() or here[-1]
    index = name.removeprefix("cuda:")
    numbered = index != name and index.isdecimal() and index.isascii() and int(index) < torch.cuda.device_count()
    if name not in here and not numbered:
        raise BadConfig("device_unknown", device=name, known=here)
    return name


def devices() -> tuple[str, ...]:
    """Return what this machine has, the quickest last."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
