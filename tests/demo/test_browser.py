"""A real Chromium walks through the page; nothing may be asked of any other host."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from tests.demo.chromium import (
    CAPTION,
    WAIT,
    bars,
    choose,
    choose_method,
    open_settings,
    set_epochs,
    start,
    tune,
    visitor,
    wait_for_bars,
)
from tests.tiny import picture


def save(page, tmp_path):
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as waiting:
        page.click("#download")
    target = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def make_task(tmp_path):
    """A zip of two labels with five images each, and one single image."""
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (tmp_path / "task" / name).mkdir(parents=True)
        for i in range(5):
            picture(colour, i, 64).save(tmp_path / "task" / name / f"{i}.png")
    single = tmp_path / "single.png"
    picture((190, 60, 60), 50, 64).save(single)
    return Path(shutil.make_archive(str(tmp_path / "task"), "zip", tmp_path / "task")), single


@pytest.mark.timeout(600)
def test_first_click_three_methods_save_and_reload(browser, server, tmp_path):
    with visitor(browser, server) as page:
        assert page.is_visible("#welcome")
        start(page)
        assert not page.is_visible("#welcome")
        assert page.locator("#plot-scores .legendtext").all_text_contents() in ([], ["zero-shot"])
        choose_method(page, "Tip-Adapter", "votes")
        tune(page)
        choose_method(page, "Linear probe", "weight vector")
        tune(page)
        choose_method(page, "LoRA", "low-rank")
        set_epochs(page, 2)
        tune(page)
        assert "→" in page.inner_text("#cards")
        scores, image = bars(page), page.input_value("#score-image input")
        for tab in ("heat", "confusion", "training", "map"):
            page.click(f"#tab-{tab}-button")
            page.wait_for_selector(f"#plot-{tab} .js-plotly-plot")
        page.click("#tab-errors-button")
        page.locator(".ctl-errors button.thumbnail-lg, .ctl-errors .thumbnail-item").first.click()
        page.wait_for_selector("#plot-scores", state="visible")
        page.click("#screen-runs-button")
        page.wait_for_function("document.querySelectorAll('#runs-table tbody tr').length === 3")
        choose(page, "#run-other", "Tip-Adapter")
        page.wait_for_selector("#runs-compare .ctl-differs")
        page.click("#reopen")
        page.wait_for_selector("#verdict .ctl-verdict")
        adapter = save(page, tmp_path)
        with page.expect_file_chooser() as chooser:
            page.click("#load-adapter")
        chooser.value.set_files(adapter)
        page.wait_for_function("document.querySelector('#verdict').innerText.includes('Adapter loaded')")
        page.wait_for_timeout(900)
        choose(page, "#score-image", image)
        wait_for_bars(page, scores)


def seconds_to_stop(page) -> float:
    """Start the chosen run, stop it once it trains, and time how long the page is busy after the click."""
    page.click("#tune-button")
    page.wait_for_selector("#plot-training .js-plotly-plot", state="visible", timeout=2 * WAIT)  # drawn beside training
    page.wait_for_function("/loss/.test(document.querySelector('#status').innerText)")
    started = time.perf_counter()
    page.click("#tune-stop")
    page.wait_for_selector("#tune-stop[disabled]")
    page.wait_for_selector("#tune-button:not([disabled])")
    seconds = time.perf_counter() - started
    page.wait_for_timeout(1500)
    page.wait_for_function("document.querySelector('#status').innerText.includes('Stopped')")
    return seconds


@pytest.mark.timeout(600)
def test_stop_in_the_middle_of_full(browser, server):
    with visitor(browser, server) as page:
        start(page, "materials")
        choose_method(page, "Full fine-tuning", "every weight")
        set_epochs(page, 1000)
        assert min(seconds_to_stop(page) for _ in range(3)) < 2  # the quickest: other programs only slow it down
        assert page.is_disabled("#tune-stop") and not page.is_disabled("#tune-button")
        page.click("#tab-scores-button")
        assert bars(page)


LATE_CLOSE = """(() => {
  const fetched = window.fetch;
  window.fetch = async (input, init) => {
    const response = await fetched(input, init);
    if (!String(input.url || input).includes("/queue/data")) return response;
    const late = new TransformStream({ async transform(chunk, out) {
      if (new TextDecoder().decode(chunk).includes("close_stream")) await new Promise((done) => setTimeout(done, 600));
      out.enqueue(chunk);
    } });
    return new Response(response.body.pipeThrough(late), { status: response.status, headers: response.headers });
  };
})()"""
"""The end of gradio's stream of answers comes when the next event has been sent, as it can on a busy machine."""


def test_no_answer_waits_for_the_next_event(browser, server):
    with visitor(browser, server, script=LATE_CLOSE) as page:
        start(page, "hardware")
        page.fill("#labels textarea", "bolt, nut")
        page.press("#labels textarea", "Enter")
        page.wait_for_function("document.querySelector('#plot-scores').innerHTML.includes('bolt')")


def test_quick_presses_and_choices_all_count(browser, server):
    with visitor(browser, server) as page:
        start(page, "hardware")
        page.evaluate("for (let k = 0; k < 3; k++) document.querySelector('#next').click()")
        page.wait_for_function("document.querySelector('#score-image input').value.startsWith('4 · ')")
        for name in ("LoRA", "CLIP-Adapter", "Tip-Adapter"):
            choose(page, "#method", name)
        page.wait_for_function("document.querySelector('#method-panel').innerText.includes('votes')")
        assert "Tip-Adapter" in page.input_value("#method input")


@pytest.mark.timeout(600)
def test_the_mix_slider_goes_back_to_zero_shot(browser, server):
    with visitor(browser, server) as page:
        start(page, "hardware")
        choose_method(page, "Full fine-tuning", "every weight")
        set_epochs(page, 1)
        tune(page)
        page.wait_for_selector("#mix input[type=number]")
        tuned, verdict = bars(page), page.inner_text("#verdict .ctl-verdict")
        page.locator("#mix input[type=range]").fill("0")
        page.wait_for_function("was => document.querySelector('#verdict .ctl-verdict').innerText !== was", arg=verdict)
        assert bars(page) != tuned
        page.locator("#mix input[type=range]").fill("1")
        wait_for_bars(page, tuned)


@pytest.mark.timeout(600)
def test_own_images_labels_and_a_new_image(browser, server, tmp_path):
    archive, single = make_task(tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    with visitor(browser, server) as page:
        page.set_input_files("#upload input[type=file]", [archive])
        page.wait_for_function("document.querySelector('#gallery').innerText.includes('blue')")
        page.wait_for_selector("#plot-scores .js-plotly-plot")
        page.set_input_files("#upload input[type=file]", [single, broken])
        page.wait_for_selector("#problems .ctl-problems")
        assert "broken.jpg" in page.inner_text("#problems")
        assert page.locator(CAPTION).count() == 11
        page.locator(CAPTION).last.click()
        page.wait_for_selector(".ctl-choosing .ctl-tile[aria-selected=true]")
        page.click("#gallery [data-box=red] [data-act=give]")
        page.wait_for_function("/red\\s*6/.test(document.querySelector('#gallery').innerText)")
        assert "Cross-validation" in page.inner_text("#split")
        page.fill("#labels textarea", "blau = blue, rot = red")
        page.press("#labels textarea", "Enter")
        page.wait_for_function("/rot\\s*6/.test(document.querySelector('#gallery').innerText)")
        page.wait_for_function("document.querySelector('#plot-scores').innerHTML.includes('blau')")
        page.fill("#labels textarea", "blau, blau")
        page.press("#labels textarea", "Enter")
        page.wait_for_function("document.querySelector('#reading').innerText.includes('twice')")
        page.fill("#labels textarea", "blau = blue, rot = 빨강")
        page.press("#labels textarea", "Enter")
        page.wait_for_function("document.querySelector('#reading').innerText.includes('English only')")
        page.click("#try-box > button")
        page.set_input_files("#new-image input[type=file]", single)
        assert len(bars(page, "#plot-new")) == 2


@pytest.mark.timeout(600)
def test_a_folder_is_packed_by_the_browser(browser, server, tmp_path):
    make_task(tmp_path)
    with visitor(browser, server) as page:
        with page.expect_file_chooser() as chooser:
            page.click("#folder")
        chooser.value.set_files(tmp_path / "task")
        page.wait_for_function("/blue\\s*5/.test(document.querySelector('#gallery').innerText)")
        page.wait_for_selector("#plot-scores .js-plotly-plot")


@pytest.mark.timeout(600)
def test_korean_and_its_memory(browser, server):
    with visitor(browser, server, locale="ko-KR") as page:
        assert page.inner_text("#tune-button") == "튜닝"
        start(page)
        page.wait_for_function("document.querySelector('#gallery').innerText.includes('나사못')")
        tune(page)
        page.click("#language label >> nth=0")
        page.wait_for_function("document.querySelector('#tune-button').innerText === 'Tune'")
        page.wait_for_function("document.querySelector('#gallery').innerText.includes('screw')")
        page.wait_for_function("document.querySelector('#verdict').innerText.match(/[a-z]{4}/)")
        assert "→" in page.inner_text("#cards")
        left = page.evaluate("document.querySelector('.gradio-container main').innerText")
        foreign = [line for line in left.splitlines() if re.search("[가-힣]", line) and line != "한국어"]
        assert not foreign
        page.reload()
        page.wait_for_function("document.querySelector('#tune-button')?.innerText === 'Tune'")
        page.wait_for_selector("#verdict .ctl-verdict")
        page.click("#language label >> nth=1")
        page.wait_for_function("document.querySelector('#tune-button').innerText === '튜닝'")
        page.wait_for_function("document.querySelector('#upload').innerText.includes('업로드')")


@pytest.mark.timeout(600)
def test_phone_has_one_column_and_nothing_hangs_over(browser, server):
    with visitor(browser, server, viewport={"width": 390, "height": 844}) as page:
        start(page)
        tune(page)
        for tab in ("#tab-heat-button", "#tab-scores-button"):
            page.click(tab)
            page.wait_for_timeout(700)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390
        outside = page.evaluate(
            """() => [...document.querySelectorAll('main *')].filter((e) => {
                 const r = e.getBoundingClientRect();
                 if (!r.width || !r.height || r.right <= 391) return false;
                 for (let p = e.parentElement; p; p = p.parentElement)
                   if (/auto|scroll|hidden|clip/.test(getComputedStyle(p).overflowX) && p.tagName !== 'BODY'
                       && !p.classList.contains('gradio-container')) return false;
                 return true;
               }).map((e) => e.tagName + '#' + e.id + '.' + e.className).slice(0, 5)"""
        )
        assert not outside


@pytest.mark.timeout(600)
def test_two_visitors_do_not_see_each_other(browser, server, tmp_path):
    archive, _ = make_task(tmp_path)
    with visitor(browser, server) as first, visitor(browser, server) as second:
        start(first)
        tune(first)
        assert second.is_visible("#welcome")
        second.set_input_files("#upload input[type=file]", [archive])
        second.wait_for_function("document.querySelector('#gallery').innerText.includes('blue')")
        second.click("#screen-runs-button")
        second.wait_for_function("document.querySelector('#runs-table').innerText.includes('No runs')")
        assert "blue" not in first.inner_text("#gallery .ctl-boxes")
        first.reload()
        first.wait_for_selector("#verdict .ctl-verdict")
        assert first.locator(CAPTION).count() > 90


@pytest.mark.timeout(600)
def test_training_of_one_leaves_the_page_of_another_usable(browser, server):
    with visitor(browser, server) as first, visitor(browser, server) as second:
        start(first)
        choose_method(first, "Full fine-tuning", "every weight")
        set_epochs(first, 1000)
        first.click("#tune-button")
        first.wait_for_function("/loss/.test(document.querySelector('#status').innerText)")
        start(second, "materials")
        second.click("#tune-button")
        second.wait_for_function("document.querySelector('#status').innerText.includes('Waiting for 1 run')")
        first.click("#tune-stop")
        second.wait_for_selector("#verdict .ctl-verdict")


def test_a_backbone_that_is_not_here_leaves_the_old_one(browser, server):
    with visitor(browser, server) as page:
        page.fill("#backbone input", "openai/clip-vit-base-patch32")
        page.press("#backbone input", "Enter")
        page.wait_for_selector("#notice [role=alert]")
        assert "openai/clip-vit-base-patch32 is not on this machine" in page.inner_text("#notice")
        page.wait_for_function("document.querySelector('#backbone input').value.startsWith('Pocket CLIP')")
        start(page)
        assert bars(page)


def test_words_that_the_backbone_hardly_saw_are_named(browser, server):
    with visitor(browser, server) as page:
        page.fill("#labels textarea", "gasket, cat")
        page.press("#labels textarea", "Enter")
        page.wait_for_selector("#reading .ctl-warning")
        assert "hardly saw: gasket." in page.inner_text("#reading")


@pytest.mark.timeout(600)
def test_what_was_learned_is_shown(browser, server):
    with visitor(browser, server) as page:
        start(page, "materials")
        choose(page, "#method", "Image prompt")
        open_settings(page)
        page.wait_for_selector("#setting-form")  # this method's controls, not those of the one before
        set_epochs(page, 1)
        tune(page)
        page.click("#tab-learned-button")
        page.wait_for_selector(".ctl-pixels img")
        pictures = page.locator(".ctl-pixels img")
        assert pictures.count() == 2 and pictures.first.get_attribute("src") != pictures.last.get_attribute("src")
        assert pictures.first.evaluate("e => [e.naturalWidth, getComputedStyle(e).imageRendering]") == [64, "pixelated"]


def test_learn_shows_where_a_method_trains(browser, server):
    with visitor(browser, server, viewport={"width": 390, "height": 844}) as page:
        page.click("#how")
        page.wait_for_function("document.querySelector('#lesson h2')?.innerText === 'Linear probe'")
        choose(page, "#learn-method", "Deep visual prompt")
        page.wait_for_function("document.querySelector('#lesson h2').innerText.startsWith('Deep visual')")
        assert page.locator("#lesson svg circle.ctl-a-trained").count() == 12
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("#language label >> nth=1")
        page.wait_for_function("document.querySelector('#lesson').innerText.includes('이미지 타워')")
        page.wait_for_function("document.querySelector('#glossary').innerText.startsWith('용어 풀이')")
        page.click("#learn-use")
        page.wait_for_function("document.querySelector('#method-panel').innerText.includes('층마다')")
        assert page.is_visible("#tune-button")


@pytest.mark.timeout(900)
def test_methods_are_compared_and_the_report_opens(browser, server, tmp_path):
    with visitor(browser, server, accept_downloads=True) as page:
        start(page, "materials")
        page.click("#screen-compare-button")
        page.wait_for_selector("#compare-outlook .ctl-hint")
        page.locator("#compare-groups label", has_text="Recommended").click()
        for name in ("Tip-Adapter", "Linear probe"):
            page.click("#compare-single input")
            page.locator("ul[role=listbox] li", has_text=re.compile(rf"^\W*{name}\s*$")).first.click()
        page.keyboard.press("Escape")
        page.locator("#compare-shots label", has_text=re.compile(r"^\s*8\s*$")).click()
        page.fill("#compare-seeds input[type=number]", "1")
        page.press("#compare-seeds input[type=number]", "Enter")
        page.wait_for_function("/3 runs, about/.test(document.querySelector('#compare-outlook').innerText)")
        page.click("#compare-button")
        page.wait_for_selector("#compare-advice .ctl-advice")
        page.wait_for_selector("#plot-pareto .js-plotly-plot")
        assert page.locator("#compare-table tbody tr:not(.ctl-band)").count() == 3
        before = page.inner_text("#compare-advice b")
        page.fill("#limit-parameters input", "1")
        page.wait_for_selector("#compare-table .ctl-faded")
        assert "Linear probe" in page.inner_text("#compare-table .ctl-faded")
        assert page.inner_text("#compare-advice details summary")
        page.fill("#limit-parameters input", "0")
        page.wait_for_selector("#compare-table .ctl-faded", state="detached")
        assert page.inner_text("#compare-advice b") == before
        page.click("#compare-damage-box > button")
        page.click("#compare-damage-go")
        page.wait_for_selector(".ctl-notice")
        page.wait_for_timeout(1500)  # what follows by itself leaves the sentence where it is
        assert "at least 6 labels" in page.inner_text(".ctl-notice")
        page.wait_for_selector("#compare-html:not([disabled])")
        page.wait_for_timeout(1500)
        with page.expect_download() as waiting:
            page.click("#compare-html")
        report = tmp_path / "report.html"
        waiting.value.save_as(report)
        page.goto(report.as_uri())
        assert "Recommendation" in page.inner_text("h2 >> nth=0")
        assert page.locator("svg").count() >= 2
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
