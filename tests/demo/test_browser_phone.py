"""The page for the phone in a real browser: its scores are those of the model, and it asks nobody for anything."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from engine import export_adapter, read_task, tune
from engine.export import onnx_file, phone_page, web_runtime
from tests.demo.chromium import WAIT

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="the runtime is fetched by npm")
READY = re.compile("Ready|준비되었습니다")


@pytest.fixture(scope="module")
def exported(task_folder, tiny, tmp_path_factory):
    """Folder of the ONNX files and of a page with the exact one, of a tuned model."""
    folder = tmp_path_factory.mktemp("phone")
    tuned = tune(read_task(task_folder), "linear_probe", tiny, shots=4)
    export_adapter(tuned, "onnx", folder / "onnx")
    source = onnx_file.Source.of(tuned.outcome)
    about = json.loads((folder / "onnx" / "labels.json").read_text("utf8")) | phone_page.headline(source)
    model = (folder / "onnx" / "model.onnx").read_bytes()
    (folder / "index.html").write_text(phone_page.page(about, *web_runtime.runtime(), model), "utf8")
    return folder


@pytest.fixture
def phone(browser, exported):
    """Opens a page on a phone; fails where it asks for anything or throws."""
    open_pages = []

    def opened(folder, **options):
        context = browser.new_context(viewport={"width": 390, "height": 844}, **{"locale": "en-US", **options})
        page, asked, thrown = context.new_page(), [], []
        open_pages.append((context, asked, thrown))
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto((folder / "index.html").as_uri())
        page.locator("#state").filter(has_text=READY).wait_for()
        return page

    yield opened
    for context, asked, thrown in open_pages:
        context.close()
        assert not thrown
        assert not [url for url in asked if not url.startswith(("blob:", "file:"))]


def scores(page, count):
    page.locator("article[data-scores]").nth(count - 1).wait_for()
    found = page.locator("article").evaluate_all("all => all.map(one => one.dataset.scores)")
    return {entry["name"]: entry for entry in map(json.loads, found)}


def test_scores_are_those_of_the_model(phone, exported, tiny, tmp_path):
    chance, files = np.random.default_rng(0), {}
    for name, size in {
        "wide.png": (91, 60),
        "tall.png": (47, 130),
        "small.png": (9, 12),
        "clear.png": (64, 64),
    }.items():
        colours = chance.integers(0, 256, (5, 4, 4), dtype=np.uint8)
        if name != "clear.png":
            colours[..., 3] = 255
        image = Image.fromarray(colours, "RGBA").resize(size, Image.Resampling.BICUBIC)
        image.save(tmp_path / name)
        white = Image.new("RGBA", size, "white")
        files[name] = Image.alpha_composite(white, image).convert("RGB")
    page = phone(exported)
    page.set_input_files("#files", [tmp_path / name for name in files])
    found = scores(page, len(files))
    session = onnx_file.open_session(exported / "onnx" / "model.onnx")
    for name, image in files.items():
        wanted = onnx_file.run(session, tiny.load_pixels([image]).numpy())
        for row, side in zip(wanted, ("tuned", "before"), strict=True):
            assert found[name][side] == pytest.approx(row[0].tolist(), abs=2e-3), name


def test_what_is_no_picture_gets_a_sentence_and_the_rest_goes_on(phone, exported, task_folder, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    page = phone(exported, locale="ko-KR", color_scheme="dark")
    page.set_input_files("#files", [tmp_path / "notes.jpg"])
    page.locator("#state").filter(has_text="notes.jpg은(는) 그림으로 읽을 수 없습니다").wait_for()
    page.set_input_files("#files", [task_folder / "red" / "00.png"])
    assert set(scores(page, 1)) == {"00.png"}
    assert page.locator("html").get_attribute("lang") == "ko"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_bundled_model_runs_in_int8(phone, pocket, tmp_path):
    task = read_task("assets/samples/everyday")
    tuned = tune(task, "linear_probe", pocket, shots=4)
    done = export_adapter(tuned, "page", tmp_path / "page")
    assert sum(done.files.values()) < 15e6
    page, photos = phone(tmp_path / "page"), task.images[::33]
    page.set_input_files("#camera", [f"assets/samples/everyday/{photos[0].name}"])
    (found,) = scores(page, 1).values()
    labels = [label.name for label in tuned.outcome.setting.labels]
    assert labels[int(np.argmax(found["tuned"]))] == photos[0].label
    assert page.locator("h2").inner_text().startswith(f"{photos[0].label}, ")
