"""Helpers of the tests that walk through the page in a real Chromium."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import TimeoutError

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 120_000
"""Milliseconds; generous, because the machine may be busy."""
CAPTION = "#gallery .ctl-tile-label"


def executable() -> str | None:
    """The system's Chromium, or None for Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CTL_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def visitor(browser, server, script=None, **options):
    """A page of a visitor of his own; fails where it asks another host for anything or throws. ``script`` runs in the
    page before its own."""
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 1000}, "locale": "en-US", **options})
    page, outside, thrown = context.new_page(), [], []
    page.set_default_timeout(WAIT)
    if script:
        page.add_init_script(script)
    local = ("http://127.0.0.1:", "ws://127.0.0.1:", "http://localhost:", "data:", "blob:", "file:")
    page.on("request", lambda request: None if request.url.startswith(local) else outside.append(request.url))
    page.on("pageerror", lambda error: thrown.append(str(error)))
    try:
        page.goto(server)
        page.wait_for_selector("#method-panel .ctl-method")
        yield page
    finally:
        context.close()  # after a failure too: what the visitor started must not slow down the next one
    assert not outside
    assert not thrown


def start(page, sample="hardware"):
    page.click(f"#start-{sample}")
    page.wait_for_selector("#plot-scores .js-plotly-plot")
    page.wait_for_selector("#cards .ctl-before")


def choose(page, field, text):
    option = page.locator("ul[role=listbox] li", has_text=re.compile(rf"(· |^\W*){re.escape(text)}")).first
    page.click(f"{field} input")
    try:
        option.click(timeout=WAIT / 4)
    except TimeoutError:  # an answer that came meanwhile drew the menu anew and closed it
        page.keyboard.press("Escape")
        page.click(f"{field} input")
        option.click()


def choose_method(page, name, words):
    """Choose a method and wait until its panel says some of its words."""
    choose(page, "#method", name)
    page.wait_for_function("words => document.querySelector('#method-panel').innerText.includes(words)", arg=words)


def tune(page):
    """Press Tune and wait for the end, however quickly it comes."""
    page.evaluate("""() => {
        const stop = document.querySelector('#tune-stop');
        window.ended = 0;
        new MutationObserver(() => { window.ended += stop.disabled ? 1 : 0; }).observe(stop, { attributes: true });
    }""")
    page.click("#tune-button")
    page.wait_for_function("window.ended > 0")
    page.wait_for_selector("#verdict .ctl-verdict")


def bars(page, plot="#plot-scores"):
    """The numbers beside the bars."""
    page.wait_for_selector(f"{plot} .bartext")
    return page.locator(f"{plot} text.bartext").all_text_contents()


def wait_for_bars(page, numbers):
    """Wait until just these numbers stand beside the bars."""
    page.wait_for_function(
        """numbers => {
            const shown = [...document.querySelectorAll("#plot-scores text.bartext")].map((text) => text.textContent);
            return shown.length === numbers.length && shown.every((text, k) => text === numbers[k]);
        }""",
        arg=numbers,
    )


def open_settings(page):
    if page.locator("#setting-epochs").count() == 0 or not page.locator("#setting-epochs").is_visible():
        page.click("#settings > button")
    page.wait_for_selector("#setting-epochs input")


def set_epochs(page, epochs):
    open_settings(page)
    page.fill("#setting-epochs input", str(epochs))
    page.press("#setting-epochs input", "Enter")
    page.wait_for_timeout(700)
