"""Whether a run left zero-shot at all: methods that choose it by folds may find no reason to."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import Note, messages

messages(
    kept_zero_shot="Your photos give no reason to leave zero-shot: on photos left out of the training, nothing that "
    "was tuned did reliably better. So zero-shot is kept.",
    nothing_to_choose_by="With one photo a label none can be left out to check by, so zero-shot is kept. Add a second "
    "photo to each label.",
)


def sentence(chosen: Mapping[str, float], labels: int, support: int) -> Note | None:
    """Return what is to be said where the choice fell on zero-shot: a share, or a weight ``alpha``, of nothing."""
    if chosen.get("blend", chosen.get("alpha", 1.0)) != 0:
        return None
    return Note("nothing_to_choose_by" if support <= labels else "kept_zero_shot")
