"""Both languages say the same things."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import string
from pathlib import Path

import pytest

import engine
from demo import words
from engine.backbones.skeleton import meta_backbone
from engine.errors import MESSAGES, BackboneUnavailable, BadConfig
from engine.tuning import registry

DEMO = Path(words.__file__).resolve().parents[1]


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def import_engine() -> None:
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if "__main__" not in module.name and "pretrain" not in module.name:
            importlib.import_module(module.name)


def test_both_languages_have_the_same_keys_and_fields():
    english, korean = words.table("en"), words.table("ko")
    assert english.keys() == korean.keys()
    assert {key: fields(text) for key, text in english.items()} == {key: fields(text) for key, text in korean.items()}
    assert all(text.strip() for text in [*english.values(), *korean.values()])


def test_one_is_said_as_one():
    t = words.Translator("en")
    assert t("compare.outlook", runs=1, time="2 s") == "1 run, about 2 s."
    assert t("compare.outlook", runs=12, time="2 s") == "12 runs, about 2 s."
    assert t("compare.reused", count=1) == "1 run is there already."


def test_every_engine_sentence_is_said_in_korean():
    import_engine()
    korean = words.engine_table("engine.ko.json")
    assert korean.keys() == MESSAGES.keys()
    for key, sentence in MESSAGES.items():
        assert fields(korean[key]) == fields(sentence), key


def test_every_method_and_setting_is_said_in_korean():
    t, known = words.Translator("ko"), words.engine_table("methods.ko.json")
    used = set()
    for spec in registry.methods():
        if f"{spec.id}.name" in known:
            assert t.name(spec.id) == known[f"{spec.id}.name"] != spec.name
            used.add(f"{spec.id}.name")
        worded = [("formula", spec.formula)] if f"{spec.id}.formula" in known else []
        assert worded or not re.search("[a-z]{4}", spec.formula.replace("max", "")), spec.formula
        for key, english in [
            *((f"{spec.id}.{name}", getattr(spec, name)) for name in ("sentence", "use_when", "saved")),
            *((f"{spec.id}.{name}", text) for name, text in worded),
            (f"runs_on.{spec.runs_on}", registry.RUNS_ON[spec.runs_on]),
            *((f"{spec.id}.failures.{k}", failure) for k, failure in enumerate(spec.failures)),
        ]:
            assert t.method(key, english) != english, key
            used.add(key)
        for field in dataclasses.fields(spec.config):
            meaning = field.metadata["help"]
            own, common = f"{spec.id}.settings.{field.name}", f"settings.{field.name}"
            assert own in known or common in known, own
            assert t.setting(spec.id, field.name, meaning) != meaning
            used.add(own if own in known else common)
    assert known.keys() == used


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
    known = words.table("en")
    for path in DEMO.rglob("*.py"):
        for key in re.findall(r"""(?:\bt\(|W\()\s*["']([\w. ]*\w)["']""", path.read_text(encoding="utf8")):
            assert key in known, f"{path.name}: {key}"


def test_families_presets_and_template_sets_have_names():
    from engine.data.episode import TEMPLATE_SETS

    keys = [f"family.{name}" for name in registry.FAMILIES] + [f"templates.{name}" for name in TEMPLATE_SETS]
    assert set(keys) <= words.table("en").keys()


@pytest.mark.parametrize(
    ("header", "language"),
    [(None, "en"), ("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("de,en;q=0.7,ko;q=0.3", "en"), ("fr", "en"), ("ko;q=x", "en")],
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

    assert "제로샷, 프롬프트 앙상블" in said("advice_nothing_fits", method="Zero-shot, prompt ensemble")
    tied = said("advice_tied", methods=("Prompt tuning (CoOp)", "Zero-shot, prompt ensemble"))
    assert "프롬프트 튜닝 (CoOp), 제로샷, 프롬프트 앙상블" in tied
    needed = said("method_needs", method="LoRA", backbone="x", needed="linear layers and vision tokens")
    assert "선형 층, 이미지 토큰" in needed
    assert "이 컴퓨터에 없고" in said("backbone_missing", id="x", reason=outline_reason())
    assert "a도 b도 없습니다" in said("backbone_no_weights", id="x", reason="there is neither a nor b")
    inner = BadConfig("unknown_preset", method="lora", preset="p", known="budget")
    assert said("adapter_json", file="f", reason=inner).count(t.error(inner)) == 1
    assert "Strange words" in said("adapter_zip", path="p", reason="Strange words")


def outline_reason() -> str:
    with pytest.raises(BackboneUnavailable) as caught:
        meta_backbone("no/such-backbone")
    return str(caught.value.values["reason"])


@pytest.mark.parametrize(("written", "read"), [
    ("고양이은(는)", "고양이는"), ("강아지들을(를)", "강아지들을"), ("이미지 3을(를)", "이미지 3을"),
    ("4이(가)", "4가"),    ("10(으)로", "10으로"), ("1(으)로", "1로"), ("연필(으)로", "연필로"), ("집(으)로", "집으로"),
    ("’새’와(과)", "’새’와"),
    ("선형 프로브 (linear probe)은(는)", "선형 프로브 (linear probe)는"), ("<b>말</b>(이)라고", "<b>말</b>이라고"),
    ("LoRA은(는)", "LoRA은(는)"), ("'red'을(를)", "'red'을(를)"),
])  # fmt: skip
def test_particles_follow_the_word_before(written, read):
    assert words.particles(written) == read
