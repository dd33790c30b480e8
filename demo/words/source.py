"""What there is to translate: every key with its English, wherever that stands."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator

import demo
import engine
from demo.words import ENGLISH, LANGUAGES
from engine.errors import MESSAGES
from engine.report import words as shared
from engine.tuning import registry
from engine.tuning.registry import MethodSpec

APART = ("__main__", "pretrain")
"""Modules of the engine that say nothing to the page's users."""


def english() -> dict[str, str]:
    """Return key -> English of the page, the report, the engine's sentences and the methods' records."""
    for package in (engine, demo):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(name in module.name for name in APART):
                importlib.import_module(module.name)
    found = {f"runs_on.{code}": part.sentence for code, part in registry.RECOMPUTED.items()}
    for spec in registry.methods():
        found |= dict(of_method(spec))
    return {**LANGUAGES[ENGLISH].words, **shared.table(), **MESSAGES, **found}


def of_method(spec: MethodSpec) -> Iterator[tuple[str, str]]:
    """Yield key and English of all that a method's record says."""
    for name in ("name", "sentence", "use_when", "formula", "saved"):
        yield f"{spec.id}.{name}", getattr(spec, name)
    for number, text in enumerate(spec.failures):
        yield f"{spec.id}.failures.{number}", text
    for field in dataclasses.fields(spec.config):
        yield f"{spec.id}.settings.{field.name}", field.metadata["help"]


def missing(language: str) -> dict[str, str]:
    """Return key -> English of what a language does not say.

    It need not have a name or formula that reads the same everywhere, and may say a setting once for all methods that
    have it, as ``settings.FIELD``.
    """
    known = LANGUAGES[language].words
    names = {f"{spec.id}.name" for spec in registry.methods()}

    def needed(key: str, text: str) -> bool:
        common = "settings." + key.partition(".settings.")[2]
        formula = key.endswith(".formula") and not re.search("[a-z]{4}", text.replace("max", ""))
        return not (key in known or common in known or key in names or formula)

    return {key: text for key, text in english().items() if needed(key, text)}


def unknown(language: str) -> set[str]:
    """Return keys of a language that nothing uses."""
    found = english()
    common = {f"settings.{key.partition('.settings.')[2]}" for key in found if ".settings." in key}
    return LANGUAGES[language].words.keys() - found.keys() - common
