"""What the address says: the open screen, and once a sample, a method and a language."""

from __future__ import annotations

import re

import pytest

from tests.demo.chromium import start, visitor


def opened(page, name):
    page.wait_for_selector(f"#screen-{name}", state="visible")


@pytest.mark.timeout(600)
def test_the_open_screen_is_in_the_address(browser, server):
    with visitor(browser, server) as page:
        page.click("#screen-compare-button")
        page.wait_for_url("**/?tab=compare")
        page.click("#screen-learn-button")
        page.wait_for_url("**/?tab=learn")
        page.go_back()
        opened(page, "compare")
        page.reload()
        opened(page, "compare")
        assert page.url.endswith("?tab=compare")
        page.go_back()
        opened(page, "tune")


@pytest.mark.timeout(600)
def test_a_link_opens_a_screen_a_sample_a_method_and_a_language(browser, server):
    wanted = "?tab=compare&sample=hardware&method=gda&lang=ko"
    with visitor(browser, server, viewport={"width": 390, "height": 844}) as page:
        page.goto(f"{server}{wanted}")
        opened(page, "compare")
        page.wait_for_url("**/?tab=compare")
        page.wait_for_selector("html[lang=ko]", state="attached")
        page.goto(f"{server}?tab=runs")  # in the tabs' menu, whose buttons have no ids
        opened(page, "runs")
        page.click("#screen-tune-button")
        page.wait_for_selector("#cards .ctl-before")
        page.wait_for_function("document.querySelector('#method input').value.includes('GDA')")
        page.goto(f"{server}?sample=no<b>ne&method=loar")
        page.locator("#notice").filter(has_text=re.compile("no sample no<b>ne.*no method 'loar'")).wait_for()


@pytest.mark.timeout(600)
def test_a_reload_during_a_run_says_that_it_was_stopped(browser, server):
    with visitor(browser, f"{server}?method=full") as page:
        start(page)
        page.click("#tune-button")
        page.wait_for_selector("#status .ctl-progress")
        page.reload()
        page.locator("#notice").filter(has_text="was going on when the page was closed or loaded again").wait_for()
        page.wait_for_selector("#cards .ctl-before")
        page.reload()
        page.wait_for_selector("#method-panel .ctl-method")
        assert not page.inner_text("#notice").strip()
