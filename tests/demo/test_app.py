"""The page can be built anywhere, starts nothing by itself and asks nobody else for files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_app_does_nothing():
    assert python("import app, sys; print('gradio' in sys.modules, 'torch' in sys.modules)") == "False False"


def test_building_the_page_needs_neither_torch_nor_plotly_and_launches_nothing():
    code = (
        "import sys, threading; from demo.app import build_app; app = build_app(); "
        "print('torch' in sys.modules, 'plotly' in sys.modules, app.is_running, "
        "[t.name for t in threading.enumerate() if t.name in ('device', 'sweep', 'warm-up')])"
    )
    assert python(code) == "False False False []"


def test_nothing_is_fetched_from_elsewhere():
    from demo import app

    theme = app.theme()
    assert theme._stylesheets == []
    for text in (app.css(), app.head()):
        assert "http:" not in text and "https:" not in text and "//cdn" not in text


def test_every_component_that_a_test_or_style_names_has_one_id():
    from demo.app import build_app

    app = build_app()
    ids = [block.elem_id for block in app.blocks.values() if getattr(block, "elem_id", None)]
    assert len(ids) == len(set(ids))
    assert {"tune-button", "tune-stop", "labels", "gallery", "upload", "method", "language", "backbone"} <= set(ids)
