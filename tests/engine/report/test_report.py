"""The report: self-contained, escaped, in both languages, and with the comparison's own numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from engine.checks.forgetting import Drift, Forgetting, Mixed
from engine.checks.label_errors import LabelErrorReport, Suspect
from engine.cli.compare import damage_table
from engine.cli.main import main
from engine.compare import Difference, Standing
from engine.errors import Note
from engine.metrics.calibration import calibration
from engine.report.document import calibrations, command_line, write_report
from engine.tuning import registry
from engine.types import Interval, Label, Verdict

NASTY = '<script>alert("x")</script>'
METHODS = (
    # id, accuracy, group, parameters, bytes, loss
    ("lora", 0.84, 1, 49_152, 224e6, 0.02),
    ("clip_adapter", 0.82, 1, 32_768, 96e6, 0.0),
    ("prompt_tuning", 0.74, 2, 1_024, 120e6, None),
    ("zero_shot_ensemble", 0.34, 3, 0, 88e6, None),
)


def around(value: float) -> Interval:
    return Interval(value, value - 0.04, value + 0.04)


def make_row(method: str, accuracy: float, seed: int):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, 40)
    probabilities = rng.dirichlet(np.ones(3), 40) + accuracy * np.eye(3)[target]
    probabilities /= probabilities.sum(1, keepdims=True)
    return SimpleNamespace(
        method=method,
        shots=8,
        seed=seed,
        status="done",
        error=None,
        result=SimpleNamespace(versions={"torch": "2.9.1"}, precision="fp32"),
        arrays=lambda: {"probabilities": probabilities, "target": target},
    )


@pytest.fixture
def comparison():
    """What :func:`engine.compare.compare` ends with, made by hand."""
    standings, curves = [], []
    for number, (method, accuracy, group, parameters, memory, loss) in enumerate(METHODS):
        standings.append(
            Standing(
                method=method,
                rank=number + 1,
                group=group,
                accuracy=around(accuracy),
                p_group=1.0,
                over_zero_shot=Difference(accuracy - 0.34, 0.0, 0.6, 0.01),
                word="baseline" if method == "zero_shot_ensemble" else "better",
                parameters=parameters,
                memory_bytes=int(memory),
                memory_kind="forecast",
                seconds=1.5,
                usual_seconds=1.5,
                adapter_bytes=4 * parameters,
                loss=loss,
                seeds=2,
            )
        )
        points = tuple(around(accuracy - drop) for drop in (0.2, 0.1, 0))
        curves.append(SimpleNamespace(method=method, shots=(2, 4, 8), accuracy=points, doubling=None))
    needs = Note(
        "method_needs",
        (
            ("method", registry.get("bias_tuning").title),
            ("backbone", "pocket"),
            ("needed", Note("needs.linear layers")),
        ),
    )
    skipped = SimpleNamespace(method="bias_tuning", shots=None, seed=None, status="skipped", error=needs, result=None)
    rows = tuple(make_row(method, accuracy, seed) for method, accuracy, *_ in METHODS for seed in (0, 1))
    return SimpleNamespace(
        request=SimpleNamespace(
            methods=("quick",), shots=(2, 4, 8), seeds=(0, 1), preset="budget", template_set="general"
        ),
        backbone="pocket",
        labels=(Label("red", "red"), Label(NASTY, "a & b"), Label("blue", "blue")),
        image_names=tuple(f"{NASTY}{i}.png" for i in range(36)),
        rows=(*rows, skipped),
        ranking=SimpleNamespace(shots=8, seeds=(0, 1), tested=40, standings=tuple(standings), curves=tuple(curves)),
        advice=SimpleNamespace(method="clip_adapter", notes=(needs,), excluded=(("lora", needs),)),
        seconds=12.0,
        stopped=False,
    )


DAMAGE = Forgetting(
    "prompt_tuning",
    ("red", NASTY),
    ("blue", "pink"),
    (around(0.4), around(0.8)),
    (around(0.5), around(0.4)),
    Verdict("worse", 0.01, 2, 20, 80),
    Drift(0.125, 0.0625),
)
MIXED = replace(DAMAGE, method="full", curve=(Mixed(0.0, 0.4, 0.6), Mixed(0.4, 0.7, 0.55), Mixed(1.0, 0.8, 0.3)))
CHECK = LabelErrorReport({"linear_probe": 0.8}, (Suspect(3, 0, 1, 0.97),), 0.8, 40)


class Outline(HTMLParser):
    """Tags that were opened and closed, and the text between them."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def html(comparison, task_images, tmp_path) -> str:
    path = write_report(
        comparison,
        tmp_path / "out.html",
        images=task_images,
        task=NASTY,
        command=command_line(comparison),
        damage=[DAMAGE],
        check=CHECK,
    )
    return path.read_text(encoding="utf8")


def test_nothing_is_run_or_loaded(html):
    outline = Outline(html)
    assert not outline.open
    assert not {"script", "link", "iframe", "object"} & set(outline.tags)
    assert outline.links and all(link.startswith("data:image/jpeg;base64,") for link in outline.links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert outline.text.count(NASTY) >= 4  # title, label, damage, file name
    assert "default-src 'none'" in html


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_label_with_tags_is_text_on_the_page_and_in_the_report(comparison, tmp_path, language):
    from demo.screens.compare import html as page
    from demo.words import Translator

    label, t = "<img src=x onerror=alert(1)>", Translator(language)
    damage = replace(DAMAGE, tuned_on=(label,), others=(label,))
    comparison.labels = (Label(label, label), *comparison.labels[1:])
    report = write_report(comparison, tmp_path / "out.html", task=label, damage=[damage], check=CHECK, words=t)
    suspect = page.suspect("", label, label, label, 0.8, 2, [label], t)
    for html, times in (
        (report.read_text(encoding="utf8"), 4),  # heading, title, tuned on, others
        (str(page.shared(t).forgetting([damage])), 2),
        (suspect, 4),
    ):
        outline = Outline(html)
        assert not {"img", "script"} & set(outline.tags) and not outline.open
        assert outline.text.count(label) >= times


def test_what_tuning_costs_elsewhere(comparison, tmp_path):
    plain = write_report(comparison, tmp_path / "plain.html", damage=[DAMAGE]).read_text(encoding="utf8")
    text = " ".join(Outline(plain).text.split())
    assert "0.125, 0.062" in text and "mean of 1 - cosine" in text
    assert "WiSE-FT" not in text
    mixed = write_report(comparison, tmp_path / "mixed.html", damage=[DAMAGE, MIXED]).read_text(encoding="utf8")
    text = " ".join(Outline(mixed).text.split())
    assert "WiSE-FT" in text and "Full fine-tuning: other labels" in text
    assert "Full fine-tuning: tuned labels, 40: 70.0 %" in mixed
    assert mixed.count("<svg") == plain.count("<svg") + 1


def test_the_same_on_the_command_line():
    table = damage_table([DAMAGE, MIXED])
    assert "0.125" in table and "mean of 1 - cosine" in table
    assert ["full", "40%", "70.0%", "55.0%"] in [line.split() for line in table.splitlines()]
    assert damage_table([]) == ""


def test_numbers_are_the_comparisons(html):
    text = " ".join(Outline(html).text.split())
    assert "82.0 % (78.0–86.0)" in text
    assert "★ CLIP-Adapter" in text
    assert "49,152" in text and "224 MB" in text
    assert "Group 1: too close to call" in text and "Group 2: too close" not in text
    assert "on 40 test images at 8 training images" in text and "over 2 random draws" in text
    assert "▼ worse" in text
    assert "97 %" in text  # that a suspect's label is wrong
    assert "Of wrong labels about 80 % would be noticed" in text
    assert "Bias tuning (BitFit) cannot run on pocket" in text
    assert "python -m engine compare --task YOUR_FOLDER_OR_ZIP --methods quick --seeds 0,1" in text
    assert "2.9.1" in text


def test_thumbnails_stay_small(html, task_images):
    assert html.count("<img") == 2 * 6 + 1  # six of each label that has images, and a suspect
    assert max(map(len, re.findall(r'src="([^"]*)"', html))) < 20_000


def test_calibration_is_over_all_seeds(comparison):
    found = calibrations(comparison)
    assert set(found) == {method for method, *_ in METHODS}
    arrays = [row.arrays() for row in comparison.rows if row.method == "lora"]
    pooled = calibration(
        np.concatenate([a["probabilities"] for a in arrays]), np.concatenate([a["target"] for a in arrays]).tolist()
    )
    assert found["lora"] == pooled


def test_it_speaks_the_callers_language(comparison, tmp_path):
    from demo.words import Translator

    path = write_report(comparison, tmp_path / "ko.html", damage=[DAMAGE], check=CHECK, words=Translator("ko"))
    text = path.read_text(encoding="utf8")
    assert '<html lang="ko">' in text
    assert "우열을 가리기 어렵습니다" in text
    assert "Recommendation" not in text and "Trained parameters" not in text


def test_a_comparison_without_a_result_says_why(comparison, tmp_path):
    comparison.rows, comparison.ranking, comparison.advice = comparison.rows[-1:], None, None
    text = write_report(comparison, tmp_path / "none.html").read_text(encoding="utf8")
    assert "Bias tuning (BitFit) cannot run on pocket" in text
    assert "<svg" not in text


def test_the_command_line_writes_one(task_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "out.html"
    arguments = ["compare", "--task", str(task_folder), "--methods", "tip_adapter", "--shots", "1,2", "--seeds", "0"]
    assert main([*arguments, "--report", str(target)]) == 0
    html = target.read_text(encoding="utf8")
    outline = Outline(html)
    assert not outline.open
    text = " ".join(outline.text.split())
    assert "Tip-Adapter" in text and "Zero-shot, prompt ensemble" in text
    assert f"--task {task_folder} --methods tip_adapter" in text and "--shots 1,2" in text
    accuracy = re.search(r"Tip-Adapter\s.*?(\d+\.\d) %", text)[1]
    assert f"{accuracy}%" in capsys.readouterr().out
