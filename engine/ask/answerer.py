"""A model that answers: what every one of them can do, and what an answer cost."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from engine.ask.prompts import Prompt
from engine.costs.meters import MemoryMeter

MOST_TOKENS = 128
"""Of one answer."""


@dataclass(frozen=True)
class Reply:
    """An answer, whole or as far as it is said."""

    text: str
    tokens: int
    """Pieces of the answer so far."""
    asked_tokens: int
    """Tokens of the question and of what is told about the marks."""
    first: float
    """Seconds until the first piece."""
    seconds: float
    done: bool
    stopped: bool = False
    peak_bytes: int = 0
    memory_kind: str = ""
    """``cuda`` or ``process``; empty until the answer is done."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Answerer(ABC):
    """A loaded vision-language model."""

    id: str
    name: str
    device: torch.device
    languages: tuple[str, ...] = ("en",)
    most_marks: int = 0
    """Marks that it has learnt to read; 0 where nothing is known."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text takes."""

    @abstractmethod
    def pieces(self, picture: Image.Image, prompt: Prompt, most: int, stop: threading.Event) -> Iterator[str]:
        """Yield the answer piece by piece, as text; setting ``stop`` ends it at the next one."""

    def stream(
        self, picture: Image.Image, prompt: Prompt, stop: threading.Event | None = None, most: int = MOST_TOKENS
    ) -> Iterator[Reply]:
        """Answer a question about an RGB picture; each reply holds all that was said so far, the last one is
        ``done``."""
        stop, started, text, count, first = stop or threading.Event(), time.perf_counter(), "", 0, 0.0
        asked = self.count_tokens(f"{prompt.hint} {prompt.question}".strip())
        with MemoryMeter(self.device) as meter:
            for piece in self.pieces(picture, prompt, most, stop):
                text, count = text + piece, count + 1
                spent = time.perf_counter() - started
                first = first or spent
                yield Reply(text, count, asked, first, spent, False)
        spent = time.perf_counter() - started
        yield Reply(text.strip(), count, asked, first, spent, True, stop.is_set(), meter.peak, meter.kind)

    def answer(self, picture: Image.Image, prompt: Prompt, most: int = MOST_TOKENS) -> Reply:
        """Return the whole answer."""
        *_, last = self.stream(picture, prompt, most=most)
        return last
