"""What was learned, as HTML: escaped, in both languages, from a run, a reopened run and a loaded adapter."""

from __future__ import annotations

import base64
import io
import re
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from demo import tasks
from demo.screens.tune import adapters, learned
from demo.screens.tune import service as tuning
from demo.words import LANGUAGES, Translator
from demo.workspace import Workspaces
from engine.errors import Note
from engine.tuning.learned import LearnedImage, LearnedToken, LearnedTokens, Piece

EVIL = "<script>alert('1')</script>"
EN = Translator("en")


def tokens(label: str, shared: bool = True, start: str = "photo") -> LearnedTokens:
    token = LearnedToken("v1", ((EVIL, 0.123), ("of", 2.0)), start, 0.5 if start else None)
    about = Note("learned_shared" if shared else "learned_own", (("count", 1), ("label", label)))
    return LearnedTokens(about, label, shared, (Piece("v1", True), Piece(EVIL, False)), (token,))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_gets_through_unescaped(language):
    page = learned.html((tokens("dog"),), {"dog": EVIL}, Translator(language))
    assert "<script" not in page and page.count("&lt;script&gt;") == 3
    assert Translator(language)("learned.warning") in page
    assert "0.12" in page and "0.50" in page
    assert "<details" not in page


def test_vectors_from_noise_have_no_start():
    page = learned.html((tokens("dog", start=""),), {"dog": "dog"}, EN)
    assert EN("learned.start") not in page and page.count("<td>") == 2


def test_many_labels_are_folded_and_the_rest_is_counted():
    names = {name: name.upper() for name in "abcde"}
    page = learned.html((tokens("a", False), tokens("b", False)), names, EN)
    assert page.count("<details open>") == 1 and page.count("<details") == 2
    assert "vectors of A." in page and "3 more labels" in page


def test_pictures_are_shown_pixel_by_pixel():
    before, after = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 200, np.uint8)
    page = learned.html((LearnedImage(Note("learned_border", (("width", 2),)), before, after),), {}, EN)
    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall('base64,([^"]+)', page)]
    assert np.array_equal(found, [before, after])
    assert EN("learned.warning") not in page


@pytest.fixture
def filled(task_folder, tmp_path):
    workspace = Workspaces(tmp_path / "root", hours=1).open()
    tasks.add_files(workspace, [shutil.make_archive(str(tmp_path / "task"), "zip", task_folder)])
    workspace.shots = 2
    return workspace


def run(workspace, method: str, **settings):
    workspace.method, workspace.settings = method, settings
    return list(tuning.tune(workspace, threading.Event()))[-1]


def test_every_way_to_a_result_shows_the_same(filled):
    assert EN("learned.none_yet") in learned.view(filled, EN)
    record = run(filled, "image_prompt", epochs=1)
    page = learned.view(filled, EN)
    assert page.count("<img") == 2
    archive = adapters.adapter_zip(filled)
    run(filled, "linear_probe", epochs=1)
    assert "Linear probe trained numbers" in learned.view(filled, EN)
    tuning.reopen(filled, record.id)
    assert learned.view(filled, EN) == page
    adapters.load_adapter(filled, str(archive))
    assert learned.view(filled, EN) == page
    run(filled, "zero_shot")
    assert "trains nothing" in learned.view(filled, EN)


def test_words_of_the_shown_language_name_the_label(filled):
    run(filled, "prompt_tuning", epochs=1)
    assert "For blue the text tower reads" in learned.view(filled, EN)
    assert "blue의 텍스트" in learned.view(filled, Translator("ko"))
