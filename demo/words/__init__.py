"""Every visible string, in both languages.

``en.json`` and ``*.en.json`` are merged with the words that the report shares (``engine/report/words/``),
and so are the Korean ones; a key belongs to one file. The engine's own sentences stay in the engine in
English; ``engine.ko.json`` and ``methods.ko.json`` say the same in Korean.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import LabError
from engine.report import words as shared
from engine.report.words import Counted

FOLDER = Path(__file__).resolve().parent
LANGUAGES = {"en": "English", "ko": "한국어"}
ENGINE_FILES = ("engine.ko.json", "methods.ko.json")
"""Korean for sentences whose English is in the engine."""


def read(path: Path) -> dict[str, str]:
    """Return one file of words."""
    return json.loads(path.read_text(encoding="utf8"))


@cache
def table(language: str) -> dict[str, str]:
    """Key -> sentence of the page itself. Raises ValueError where two files have the same key."""
    merged = dict(shared.table(language))
    for path in sorted([FOLDER / f"{language}.json", *FOLDER.glob(f"*.{language}.json")]):
        if path.name in ENGINE_FILES or not path.exists():
            continue
        found = read(path)
        if twice := merged.keys() & found.keys():
            raise ValueError(f"{path.name}: keys of another file: {sorted(twice)}")
        merged |= found
    return merged


@cache
def engine_table(file: str) -> dict[str, str]:
    """Korean for the engine's sentences (``engine.ko.json``) or the methods' (``methods.ko.json``)."""
    return read(FOLDER / file)


class Translator:
    """``t(key, **fields)`` in one language."""

    def __init__(self, language: str):
        self.language = language if language in LANGUAGES else "en"

    def __call__(self, key: str, **fields: Any) -> str:
        """The page's sentence of a key."""
        text = Counted().format(table(self.language)[key], **fields)
        return particles(text) if self.language == "ko" else text

    def engine(self, key: str, values: dict[str, Any]) -> str:
        """Return a sentence of ``engine.errors.MESSAGES``."""
        from engine.errors import sentence

        korean = engine_table("engine.ko.json") if self.language == "ko" else {}
        if key in korean:
            return particles(korean[key].format(**{name: self._phrase(value) for name, value in values.items()}))
        return sentence(key, values)

    def error(self, error: Exception) -> str:
        """Return a :class:`engine.errors.LabError` in words."""
        return self.engine(error.key, error.values)  # type: ignore[attr-defined]

    def method(self, key: str, english: str) -> str:
        """Return a sentence of a method's record, by a key such as ``lora.sentence``."""
        return english if self.language == "en" else engine_table("methods.ko.json").get(key, english)

    def name(self, method: str) -> str:
        """Return a method's name on screen."""
        from engine.tuning import registry

        return self.method(f"{method}.name", registry.get(method).name)

    def setting(self, method: str, field: str, english: str) -> str:
        """Return the meaning of a config field: the method's own words, else those common to all methods."""
        if self.language == "en":
            return english
        korean = engine_table("methods.ko.json")
        return korean.get(f"{method}.settings.{field}") or korean.get(f"settings.{field}", english)

    def _phrase(self, value: Any) -> Any:
        """The few English phrases that the engine puts into a sentence's fields."""
        if isinstance(value, LabError):
            return self.error(value)
        if isinstance(value, (list, tuple)):
            return ", ".join(str(self._phrase(part)) for part in value)
        if not isinstance(value, str):
            return value
        if value in _method_names():
            return _method_names()[value]
        for pattern, korean in _PHRASES:
            if found := re.fullmatch(pattern, value):
                return korean.format(*map(self._phrase, found.groups()))
        return value


PARTICLES = {"은(는)": ("은", "는"), "이(가)": ("이", "가"), "을(를)": ("을", "를"), "와(과)": ("과", "와"),
             "(으)로": ("으로", "로"), "(이)라": ("이라", "라")}  # fmt: skip
"""A particle as sentences write it -> after a final consonant, after a vowel."""
RIEUL = 8
"""Number of the final consonant ㄹ in a syllable's code; 로 follows it as it follows a vowel."""
DIGIT_CODAS = (21, RIEUL, 0, 16, 0, 0, 1, RIEUL, RIEUL, 0)
"""Final consonants of 영, 일, 이, 삼, 사, 오, 육, 칠, 팔, 구; 0 is none."""


def particles(text: str) -> str:
    """Korean text with each particle chosen by the syllable or digit before it, past brackets, quotes and tags. After
    anything else (Latin letters, whose reading is not known) both forms stay."""

    def choose(found: re.Match[str]) -> str:
        last, (closed, opened) = found["last"], PARTICLES[found["particle"]]
        coda = (ord(last) - 0xAC00) % 28 if last >= "가" else DIGIT_CODAS[int(last)]
        final = coda > 0 and not (coda == RIEUL and found["particle"] == "(으)로")
        return last + found["between"] + (closed if final else opened)

    between = r"(?P<between>(?: ?\([^()]*\)|</?\w+>|[’”'\")])*)"
    names = "|".join(map(re.escape, PARTICLES))
    return re.sub(rf"(?P<last>[가-힣0-9]){between}(?P<particle>{names})", choose, text)


@cache
def _method_names() -> dict[str, str]:
    """English names of the methods whose Korean names differ."""
    from engine.tuning import registry

    korean = engine_table("methods.ko.json")
    return {spec.name: korean[f"{spec.id}.name"] for spec in registry.methods() if f"{spec.id}.name" in korean}


_PHRASES = (
    (r"between (\S+) and (\S+)", "{0} 이상 {1} 이하"),
    (r"at least (\S+)", "{0} 이상"),
    (r"one of (.+), a backbone or a saved adapter", "다음 중 하나: {0}. 또는 백본이나 저장한 어댑터"),
    (r"one of (.+)", "다음 중 하나: {0}"),
    (r"among (.+)", "다음 가운데: {0}"),
    (r"a whole number above 0 and at most (\S+)", "0보다 크고 {0} 이하인 정수"),
    (r"a number above 0 and at most (\S+)", "0보다 크고 {0} 이하인 수"),
    (r"a whole number", "정수"),
    (r"a number", "수"),
    (r"true or false", "true 또는 false"),
    (r"text", "글자"),
    (r"names of labels, each once: (.+)", "레이블 이름을 한 번씩: {0}"),
    (r"no vector would be trained", "학습할 벡터가 없습니다"),
    (r"one image has no other to be told apart from", "이미지가 한 장이면 견줄 다른 이미지가 없습니다"),
    (
        r"the source tasks are either groups of the labels or other tasks",
        "소스 과제는 레이블 묶음이나 다른 과제 가운데 하나여야 합니다",
    ),
    (r"it is too large", "너무 큽니다"),
    (r"File is not a zip file", "zip 파일이 아닙니다"),
    (r"No such file or directory", "그런 파일이나 폴더가 없습니다"),
    (r"Permission denied", "읽거나 쓸 권한이 없습니다"),
    (r"Is a directory", "파일이 아니라 폴더입니다"),
    (r"No space left on device", "남은 공간이 없습니다"),
    (r"The image", "이미지"),
    (
        r"it is not on this machine, and its sizes are not known without it",
        "이 컴퓨터에 없고, 내려받기 전에는 크기를 알 수 없습니다",
    ),
    (r"there is neither (\S+) nor (\S+)", "{0}도 {1}도 없습니다"),
    (r"there is no model\.safetensors", "model.safetensors가 없습니다"),
    (r"none were published for this architecture", "이 구조에는 공개된 것이 없습니다"),
    (r"its contents", "내용"),
    (r"none", "없음"),
    (r"the image tower", "이미지 타워"),
    (r"the text tower", "텍스트 타워"),
    (r"vision tokens", "이미지 토큰"),
    (r"text tokens", "텍스트 토큰"),
    (r"linear layers", "선형 층"),
    (r"attention projections", "어텐션 투영 층"),
    (r"image projection", "이미지 투영 층"),
    (r"((?:\w+ )?\w+) and ((?:\w+ )?\w+)", "{0}, {1}"),
)


def negotiate_language(header: str | None) -> str:
    """Return the language that an ``Accept-Language`` header asks for first, English where it names neither."""
    best, language = 0.0, "en"
    for part in (header or "").split(","):
        name, _, weight = part.partition(";q=")
        try:
            value = float(weight or 1)
        except ValueError:
            continue
        short = name.strip().lower()[:2]
        if short in LANGUAGES and value > best:
            best, language = value, short
    return language
