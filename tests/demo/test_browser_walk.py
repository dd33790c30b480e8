"""The walk of someone with 20 unsorted photos: labels, the best method, its verdict on the screen, without any help."""

from __future__ import annotations

import shutil

import pytest

from demo import tasks
from tests.demo.chromium import WAIT, visitor

IN_VIEW = """(query) => {
    const box = document.querySelector(query)?.getBoundingClientRect();
    return box && box.height > 0 && box.top >= 0 && box.bottom <= window.innerHeight;
}"""
SIZES = {"laptop": {"width": 1366, "height": 768}, "phone": {"width": 390, "height": 844}}


def loose_photos(folder):
    """Ten bolts and ten gears under the names that a camera gives."""
    files = []
    for label in ("bolt", "gear"):
        for k in range(1, 11):
            files.append(folder / f"IMG_{2041 + len(files)}.jpg")
            shutil.copy(tasks.SAMPLES / "hardware" / label / f"{k:02}.jpg", files[-1])
    return files


def select(page, first, last):
    """Select a row of photos: a click on the first, a Shift-click on the last."""
    page.click(f"#tile-{first}")
    page.click(f"#tile-{last}", modifiers=["Shift"])
    page.wait_for_function(
        "count => document.querySelectorAll('#gallery [aria-selected=true]').length === count", arg=last - first + 1
    )


def label_new(page, label, count):
    """Give what is selected a label that is not there yet."""
    page.fill("#gallery .ctl-new input", label)
    page.press("#gallery .ctl-new input", "Enter")
    page.wait_for_function(
        "told => document.querySelector(`#gallery [data-box=${told[0]}] b`)?.textContent === told[1]",
        arg=[label, str(count)],
    )


def label_them(page):
    """Two rows by hand, what zero-shot is sure of by one press, and the last photo by its box."""
    page.wait_for_function("document.querySelectorAll('#gallery .ctl-tile').length === 20")
    assert "20 photos, none labelled" in page.inner_text("#gallery .ctl-todo")
    select(page, 0, 7)
    label_new(page, "bolt", 8)
    select(page, 10, 17)
    label_new(page, "gear", 8)
    page.click("#gallery [data-act=guesses]")
    page.click("#gallery [data-act=confirm]")
    page.wait_for_selector("#gallery [data-act=confirm]", state="detached")
    page.click("#gallery .ctl-tile[data-label='']")
    page.click("#gallery [data-box=gear] [data-act=give]")
    page.wait_for_selector("#gallery .ctl-tile[data-label='']", state="detached")
    counts = [int(count) for count in page.locator("#gallery [data-box] b").all_text_contents()]
    assert len(counts) == 2 and sum(counts) == 20 and min(counts) >= 8  # a guess may be wrong


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
def test_from_loose_photos_to_an_answer(browser, server, tmp_path, size):
    with visitor(browser, server, viewport=SIZES[size]) as page:
        page.set_input_files("#upload input[type=file]", loose_photos(tmp_path))
        label_them(page)
        page.click("#tune-other")
        page.wait_for_selector("#compare-status .ctl-progress")
        page.wait_for_function(IN_VIEW, arg="#compare-status .ctl-progress")
        page.wait_for_selector("#compare-use", timeout=3 * WAIT)
        page.wait_for_function(IN_VIEW, arg="#compare-use")
        assert "on all 20 photos" in page.inner_text("#compare-use")
        assert page.locator("#compare-table tbody tr:not(.ctl-band)").count() >= 3
        page.click("#compare-use")
        page.wait_for_selector("#verdict .ctl-verdict", timeout=2 * WAIT)
        page.wait_for_function(IN_VIEW, arg="#verdict .ctl-verdict")
        assert "→" in page.inner_text("#cards")
        assert page.is_visible("#plot-scores .js-plotly-plot")
        assert page.input_value("#score-image input").endswith("✓")  # opens on a photo that tuning fixed
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
