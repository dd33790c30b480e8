"""Every language says the same things, and the engine puts no English into its sentences."""

from __future__ import annotations

import ast
import dataclasses
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from demo import words
from demo.words import LANGUAGES, source
from engine import errors
from engine.backbones.skeleton import meta_backbone
from engine.errors import MESSAGES, BackboneUnavailable, BadConfig, Note
from engine.report import words as shared
from engine.tuning import registry

DEMO = Path(words.__file__).resolve().parents[1]
ENGINE = Path(engine.__file__).resolve().parent
OTHERS = [code for code in LANGUAGES if code != words.ENGLISH]


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize("language", OTHERS)
def test_every_language_says_everything_and_nothing_else(language):
    assert not source.missing(language), f"python -m demo.words {language} prints what is missing"
    assert not source.unknown(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_has_the_english_ones_fields(language):
    english = source.english()
    for key, text in LANGUAGES[language].words.items():
        assert text.strip(), key
        if key in english and not key.endswith((".equation", ".formula")):
            assert fields(text) == fields(english[key]), key


def test_a_key_stands_in_one_place():
    english = source.english()
    methods = {key for spec in registry.methods() for key, _ in source.of_method(spec)}
    names = {key for key in MESSAGES if key in methods}
    assert names == {f"{spec.id}.name" for spec in registry.methods()}
    places = [LANGUAGES["en"].words.keys(), shared.table().keys(), MESSAGES.keys() - methods, methods]
    assert sum(map(len, places)) + len(registry.RECOMPUTED) == len(english)


def test_two_files_of_a_language_may_not_have_one_key(tmp_path):
    (tmp_path / "language.json").write_text('{"name": "X"}')
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text('{"title": "x"}')
    with pytest.raises(ValueError, match="title"):
        words.Language.read(tmp_path).words  # noqa: B018


def test_one_is_said_as_one():
    t = words.Translator("en")
    assert t("compare.outlook", runs=1, time="2 s") == "1 run, about 2 s."
    assert t("compare.outlook", runs=12, time="2 s") == "12 runs, about 2 s."
    assert t("compare.reused", count=1) == "1 run is there already."


def sentences_in(path: Path) -> Iterator[tuple[list[str], ast.Call]]:
    """(keys, call) where a file makes an error or a note of a key that is written there."""
    known = {name for name, value in vars(errors).items() if isinstance(value, type) and name != "LabError"}
    for call in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
        if name in known or name in ("Note.of", "joined", "untraceable", "trace.untraceable", "_over"):
            first = call.args[0]  # type: ignore[attr-defined]
            choices = (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,)
            yield [c.value for c in choices if isinstance(c, ast.Constant)], call  # type: ignore[misc]


def test_every_sentence_of_the_engine_is_there_and_gets_its_fields():
    source.english()
    count = 0
    for path in ENGINE.rglob("*.py"):
        for keys, call in sentences_in(path):
            given = {keyword.arg for keyword in call.keywords}
            for key in keys:
                count += 1
                assert key in MESSAGES, f"{path.name}: {key}"
                if (
                    ast.unparse(call.func) not in ("Note", "joined", "untraceable", "trace.untraceable")
                    and None not in given
                ):
                    assert fields(MESSAGES[key]) <= given, f"{path.name}: {key}"
    assert count > 200


def test_no_field_of_a_sentence_is_an_english_phrase():
    """A phrase is a Note of its own, which every language says; a setting such as ``front = 0`` is none."""
    phrase = re.compile("[A-Za-z]{2,},? [A-Za-z]")
    for path in ENGINE.rglob("*.py"):
        for _, call in sentences_in(path):
            for keyword in call.keywords:
                texts = [
                    n.value for n in ast.walk(keyword.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ]
                assert not list(filter(phrase.search, texts)), f"{path.name}: {ast.unparse(call)}"


def test_every_method_and_setting_differs_in_korean():
    t = words.Translator("ko")
    for spec in registry.methods():
        for key, english in source.of_method(spec):
            field = key.partition(".settings.")[2]
            said = t.setting(spec.id, field, english) if field else t.method(key, english)
            assert said != english or key.endswith((".name", ".formula")), key


def test_settings_that_differ_between_methods_differ_in_korean():
    t = words.Translator("ko")
    meanings: dict[tuple[str, str], set[str]] = {}
    for spec in registry.methods():
        for field in dataclasses.fields(spec.config):
            korean = t.setting(spec.id, field.name, "")
            meanings.setdefault((field.name, korean), set()).add(field.metadata["help"])
    close = {key: helps for key, helps in meanings.items() if len({h.split(";")[0].split(" (")[0] for h in helps}) > 1}
    assert not close


def test_every_key_that_the_page_uses_is_there():
    known = source.english()
    for path in DEMO.rglob("*.py"):
        for key in re.findall(r"""(?:\bt\(|W\()\s*["']([\w. ]*\w)["']""", path.read_text(encoding="utf8")):
            assert key in known, f"{path.name}: {key}"


def test_families_presets_and_template_sets_have_names():
    from engine.data.episode import TEMPLATE_SETS

    keys = [f"family.{name}" for name in registry.FAMILIES] + [f"templates.{name}" for name in TEMPLATE_SETS]
    assert set(keys) <= source.english().keys()


@pytest.mark.parametrize(
    ("header", "language"),
    [(None, "en"), ("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("zz,en;q=0.7,ko;q=0.3", "en"), ("zz", "en"), ("ko;q=x", "en")],
)
def test_the_browser_chooses_the_first_language(header, language):
    assert words.negotiate_language(header) == language


def test_phrases_inside_sentences_are_translated():
    t = words.Translator("ko")
    with pytest.raises(engine.errors.BadConfig) as caught:
        registry.get("lora").configure("budget", {"r": 0})
    assert "1 이상 256 이하" in t.error(caught.value)
    assert words.Translator("en").error(caught.value) == str(caught.value)


def test_what_the_engine_puts_into_sentences_is_korean_too():
    """Names of methods, reasons and allowed values; what nobody wrote here (a library's own words) stays."""
    t = words.Translator("ko")

    def said(key: str, **values: object) -> str:
        return t.engine(key, values)

    ensemble, prompts = (registry.get(id).title for id in ("zero_shot_ensemble", "prompt_tuning"))
    assert "제로샷, 프롬프트 앙상블" in said("advice_nothing_fits", method=ensemble)
    assert "프롬프트 튜닝 (CoOp), 제로샷, 프롬프트 앙상블" in said("advice_tied", methods=(prompts, ensemble))
    both = errors.joined("both", (Note("needs.linear layers"), Note("needs.vision tokens")))
    assert "선형 층, 이미지 토큰" in said("method_needs", method="LoRA", backbone="x", needed=both)
    with pytest.raises(BackboneUnavailable) as caught:
        meta_backbone("no/such-backbone")
    assert "이 컴퓨터에 없고" in t.error(caught.value)
    neither = Note.of("neither_file", first="a", second="b")
    assert "a도 b도 없습니다" in said("backbone_no_weights", id="x", reason=neither)
    inner = BadConfig("unknown_preset", method="lora", preset="p", known="budget")
    assert said("adapter_json", file="f", reason=inner.note).count(t.error(inner)) == 1
    assert "Strange words" in said("adapter_zip", path="p", reason="Strange words")
    assert "linear layers" in said(
        "method_needs", method="LoRA", backbone="x", needed="linear layers"
    )  # an old result's


def test_an_error_as_plain_data_says_the_same_in_every_language():
    inner = BadConfig("unknown_preset", method="lora", preset="p", known=["budget", "paper"])
    outer = BadConfig("adapter_json", file=Path("f"), reason=inner)
    assert isinstance(hash(outer.note), int) and str(outer.note) == str(outer)
    found = outer.note.to_json()
    assert found["sentence"] == str(outer) and found["values"] == {"file": "f", "reason": str(inner)}
    for language in LANGUAGES:
        t = words.Translator(language)
        assert t.engine(outer.note.key, dict(outer.note.values)) == t.error(outer)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("고양이은(는)", "고양이는"),
        ("강아지들을(를)", "강아지들을"),
        ("이미지 3을(를)", "이미지 3을"),
        ("4이(가)", "4가"),
        ("10(으)로", "10으로"),
        ("1(으)로", "1로"),
        ("연필(으)로", "연필로"),
        ("집(으)로", "집으로"),
        ("’새’와(과)", "’새’와"),
        ("선형 프로브 (linear probe)은(는)", "선형 프로브 (linear probe)는"),
        ("<b>말</b>(이)라고", "<b>말</b>이라고"),
        ("LoRA은(는)", "LoRA은(는)"),
        ("'red'을(를)", "'red'을(를)"),
    ],
)
def test_particles_follow_the_word_before(written, read):
    assert words.particles(written) == read
