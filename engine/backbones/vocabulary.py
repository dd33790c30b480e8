"""Which words of a label a backbone hardly saw in training.

A backbone that was trained on few captions keeps beside its weights how many training images had
each word in a caption (``words.json``); for others nothing is known and nothing is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from engine.errors import messages
from engine.paths import local_path
from engine.types import Label

FILE = "words.json"
FAMILIAR = 25
"""Training images from which on a word counts as seen."""
WORD = re.compile(r"[^\W\d_]+")
ENDINGS = (("", "s"), ("", "es"), ("y", "ies"), ("f", "ves"), ("fe", "ves"))
"""English plurals: a word and its plural are one."""

messages(
    unfamiliar_words="In training, {backbone} hardly saw: {words}. Expect weak zero-shot scores for these labels; tune "
    "on your photos, or choose a larger backbone.",
)


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order; digits and signs are left out."""
    return WORD.findall(text.lower())


def count(captions: Iterable[Sequence[str]]) -> dict[str, int]:
    """Return images in whose captions each word stands, most frequent first; one list of captions an image."""
    counts: dict[str, int] = {}
    for image in captions:
        for word in {word for caption in image for word in words(caption)}:
            counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write(counts: dict[str, int], folder: Path) -> None:
    """Keep the counts beside a backbone's weights."""
    (folder / FILE).write_text(json.dumps(counts, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")


def forms(word: str) -> list[str]:
    """Return the word, its plurals and what it may be the plural of."""
    found = [word]
    for single, plural in ENDINGS:
        if word.endswith(plural):
            found.append(word.removesuffix(plural) + single)
        if word.endswith(single):
            found.append((word.removesuffix(single) if single else word) + plural)
    return found


@lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, int]:
    return json.loads(path.read_text(encoding="utf8"))


def counts_of(backbone: str) -> dict[str, int] | None:
    """Word counts of a backbone by catalogue id or folder; None where it has none."""
    from engine.backbones import entries  # late: it brings torch, and the page asks before that is there

    folder = entries.POCKET_FOLDER if backbone == entries.POCKET else local_path(backbone)
    return _read(folder / FILE) if folder and (folder / FILE).is_file() else None


def unfamiliar(backbone: str, labels: Sequence[Label]) -> tuple[str, ...]:
    """Words of the labels' prompts that fewer than ``FAMILIAR`` training images had, each once."""
    counts = counts_of(backbone)
    if counts is None:
        return ()
    asked = dict.fromkeys(word for label in labels for word in words(label.prompt))
    return tuple(word for word in asked if max(counts.get(form, 0) for form in forms(word)) < FAMILIAR)
