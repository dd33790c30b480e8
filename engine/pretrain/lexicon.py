"""Words for the text tower: names and glosses of WordNet's nouns, the sentences that carry a label, word counts.

The names are those that timm lists for ImageNet (``timm.data.ImageNetInfo``): 1,000 classes of the trunk's classifier
and 21,841 nouns of WordNet (Miller 1995), each with synonyms and a gloss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from timm.data import ImageNetInfo

TEMPLATES = (
    "a photo of a {}.",
    "{}",
    "a photo of the {}.",
    "a photo of one {}.",
    "a picture of a {}.",
    "a {}.",
    "the {}.",
    "this is a {}.",
    "a small photo of a {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a good photo of a {}.",
    "a photo of {}.",
    "an image of a {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
)
"""Sentences that carry a label in training."""
DRAWN_TEMPLATES = ("a drawing of a {}.", "a sketch of a {}.", "a cartoon of a {}.", "a picture of a {}.", "{}")
EMOJI_TEMPLATES = ("an emoji of a {}.", "a drawing of a {}.", "a {} icon.", "{}", "a cartoon {}.")
ABOVE_TEMPLATES = ("a satellite photo of a {}.", "an aerial photo of a {}.", "a {} seen from above.")
"""Sentences for pictures taken from above, beside the usual ones."""


@dataclass(frozen=True)
class Noun:
    """A noun of WordNet: its names, the usual one first, and what it means."""

    names: tuple[str, ...]
    gloss: str

    @property
    def described(self) -> str:
        """Its first names with the gloss, which tells meanings of one name apart."""
        return f"{', '.join(self.names[:3])}: {self.gloss}"


def nouns(subset: str) -> list[Noun]:
    """The nouns of one of timm's lists (``imagenet-1k``, ``imagenet-22k``), in the order of its indices."""
    info = ImageNetInfo(subset)
    found = []
    for index in range(info.num_classes()):
        names, _, gloss = info.index_to_description(index, detailed=True).partition(": ")
        found.append(Noun(tuple(dict.fromkeys(name.strip().lower() for name in names.split(","))), gloss.lower()))
    return found


def everyday(names: Sequence[str]) -> list[str]:
    """The names without scientific ones where another is left: those of two words in a list whose other names
    are shorter are mostly Latin, which nobody types."""
    latin = re.compile(r"^[a-z]+ [a-z]+(us|is|um|a|ae|i|ii|os|ens|er|es|ata|oides)$")
    return [name for k, name in enumerate(names) if k == 0 or not latin.match(name)]


def vocabulary_texts() -> list[tuple[str, str]]:
    """(name, text that says what it means) for every name of the 22,000 nouns; of a name with several meanings the
    first is kept, since the list goes from common things to rare ones."""
    kept: dict[str, str] = {}
    for noun in [*nouns("imagenet-1k"), *nouns("imagenet-22k")]:
        for name in everyday(noun.names):
            kept.setdefault(name, noun.described)
    return list(kept.items())
