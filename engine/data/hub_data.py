"""Data sets of the Hugging Face hub, as folders on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import BadTask, messages, reason_of

messages(
    hub_data_name="{name} is no data set of the hub. Write hf://datasets/OWNER/NAME, and a folder of it after that.",
    hub_data_package="{name} lies on the Hugging Face hub, which needs huggingface_hub. Install it "
    "(pip install huggingface_hub), or download the data set and give its folder.",
    hub_data_missing="{name} could not be downloaded ({reason}). Check the name and the network, or download the data "
    "set elsewhere and give its folder.",
)

_SCHEME = "hf://"
_FILES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "heic",
    "avif",
    "csv",
    "tsv",
    "json",
    "jsonl",
    "txt",
    "yaml",
    "yml",
    "parquet",
    "zip",
)


def is_on_hub(name: str) -> bool:
    """Whether a task's name means a data set of the hub."""
    return name.startswith(_SCHEME)


def download(name: str) -> Path:
    """Return the folder of ``hf://datasets/OWNER/NAME[/FOLDER]``, downloaded unless it is in the hub's cache.

    Raises BadTask, which says what is missing.
    """
    match = re.fullmatch(r"hf://datasets/([\w.-]+/[\w.-]+)(?:/(.+?))?/?", name)
    if match is None:
        raise BadTask("hub_data_name", name=name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise BadTask("hub_data_package", name=name) from None
    below = f"{match[2]}/" if match[2] else ""
    patterns = [f"{below}*.{ending}" for ending in _FILES]
    try:
        folder = Path(snapshot_download(match[1], repo_type="dataset", allow_patterns=patterns))
    except (OSError, HFValidationError, ValueError) as error:
        raise BadTask("hub_data_missing", name=name, reason=reason_of(error)) from error
    return folder / match[2] if match[2] else folder
