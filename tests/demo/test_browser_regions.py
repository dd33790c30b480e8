"""A real Chromium marks, scores and takes home the regions of a picture."""

from __future__ import annotations

import json
import zipfile

import pytest
from PIL import Image, ImageDraw

from tests.demo.chromium import start, visitor


def mark(page, x, y, **options):
    """Click on the picture of the Regions screen, at shares of its width and height."""
    box = page.locator("#regions-picture .ctl-canvas img").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"], **options)


def drag(page, start, end):
    """Draw a box on it."""
    box = page.locator("#regions-picture .ctl-canvas img").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def rows(page):
    """Marks in the table of regions."""
    return page.locator("#regions-table .ctl-mark").all_text_contents()


@pytest.mark.timeout(900)
def test_regions_are_marked_scored_and_taken_home(browser, server, tmp_path):
    ball = Image.new("RGB", (320, 240), (236, 236, 236))
    ImageDraw.Draw(ball).ellipse((90, 50, 230, 190), fill=(190, 40, 40))
    ball.save(tmp_path / "ball.png")
    with visitor(browser, server, accept_downloads=True) as page:
        page.click("#screen-regions-button")
        assert page.is_visible("#regions-empty .ctl-empty")
        page.set_input_files("#regions-upload input[type=file]", tmp_path / "ball.png")
        page.wait_for_selector("#regions-picture .ctl-canvas img")
        mark(page, 0.5, 0.5)
        assert page.locator(".ctl-heard").or_(page.locator(".ctl-dot")).count() == 1  # at once
        page.wait_for_selector("#regions-table tr[data-number='1'][aria-selected=true]")
        page.wait_for_selector(".ctl-heard", state="detached", timeout=2000)  # and goes with the new picture
        assert "no labels" in page.inner_text("#regions-hint")
        page.click("#screen-tune-button")
        start(page)
        page.click("#screen-regions-button")  # nothing was lost
        page.wait_for_selector("#regions-table tr[data-number='1'] .ctl-before")
        assert "Tune a method" in page.inner_text("#regions-hint")

        drag(page, (0.2, 0.15), (0.8, 0.85))
        page.wait_for_selector("#regions-table tr[data-number='2'][aria-selected=true]")
        page.press("#regions-table tr[data-number='1']", "Enter")
        page.wait_for_selector("#regions-table tr[data-number='1'][aria-selected=true]")
        page.click("#regions-undo")
        page.wait_for_selector("#regions-table tr[data-number='2']", state="detached")
        page.focus("#regions-picture .ctl-canvas")
        for key in ("ArrowRight", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector("#regions-table tr[data-number='2'] .ctl-before")
        assert rows(page) == ["1", "2"]
        for x in (0.05, 0.95):  # the second before the first is answered
            mark(page, x, 0.05)
        page.wait_for_selector("#regions-table tr[data-number='4']")
        for count in (3, 2):
            page.click("#regions-undo")
            page.wait_for_function(f"document.querySelectorAll('#regions-table .ctl-mark').length === {count}")
        page.click("#regions-look > button")
        page.locator("#regions-marks label", has_text="Letters").click()
        page.wait_for_function("document.querySelector('#regions-table .ctl-mark')?.innerText === 'A'")

        files = {}
        for kind in ("overlay", "masks", "json"):
            with page.expect_download() as waiting:
                page.click(f"#regions-get-{kind}")
            files[kind] = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(files[kind])
        assert {kind: path.name for kind, path in files.items()} == {
            "overlay": "ball-regions.png",
            "masks": "ball-masks.zip",
            "json": "ball-regions.json",
        }
        found = json.loads(files["json"].read_text())
        assert [region["mark"] for region in found["regions"]] == ["A", "B"]
        assert all(region["zero_shot"]["label"] in found["labels"] for region in found["regions"])
        assert zipfile.ZipFile(files["masks"]).namelist() == ["mask-001.png", "mask-002.png"]
        page.click("#regions-clear")
        page.wait_for_selector("#regions-table tr", state="detached")


@pytest.mark.timeout(600)
def test_regions_on_a_phone_in_korean(browser, server):
    with visitor(browser, server, viewport={"width": 390, "height": 844}, locale="ko-KR", has_touch=True) as page:
        start(page)
        page.click("#screen-regions-button")
        page.click("#regions-task input")
        page.locator("ul[role=listbox] li").first.click()
        page.wait_for_selector("#regions-picture .ctl-canvas img")
        box = page.locator("#regions-picture .ctl-canvas img").bounding_box()
        page.evaluate("(y) => window.scrollBy(0, y - 300)", box["y"])
        box = page.locator("#regions-picture .ctl-canvas img").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#regions-table tr[data-number='1'] .ctl-before, #notice .ctl-notice")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        tabs = page.locator("#screens > .tab-wrapper button[role=tab]")
        assert all(tabs.nth(k).bounding_box()["x"] >= 0 for k in range(tabs.count()) if tabs.nth(k).is_visible())
