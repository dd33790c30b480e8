"""Every visible string, a folder a language: ``language.json`` is about the language, all other files hold its words.

A key belongs to one file of a language. English has only the page's own words here: those that the report shares, the
engine's sentences and the methods' are in the engine, and :mod:`demo.words.source` finds them all. What another
language lacks is said in English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import MESSAGES, LabError, Note
from engine.report import words as shared

FOLDER = Path(__file__).resolve().parent
ABOUT = "language.json"
ENGLISH = "en"


@dataclass(frozen=True)
class Language:
    """A language that the page speaks."""

    folder: Path
    name: str
    """As its speakers write it."""
    particles: bool = False
    """Whether its sentences hold Korean particles in both forms, see :func:`particles`."""

    @classmethod
    def read(cls, folder: Path) -> Language:
        """Return the language of a folder."""
        return cls(folder, **json.loads((folder / ABOUT).read_text(encoding="utf8")))

    @cached_property
    def words(self) -> Mapping[str, str]:
        """Key -> sentence. Raises ValueError where two files have the same key."""
        merged: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.json")):
            if path.name == ABOUT:
                continue
            found = json.loads(path.read_text(encoding="utf8"))
            if twice := merged.keys() & found.keys():
                raise ValueError(f"{path}: keys of another file: {sorted(twice)}")
            merged |= found
        return merged


def read_languages(folder: Path) -> dict[str, Language]:
    """Return the languages that have a folder, by code; English first."""
    found = {path.parent.name: Language.read(path.parent) for path in folder.glob(f"*/{ABOUT}")}
    return {code: found[code] for code in sorted(found, key=lambda code: (code != ENGLISH, code))}


LANGUAGES = read_languages(FOLDER)


class Translator:
    """``t(key, **fields)`` in one language."""

    def __init__(self, language: str):
        self.language = language if language in LANGUAGES else ENGLISH
        self._own = LANGUAGES[self.language]

    def __call__(self, key: str, **fields: Any) -> str:
        """The page's sentence of a key."""
        text = self._own.words.get(key) or LANGUAGES[ENGLISH].words.get(key) or shared.table()[key]
        return self._finished(shared.Counted().format(text, **fields))

    def engine(self, key: str, values: Mapping[str, Any]) -> str:
        """Return a sentence of ``engine.errors.MESSAGES``, whose fields may be notes themselves."""
        text = self._own.words.get(key) or MESSAGES[key]
        return self._finished(text.format(**{name: self._phrase(value) for name, value in values.items()}))

    def error(self, error: Exception) -> str:
        """Return a :class:`engine.errors.LabError` in words."""
        return self.engine(error.key, error.values)  # type: ignore[attr-defined]

    def method(self, key: str, english: str) -> str:
        """Return a sentence of a method's record, by a key such as ``lora.sentence``."""
        return self._own.words.get(key, english)

    def name(self, method: str) -> str:
        """Return a method's name on screen."""
        from engine.tuning import registry

        return self.method(f"{method}.name", registry.get(method).name)

    def setting(self, method: str, field: str, english: str) -> str:
        """Return the meaning of a config field: the method's own words, else those common to all methods."""
        return self.method(f"{method}.settings.{field}", self.method(f"settings.{field}", english))

    def _finished(self, text: str) -> str:
        return particles(text) if self._own.particles else text

    def _phrase(self, value: Any) -> Any:
        if isinstance(value, (Note, LabError)):
            return self.engine(value.key, dict(value.values))
        return ", ".join(str(self._phrase(part)) for part in value) if isinstance(value, (list, tuple)) else value


PARTICLES = {
    "은(는)": ("은", "는"),
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "와(과)": ("과", "와"),
    "(으)로": ("으로", "로"),
    "(이)라": ("이라", "라"),
}
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


def negotiate_language(header: str | None) -> str:
    """Return the language that an ``Accept-Language`` header asks for first, English where it names neither."""
    best, language = 0.0, ENGLISH
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
