"""Broken pictures in the page's image boxes are answered in our words, in the page's language."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import ImageData

from demo.picture_box import picture_box
from demo.screens.regions import service as regions
from demo.screens.tune import adapters
from demo.words import Translator
from demo.workspace import Workspaces
from engine.errors import BadImage

BROKEN = {
    "text.jpg": (b"just words", "읽을 수 있는 이미지"),
    "empty.png": (b"", "0바이트"),
    "cut.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", ""),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_box_hands_on_what_it_cannot_open(name: str, tmp_path: Path) -> None:
    data, korean = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(data)
    payload = ImageData(path=str(path), orig_name=name)
    with pytest.raises(OSError, match=r"identify|Truncated"):  # what gradio's own box does with it
        gr.Image(type="filepath").preprocess(payload)
    assert picture_box().preprocess(payload) == str(path)
    workspace = Workspaces(tmp_path / "all").open()
    for take in (adapters.try_image, regions.take_file):
        with pytest.raises(BadImage) as caught:
            take(workspace, str(path))
        said = Translator("ko").error(caught.value)
        assert name in said and korean in said


def test_an_empty_box_is_none() -> None:
    assert picture_box().preprocess(None) is None
