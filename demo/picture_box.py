"""An image box that takes whatever is put into it: what cannot be read is said by the handler, in the page's words."""

from __future__ import annotations

from typing import Any

import gradio as gr


def picture_box(**options: Any) -> gr.Image:
    """Return gradio's image box, which hands on the path of a file without opening it.

    The original opens the file before any handler runs, and answers a broken one with a sentence of its own, in
    English. (A subclass would have gradio write a stub file beside this one.)
    """
    box = gr.Image(type="filepath", **options)
    opens = box.preprocess

    def preprocess(payload: Any) -> Any:
        """Return the path of the file, None where the box is empty."""
        if payload is not None and payload.path and not (payload.url or "").startswith("data:"):
            return str(payload.path)
        return opens(payload)

    box.preprocess = preprocess  # type: ignore[method-assign]
    return box
