"""What importing costs, and what lies in assets/. Who may import whom: the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_reading_images_needs_no_torch():
    code = "import sys; import engine.data.uploads; print('torch' in sys.modules or 'gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_listing_methods_imports_no_model_library():
    code = (
        "import sys; from engine.tuning import registry; list(registry.methods()); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_weights_are_no_pickles_and_small():
    for file in (ROOT / "assets").rglob("*"):
        assert file.suffix not in {".pt", ".pth", ".pkl", ".bin", ".ckpt"}, file
        assert file.is_dir() or file.stat().st_size < 10_000_000, file
