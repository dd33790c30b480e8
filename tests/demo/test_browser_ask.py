"""A real Chromium asks about a picture: three answers side by side, examples, Stop, and whether marks help."""

from __future__ import annotations

import pytest

from tests.demo.chromium import start, visitor

ANSWERS = "document.querySelectorAll('#ask-answers .ctl-answer')"
SAID = f"{ANSWERS}.length"
ENDED = f"{SAID} === 3 && ![...{ANSWERS}].some((p) => p.innerText.endsWith('…'))"


@pytest.mark.timeout(900)
def test_a_question_is_answered_in_three_ways_and_marks_are_measured(browser, server):
    with visitor(browser, server) as page:
        page.click("#screen-ask-button")
        assert page.is_visible("#ask-picture .ctl-empty")
        page.click("#screen-tune-button")
        start(page, "everyday")
        page.click("#screen-ask-button")
        page.wait_for_selector("#ask-picture .ctl-asked")
        page.click("#ask-mark")
        before = page.get_attribute("#ask-picture .ctl-asked", "src")
        page.wait_for_function("src => document.querySelector('#ask-picture .ctl-asked').src !== src", arg=before)
        page.click("#ask-what")
        page.wait_for_function("document.querySelector('#ask-question textarea').value.startsWith('What is in mark')")
        page.click("#ask-button")
        page.wait_for_function(ENDED)
        assert all(answer.bounding_box()["height"] > 20 for answer in page.locator(".ctl-answer").all())
        cards = page.locator("#ask-answers article")
        assert [cards.nth(k).get_attribute("data-way") for k in range(3)] == ["plain", "marked", "labelled"]
        assert "mark 1 is" in page.locator("[data-way=labelled] details").text_content()
        page.fill("#ask-question textarea", " ")
        page.click("#ask-button")
        page.wait_for_selector("#notice .ctl-notice")
        assert "no question" in page.inner_text("#notice")
        assert page.locator("#ask-answers .ctl-answer").count() == 3  # nothing was lost
        page.click("#ask-check")
        page.wait_for_function("/20 of 20/.test(document.querySelector('#ask-checked').innerText)")
        assert page.locator("#ask-checked tbody tr").count() == 4
        page.click("#screen-regions-button")  # the same marks
        page.wait_for_selector("#regions-table tr[data-number='1']")


@pytest.mark.timeout(600)
def test_asking_on_a_phone_in_korean(browser, server):
    with visitor(browser, server, viewport={"width": 390, "height": 844}, locale="ko-KR") as page:
        start(page, "everyday")
        page.click("#screen-ask-button", force=True) if page.is_visible("#screen-ask-button") else _from_more(page)
        page.wait_for_selector("#ask-picture .ctl-asked")
        page.fill("#ask-question textarea", "표시 1에 무엇이 있나요?")
        page.press("#ask-question textarea", "Enter")
        page.click("#ask-button")
        page.wait_for_function(f"{SAID} >= 1")
        page.wait_for_function("/토큰/.test(document.querySelector('#ask-tokens').innerText)")
        assert "영어만" in page.inner_text("#ask-tokens")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def _from_more(page):
    """Open the screen from the tabs' menu, where a narrow window hides it."""
    page.locator("#screens .overflow-menu > button").click()
    page.locator("#screens .overflow-dropdown button", has_text="질문").click()
