"""Pieces of HTML: numbers for people, honest words, nothing a user typed gets through unescaped."""

from __future__ import annotations

import json
import re
import string
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demo import html as pieces
from demo.words import Translator
from demo.workspace import Baselines
from engine.types import SCORES, RunResult

DEMO = Path(pieces.__file__).parent
WORDS = {lang: json.loads((DEMO / "words" / lang / "plots.json").read_text("utf-8")) for lang in ("en", "ko")}
EVIL = '<script>alert("1")</script>'

RUN = {
    "backbone": "pocket",
    "method": "lora",
    "config": {},
    "seed": 0,
    "labels": [],
    "accuracy": {"zero_shot": 0.29, "zero_shot_ensemble": 0.3123, "tuned": 0.842},
    "interval95": {"zero_shot_ensemble": [0.26, 0.37], "tuned": [0.79, 0.88]},
    "verdict": "better",
    "p_value": 1e-9,
    "gained": 142,
    "lost": 9,
    "test": 252,
    "folds": 1,
    "trainable_parameters": 49152,
    "total_parameters": 4_100_000,
    "peak_memory_bytes": 224_000_000,
    "memory_kind": "process",
    "forecast_memory_bytes": 210_000_000,
    "seconds": {"features": 1.1, "train": 6.9, "evaluate": 0.6},
    "adapter_bytes": 98_304,
}
RESULT = RunResult.from_json(RUN)
ZERO_SHOT = Baselines(RESULT.accuracy, RESULT.interval95, 252)


def result(**changes) -> RunResult:
    """The run with other figures."""
    return RunResult.from_json(RUN | changes)


t = Translator("en")
korean = Translator("ko")


class Text(HTMLParser):
    """Visible text and tags; fails where a tag is not closed."""

    def __init__(self, html: str):
        super().__init__()
        self.said, self.tags, self.open = "", [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def said(html: str) -> str:
    return Text(html).said.replace("\u00a0", " ")


# ---- words --------------------------------------------------------------------------------------


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_both_languages_say_the_same():
    assert WORDS["en"].keys() == WORDS["ko"].keys()
    for key, sentence in WORDS["en"].items():
        assert fields(sentence) == fields(WORDS["ko"][key]), key
        assert WORDS["ko"][key].strip(), key


def test_every_key_in_the_code_has_words_and_the_other_way_round():
    code = "".join(path.read_text("utf-8") for path in [DEMO / "html.py", *(DEMO / "plots").glob("*.py")])
    used = set(re.findall(r"""["'`]((?:plot|html)\.[a-z_]+)["'`]""", code))
    assert used <= WORDS["en"].keys()
    made = {"html." + key for key in ("parameters", "memory", "time", "fixed", "broken", "still_wrong")}
    made |= {f"html.{word}{end}" for word in pieces.VERDICT_SIGNS for end in ("", "_text")}
    made |= {f"html.stage_{stage}" for stage in ("features", "forecast", "prepare", "train", "evaluate")}
    made |= {f"plot.{kind}" for kind in SCORES}
    assert WORDS["en"].keys() == used | made


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (49152, "49,152"),
        (999_999, "999,999"),
        (4_912_345, "4.9 M"),
        (151_277_313, "151 M"),
        (1_200_000_000, "1.2 B"),
    ],
)
def test_counts(number: int, text: str):
    assert pieces.count_text(number, t) == text


@pytest.mark.parametrize(
    ("seconds", "text", "in_korean"),
    [
        (0, "0.0 s", "0.0초"),
        (0.01, "&lt;0.1 s", "&lt;0.1초"),
        (8.6, "8.6 s", "8.6초"),
        (59.7, "1 min 0 s", "1분 0초"),
        (80, "1 min 20 s", "1분 20초"),
        (3599, "1 h 0 min", "1시간 0분"),
        (7500, "2 h 5 min", "2시간 5분"),
    ],
)
def test_times(seconds: float, text: str, in_korean: str):
    assert pieces.time_text(seconds, t) == text
    assert pieces.time_text(seconds, korean) == in_korean


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.00001, "&lt; 0.01 %"), (0.0004, "0.04 %"), (0.012, "1.2 %"), (0.842, "84 %"), (1, "100 %")],
)
def test_percent(share: float, text: str):
    assert pieces.percent_text(share, t) == text


# ---- cards --------------------------------------------------------------------------------------


def test_cards_of_a_run():
    text = said(pieces.cards(RESULT, ZERO_SHOT, t))
    for part in (
        "31 % → 84 %",
        "95 % interval 79 to 88",
        "252 test images",
        "49,152",
        "1.2 % of 4.1 M",
        "file 98 kB",
        "224 MB",
        "forecast 210 MB (−6 %)",
        "8.6 s",
        "features 1.1 s · training 6.9 s · test 0.6 s",
    ):
        assert part in text
    assert pieces.cards(RESULT, None, t).count('class="ctl-card"') == 4


def test_cards_in_korean():
    text = said(pieces.cards(RESULT, ZERO_SHOT, korean))
    for part in ("31% → 84%", "95% 신뢰 구간 79~88", "4.1M 중 1.2%", "최대 메모리", "8.6초"):
        assert part in text


def test_cards_before_a_run_and_before_images():
    text = said(pieces.cards(None, ZERO_SHOT, t))
    assert "31 %" in text
    assert "interval 26 to 37" in text
    assert text.count("—") == 3
    assert said(pieces.cards(None, None, t)).count("—") == 4


def test_cards_of_a_baseline_show_one_figure():
    text = said(pieces.cards(result(verdict="baseline", trainable_parameters=0), None, t))
    assert "→" not in text
    assert "84 %" in text


def test_cards_survive_missing_and_undefined_figures():
    found = result(accuracy={"zero_shot_ensemble": float("nan")}, verdict="close", interval95={})
    assert "— → —" in said(pieces.cards(found, None, t))


# ---- verdict ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ("▲", "worth it", "fixed 142", "broke 9", "252", "p < 0.001")),
        ({"verdict": "worse", "p_value": 0.0132, "gained": 2, "lost": 30}, ("▼", "worse", "broke 30", "p = 0.013")),
        (
            {"verdict": "close", "p_value": 0.6636, "gained": 12, "lost": 9, "test": 60},
            ("≈", "Too close to call", "Of 60 test images it fixed 12 and broke 9", "p = 0.66", "More test images"),
        ),
        ({"verdict": "close", "p_value": 1.0, "gained": 0, "lost": 0}, ("≈", "changed nothing")),
        ({"verdict": "baseline"}, ("●", "baseline", "Nothing was trained")),
        ({"folds": 15}, ("cross-validation", "15 splits")),
    ],
)
def test_verdict_in_words(changes: dict, parts: tuple[str, ...]):
    html = pieces.verdict(result(**changes), t)
    for part in parts:
        assert part in said(html)
    assert f"ctl-{(RUN | changes)['verdict']}" in html


def test_no_verdict_before_a_run_and_none_about_folds_for_a_split():
    assert pieces.verdict(None, t) == ""
    assert "cross-validation" not in pieces.verdict(RESULT, t)


# ---- lists --------------------------------------------------------------------------------------


def test_problems_are_counted_and_at_most_fifty_listed():
    assert pieces.problems([], t) == ""
    assert "1 file could" in said(pieces.problems([("a.jpg", "is empty")], t))
    html = pieces.problems([(f"{i}.jpg", "is empty") for i in range(60)], t)
    assert html.count("<li>") == 51
    assert "60 files" in said(html)
    assert "10 more" in said(html)


def test_a_summary_of_errors():
    text = said(pieces.errors_summary(142, 9, 31, t))
    assert "✓ fixed 142" in text
    assert "✕ broken 9" in text
    assert "○ still wrong 31" in text


def test_everything_typed_is_escaped():
    for html in (
        pieces.header(EVIL, EVIL),
        pieces.device_chip(EVIL),
        pieces.step_title(1, EVIL),
        pieces.problems([(EVIL, EVIL)], t),
        pieces.notes([EVIL], t),
        pieces.method_panel(EVIL, EVIL, 1, 0.1, 1.0, 1.0, EVIL, [EVIL], EVIL, t),
        pieces.method_panel(EVIL, EVIL, 1, 0.1, 1.0, 1.0, None, [EVIL], EVIL, t),
    ):
        page = Text(html)
        assert "script" not in page.tags
        assert EVIL in page.said
        assert 'title="<' not in html


# ---- method and progress ------------------------------------------------------------------------


def test_method_panel_forecasts_in_bold():
    html = pieces.method_panel("Adds.", "weights", 49152, 0.012, 210e6, 9.0, None, ["slow"], "Hu 2021", t)
    for bold in ("<b>49,152</b>", "<b>210 MB</b>", "<b>9.0 s</b>"):
        assert bold in html
    assert "1.2 %" in html
    assert "Hu 2021" in html
    assert "slow" in html


def test_method_panel_without_forecast_or_not_available():
    html = pieces.method_panel("Adds.", "weights", 49152, 0.012, None, None, None, [], "", t)
    assert "Forecast" not in html
    assert "<details" not in html
    html = pieces.method_panel("Adds.", "weights", 49152, 0.012, 1e6, 2.0, "No text tower.", [], "", t)
    assert "Not available here: No text tower." in said(html)
    assert "49,152" not in html
    assert "Trains nothing" in pieces.method_panel("Reads.", "baseline", 0, 0.0, None, None, None, [], "", t)


def test_progress_is_a_bar_with_words():
    html = pieces.progress("train", 30, 120, 6.2, 1.2341, t)
    assert 'aria-valuenow="25"' in html
    assert "width:25.0%" in html
    assert said(html) == "Training · 30 of 120 · loss 1.234 · about 6.2 s left"
    assert said(pieces.progress("features", 0, 0, None, None, t)) == "Reading the images"
    assert "left" not in said(pieces.progress("evaluate", 5, 5, 0.0, float("nan"), t))


# ---- style files --------------------------------------------------------------------------------


def test_style_asks_for_nothing_outside_and_knows_every_class():
    style = DEMO.parent / "assets" / "style"
    css = "".join(path.read_text("utf-8") for path in sorted(style.glob("*.css")))
    script = (style / "hover.js").read_text("utf-8")
    for text in (css, script):
        assert not re.search(r"https?://|@import|url\((?!#)|@font-face|fetch\(", text)
    assert css.count("{") == css.count("}")
    code = (DEMO / "html.py").read_text("utf-8")
    for name in set(re.findall(r"ctl-[a-z]+", code)) - {"ctl-device", "ctl-off"}:
        assert f".{name}" in css, name
