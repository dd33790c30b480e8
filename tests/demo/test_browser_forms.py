"""The form of a method's settings in a real Chromium."""

from __future__ import annotations

import pytest

from demo.screens.tune import settings_form
from demo.words import Translator
from engine.tuning import registry
from tests.demo.chromium import ROOT, choose, open_settings, visitor


@pytest.mark.parametrize("preset", ["budget", "paper"])
def test_config_round_trips_through_its_form(browser, preset):
    specs = [spec for spec in registry.methods() if preset in spec.presets]
    drawn = [
        settings_form.form(s.id, preset, settings_form.controls(s, preset, {}, 4, Translator("ko")), {}, 1)
        for s in specs
    ]
    page = browser.new_page()
    page.set_content("".join(drawn))
    page.add_script_tag(path=ROOT / "assets" / "style" / "forms.js")
    told = page.evaluate("[...document.querySelectorAll('.ctl-form')].map((form) => ctlValues(form))")
    page.close()
    for spec, values in zip(specs, told, strict=True):
        assert spec.configure("budget", values, 4) == spec.configure(preset, {}, 4)


@pytest.mark.timeout(600)
def test_settings_are_taken_over_one_by_one(browser, server):
    def trains(page, count):
        page.wait_for_function(f"/\\b{count}\\b/.test(document.querySelector('#method-panel').innerText)")

    with visitor(browser, server) as page:
        choose(page, "#method", "Context prompt")
        open_settings(page)
        page.fill("#setting-context textarea", "a photo\nof thing")
        page.locator("#setting-context textarea").blur()
        trains(page, 768)  # 4 tokens of 192
        page.fill("#setting-epochs input", "0")
        page.press("#setting-epochs input", "Enter")
        page.wait_for_selector("#setting-problem [role=alert]")
        assert "epochs = 0 is not allowed" in page.inner_text("#setting-problem")
        page.fill("#setting-epochs input", "")
        page.locator("#setting-epochs input").blur()
        page.wait_for_function(
            "document.querySelector('#setting-problem').innerText.includes('must be a whole number')"
        )
        page.fill("#setting-epochs input", "3")
        page.locator("#setting-epochs input").blur()
        page.wait_for_selector("#setting-problem [role=alert]", state="detached")
        page.fill("#setting-context textarea", "a photo")  # two at once: neither is lost
        page.select_option("#setting-optimizer select", "sgd")
        trains(page, 384)
        page.click("#language label >> nth=1")
        page.wait_for_function("document.querySelector('#setting-epochs small').innerText.includes('학습 이미지를')")
        values = [page.input_value(f"#value-{name}") for name in ("context", "epochs", "optimizer")]
        assert values == ["a photo", "3", "sgd"]
