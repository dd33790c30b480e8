"""The forms in which a tuned model can leave; this list loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

TARGETS: Mapping[str, str] = {
    "transformers": "hf_folder",
    "open_clip": "open_clip_folder",
    "onnx": "onnx_file",
    "page": "phone_page",
}
"""Form -> the module here whose ``write`` makes it."""
