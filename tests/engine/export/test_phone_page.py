"""The page for the phone, as a file; tests/demo/test_browser_phone.py opens it."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest

from engine import export_adapter, read_task, tune
from engine.errors import BadExport
from engine.export import phone_page, web_runtime


@pytest.fixture
def tuned(task_folder, tiny, monkeypatch):
    monkeypatch.setattr(web_runtime, "runtime", lambda: (b"export const env = {}", b"\0asm"))
    return tune(read_task(task_folder), "linear_probe", tiny, shots=4)


def parts(page: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="[^"]+" id="page-(\w+)">(.*?)</script>', page, re.DOTALL))


def test_the_page_holds_model_runtime_and_figures(tuned, task_folder, tmp_path):
    done = export_adapter(tuned, "page", tmp_path / "page", read_task(task_folder))
    assert set(done.files) == {"index.html", "README.md"} and done.tested > 0 and done.accuracy["int8"] > 0
    found = parts((tmp_path / "page" / "index.html").read_text("utf8"))
    about = json.loads(found["about"])
    assert about["labels"] == [label.name for label in tuned.outcome.setting.labels]
    assert about["accuracy"] == tuned.result.accuracy["tuned"] and about["tested"] == 24
    assert gzip.decompress(base64.b64decode(found["binary"])) == b"\0asm"
    assert b"zero_shot" in gzip.decompress(base64.b64decode(found["model"]))
    assert "onnxruntime-web, copyright Microsoft Corporation, MIT licence" in (tmp_path / "page/README.md").read_text()


def test_labels_cannot_end_the_script():
    about = {"labels": ["</script><script>alert(1)</script>", "<b>"], "size": 8}
    page = phone_page.page(about, b"", b"", b"")
    assert "<script>alert" not in page and "<b>," not in page
    assert json.loads(parts(page)["about"]) == about


def test_every_language_has_every_word():
    words = json.loads((phone_page.PARTS / "words.json").read_text("utf8"))
    assert {"en", "ko"} <= set(words)
    fields = {key: set(re.findall(r"{\w+}", text)) for key, text in words["en"].items()}
    for texts in words.values():
        assert {key: set(re.findall(r"{\w+}", text)) for key, text in texts.items()} == fields
    script = (phone_page.PARTS / "page.js").read_text("utf8")
    used = set(re.findall(r'say\("(\w+)"', script)) | set(re.findall(r'data-word="(\w+)"', phone_html()))
    assert used | {"about", "about_untested"} == set(fields)


def phone_html() -> str:
    return (phone_page.PARTS / "page.html").read_text("utf8")


def test_a_page_that_no_browser_reads_is_refused(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(phone_page, "MOST_BYTES", 10_000)
    with pytest.raises(BadExport, match=r"it may have at most 0 MB.*Export to onnx"):
        export_adapter(tuned, "page", tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_a_heavy_page_says_so(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(phone_page, "LIGHT_BYTES", 10_000)
    done = export_adapter(tuned, "page", tmp_path / "page")
    assert "an older phone may not open it" in str(done.notes[-1])
