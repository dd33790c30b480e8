"""A language is a folder: with one more, everything speaks it, and what it lacks is said in English.

The language made up here is English with every word in brackets, so that a word outside of them was not translated.
"""

from __future__ import annotations

import html
import json
import re
from types import SimpleNamespace

import gradio as gr
import pytest

from demo import app, plots, tasks, words
from demo.page import Page
from demo.screens.learn import lessons
from demo.screens.tune import figures, settings_form
from demo.screens.tune import service as tuning
from demo.screens.tune.method import Method
from demo.words import LANGUAGES, Language, Translator
from demo.words.source import english, missing
from demo.workspace import Workspaces
from engine.data import images, uploads
from engine.errors import BadConfig, LabError, reason_of
from engine.report.document import write_report
from engine.tuning import adapter_files, registry
from tests.engine.report.test_report import CHECK, DAMAGE, MIXED, comparison  # noqa: F401 (a fixture)

CODE = "xx"
PART = re.compile(r"(\{[^{}]*\}|<[^>]*>|&\w+;)")
SENTENCE = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,}){2,}")
"""Three words in a row: what is in no bracket and longer than a name."""


def bracketed(text: str) -> str:
    """Every word in brackets; fields, tags and entities as they are."""

    def change(part: str) -> str:
        if "|" in part and part.startswith("{"):
            return re.sub(r"(?<=[:|])([^|{}]+)", r"[\1]", part)
        return part if PART.fullmatch(part) else re.sub(r"[^\s\[\]]*[A-Za-z][^\s\[\]]*", r"[\g<0>]", part)

    return "".join(map(change, PART.split(text)))


def add(monkeypatch, folder, known: dict[str, str], name: str) -> Translator:
    """One more folder, one more entry."""
    folder.mkdir()
    (folder / "language.json").write_text(json.dumps({"name": name}))
    (folder / "all.json").write_text(json.dumps(known))
    monkeypatch.setitem(words.LANGUAGES, CODE, Language.read(folder))
    return Translator(CODE)


@pytest.fixture
def t(tmp_path, monkeypatch) -> Translator:
    """A language that says everything."""
    return add(monkeypatch, tmp_path / CODE, {key: bracketed(text) for key, text in english().items()}, "[English]")


def shown(markup: str) -> str:
    """What is read: no tags, styles or code, and what tags show to pointers and screen readers."""
    markup = re.sub(r"<(style|script|code|pre)\b.*?</\1>", " ", markup, flags=re.DOTALL)
    said = re.findall(r'(?:title|alt|aria-label|placeholder)="([^"]*)"', markup)
    return html.unescape(" \n ".join([re.sub("<[^>]*>", " \n ", markup), *said]))


def check(markup: str, least: int = 1, quoted: str = "") -> None:
    """No Korean letter, and no sentence outside of brackets but what is quoted, such as a paper's title."""
    text = shown(markup)
    assert not re.search("[가-힣]", text), re.findall(".{20}[가-힣]+.{20}", text)
    assert text.count("[") >= least, text
    rest = re.sub(r"\[[^\[\]]*\]", " @ ", text)
    assert not [found for found in SENTENCE.findall(rest) if found not in quoted]


def test_the_made_up_language_is_complete_and_its_check_can_fail(t):
    assert bracketed("<b>Two</b> {count:image|images}, {name}.") == "<b>[Two]</b> {count:[image]|[images]}, {name}."
    assert not missing(CODE) and app.LANGUAGES is LANGUAGES and CODE in LANGUAGES
    assert words.negotiate_language("xx-YY,ko;q=0.5") == CODE
    for bad in ("<p>[One] but these are not</p>", "[A] 말"):
        with pytest.raises(AssertionError):
            check(bad)


def test_the_page_speaks_it(t, monkeypatch):
    pages = []
    monkeypatch.setattr(app, "Page", lambda workspaces: pages.append(Page(workspaces)) or pages[-1])
    app.build_app()
    (page,) = pages
    assert len(page.bound) > 100
    for component, keys in page.bound:
        for name, value in page.say(keys, t).items():
            parts = [value] if isinstance(value, str) else [choice[0] for choice in value]
            for part in parts:
                # a backbone's or task's own name may stand alone
                check(part, 0)
                assert "[" in part or part == keys.get(name) or not isinstance(keys[name], str), (component, part)


@pytest.mark.parametrize("method", ["lora", "zero_shot", "prompt_tuning", "distill"])
def test_a_methods_card_speaks_it(t, method, tiny, monkeypatch):
    monkeypatch.setattr(tuning, "backbone_of", lambda workspace: tiny)
    workspace = Workspaces().open()
    workspace.method = method
    with gr.Blocks():
        panel = Method(Page(Workspaces())).describe(workspace, t)
    spec = registry.get(method)
    check(panel, 10, spec.paper)
    check(lessons.lesson(workspace, method, t), 40, spec.paper + spec.equation)
    fields = settings_form.controls(spec, "budget", {}, 4, t)
    check(settings_form.form(method, "budget", fields, {}, 1) if fields else f"[{method}]")


def test_every_methods_record_speaks_it(t):
    for spec in registry.methods():
        quoted = f"{spec.paper} {spec.equation} {spec.configure()}"  # a setting's value may be a text for the model
        check(lessons.about(spec, t) + lessons._record(spec, t) + lessons.settings(spec, t), 20, quoted)
    check(lessons.glossary(t), 100)


def bad_inputs(tmp_path, tiny) -> list[LabError]:
    """Errors with a reason inside: from the settings, the backbone, files and the system."""
    (tmp_path / "notes").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "notes" / name).write_text("no image")
    (tmp_path / "not.zip").write_text("no zip")
    found: list[LabError] = []
    for call in (
        lambda: registry.get("lora").configure("budget", {"r": 0}),
        lambda: registry.get("lora").configure("budget", {"towers": "none"}),
        lambda: registry.get("lora").configure("budget", {"r": "many"}),
        lambda: registry.get("p_tuning").configure("budget", {"front": 0, "back": 0}).check(),
        lambda: registry.get("distill").configure("budget", {"teacher": "lora"}),
        lambda: registry.get("zero_shot").configure("budget", {"x": 1}),
        lambda: images.read_image(tmp_path / "none.png"),
        lambda: images.read_image(b"x"),
        lambda: uploads.collect([tmp_path / "notes"], tmp_path),
        lambda: adapter_files.unpack(tmp_path / "not.zip", tmp_path / "work"),
        lambda: adapter_files.unpack(tmp_path / "none.zip", tmp_path / "work"),
    ):
        with pytest.raises(LabError) as caught:
            call()
        found.append(caught.value)
    bare = SimpleNamespace(offers=frozenset(), id="bare")
    obstacle = registry.obstacle(registry.get("lora"), bare)  # type: ignore[arg-type]
    assert obstacle is not None
    return [*found, obstacle, BadConfig("adapter_json", file="f", reason=reason_of(obstacle))]


def test_a_notice_of_bad_input_speaks_it(t, tmp_path, tiny):
    with gr.Blocks():
        page = Page(Workspaces())
    for error in bad_inputs(tmp_path, tiny):
        (notice,) = page.explain(error, CODE).values()
        check(notice, 5)
        said = re.sub(r"[\[\]]", "", shown(notice)).strip()
        assert said == str(error), "without the brackets it is the English sentence"


def test_a_report_and_the_plots_speak_it(t, comparison, task_images, tmp_path):  # noqa: F811
    path = write_report(
        comparison,
        tmp_path / "out.html",
        images=task_images,
        task="[task]",
        damage=[DAMAGE, MIXED],
        check=CHECK,
        words=t,
    )
    text = path.read_text(encoding="utf8")
    check(text, 200)
    assert '<html lang="xx">' in text
    for figure in (figures.training(None, t, None), plots.pareto([], "[Time]", str, t)):
        check(" ".join(note.text for note in figure.layout.annotations))


def test_samples_have_their_names_in_it_and_come_back(t):
    workspace = Workspaces().open()
    tasks.load_sample(workspace, "everyday", CODE)
    assert tasks.counts(workspace)[0][:2] == ["[astronaut]", "[cat]"]
    assert tasks.title(workspace, CODE) == "[Everyday] [photos]"
    assert tasks.translate_sample(workspace, "en")
    assert tasks.counts(workspace)[0][:2] == ["astronaut", "cat"]


def test_what_a_language_lacks_is_said_in_english(tmp_path, monkeypatch, tiny):
    t, english = add(monkeypatch, tmp_path / CODE, {"go.tune": "[Tune]"}, "[Little]"), Translator("en")
    assert t("go.tune") == "[Tune]" and t("go.stop") == english("go.stop")
    assert t("compare.seconds") == "Time" and t("verdict.better") == "better"
    assert t.name("zero_shot") == "Zero-shot"
    for spec in registry.methods():
        assert lessons.about(spec, t) == lessons.about(spec, english)
        assert lessons.settings(spec, t) == lessons.settings(spec, english)
    for error in bad_inputs(tmp_path, tiny):
        assert t.error(error) == str(error)
    assert "go.stop" in missing(CODE) and "go.tune" not in missing(CODE)
