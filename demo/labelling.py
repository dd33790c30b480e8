"""Many photos get their labels: by hand, from file names, from zero-shot's guesses. No torch, no gradio."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo import tasks
from demo.workspace import Workspace
from engine.data.labels import parse_labels
from engine.errors import LabError

CLEAR = 3.0
"""Zero-shot is sure of a label that it finds this many times as likely as the next one."""
CAMERAS = re.compile(
    r"(img|image|images|dsc|dscn|dscf|pxl|photo|picture|pic|scan|screenshot|capture|whatsapp|kakaotalk|file|untitled"
    r"|download|unnamed|vid|snapchat|fb|mvimg|gopr|사진|이미지|스크린샷)",
    re.IGNORECASE,
)
"""Words by which cameras and programs begin the names of files; they name no class."""
MOST_OFFERED = 30
"""Labels from file names; more of them are no classes."""


def unlabelled(workspace: Workspace) -> list[int]:
    """Return positions of images without a label."""
    return [i for i, image in enumerate(workspace.images) if not image.label]


def give(workspace: Workspace, positions: Collection[int], label: str | None) -> int:
    """Give images one label, a new one included; None or empty takes theirs away. Returns how many changed."""
    label = (label or "").strip() or None
    if label and re.search("[,=\n]", label):  # they part labels where labels are typed
        label = re.sub(r"\s*[,=\n]+\s*", " ", label).strip() or None
    return _assign(workspace, dict.fromkeys(positions, label), guessed=False)


def _assign(workspace: Workspace, labels: dict[int, str | None], guessed: bool) -> int:
    with workspace.lock:
        images, changed = list(workspace.images), 0
        for i, label in labels.items():
            if not 0 <= i < len(images):
                continue
            workspace.guessed = workspace.guessed - {images[i].digest} | ({images[i].digest} if guessed else set())
            if images[i].label != label:
                images[i] = replace(images[i], label=label)
                changed += 1
        if changed:
            workspace.images = tuple(images)
            tasks.add_labels(workspace, [label for label in labels.values() if label])
            workspace.changed()
        return changed


def remove(workspace: Workspace, positions: Collection[int]) -> None:
    """Take images out."""
    gone = set(positions)
    with workspace.lock:
        left = tuple(image for i, image in enumerate(workspace.images) if i not in gone)
        if len(left) == len(workspace.images):
            return
        workspace.images, workspace.score_image = left, 0
        workspace.changed()
        workspace.tidy()


# ---- from file names ------------------------------------------------------------------------------


def named(name: str) -> str | None:
    """Return the label that a file's name tells: ``dress`` of ``dress_0.jpg``; None of ``IMG_2041.jpg``."""
    stem = Path(name.replace("\\", "/")).stem
    word = re.sub(r"[\s_\-.#]*[(\[]?\d[\d\s_\-.:]*[)\]]?\s*(copy|복사본)?$", "", stem.strip())
    word = re.sub(r"[\s_]+", " ", word).strip(" -_.")
    letters = re.sub(r"[\W\d_]", "", word)
    if len(letters) < 2 or CAMERAS.match(word) or re.search(r"\d{3}", word) or re.fullmatch("[0-9a-fA-F-]{8,}", word):
        return letters if _one_syllable(letters) and letters == word else None
    return word


def _one_syllable(letters: str) -> bool:
    """Whether this is a whole word of a script that writes words with one sign: 개, 猫."""
    return len(letters) == 1 and not letters.isascii()


def offered(workspace: Workspace) -> dict[int, str]:
    """Return labels of unlabelled images as their file names tell them; empty where the names tell no classes."""
    given = tasks.counts(workspace)[0]
    known = {name.casefold(): name for name in given}
    found: dict[int, str] = {}
    for i in unlabelled(workspace):
        if word := named(workspace.images[i].name):
            found[i] = known.setdefault(word.casefold(), word)
    labels = set(found.values())
    classes = len(labels) < len(found) or labels <= set(given)
    return found if classes and len(labels) <= MOST_OFFERED else {}


def take_offered(workspace: Workspace) -> int:
    """Take the labels that the file names tell."""
    return _assign(workspace, dict(offered(workspace)), guessed=False)


# ---- from zero-shot ---------------------------------------------------------------------------------


def judged(workspace: Workspace) -> tuple[list[str], list[bool]]:
    """Return the label that zero-shot finds likeliest for each image and whether it is sure; empty without scores of
    these images."""
    shown = workspace.shown
    if shown is None or len(shown.images) != len(workspace.images) or len(shown.names) < 2:
        return [], []
    logits = np.asarray(shown.arrays["ensemble"], float)
    best = np.sort(logits, 1)[:, -2:]
    clear = best[:, 1] - best[:, 0] >= math.log(CLEAR)
    return [shown.names[k] for k in logits.argmax(1)], clear.tolist()


def guesses(workspace: Workspace) -> tuple[dict[int, str], list[int]]:
    """Return zero-shot's labels of the unlabelled images that it is sure of, and the positions of the others."""
    found, clear = judged(workspace)
    open_ = unlabelled(workspace) if found else []
    return {i: found[i] for i in open_ if clear[i]}, [i for i in open_ if not clear[i]]


def take_guesses(workspace: Workspace) -> int:
    """Take zero-shot's labels where it is sure; they count as guesses until the visitor says that they are right."""
    return _assign(workspace, dict(guesses(workspace)[0]), guessed=True)


def guessed(workspace: Workspace) -> list[int]:
    """Return positions of images whose label is a guess that nobody has confirmed."""
    return [i for i, image in enumerate(workspace.images) if image.label and image.digest in workspace.guessed]


def confirm(workspace: Workspace, positions: Collection[int] | None = None) -> None:
    """The visitor says that guesses are right: all of them, or those of some images."""
    with workspace.lock:
        if positions is None:
            workspace.guessed = frozenset()
        else:
            digests = {workspace.images[i].digest for i in positions if 0 <= i < len(workspace.images)}
            workspace.guessed = workspace.guessed - digests


# ---- what is looked for -----------------------------------------------------------------------------


def marks(workspace: Workspace) -> list[set[str]]:
    """Return what is to be known of each image: ``none`` (no label), ``guess``, ``uncertain``, ``wrong``, and after
    tuning ``fixed``, ``broken``."""
    found, clear = judged(workspace)
    result: list[set[str]] = []
    guess = set(guessed(workspace))
    for i, image in enumerate(workspace.images):
        own = {"none"} if not image.label else {"guess"} if i in guess else set()
        if found:
            own |= set() if clear[i] else {"uncertain"}
            own |= {"wrong"} if image.label and found[i] != image.label else set()
        result.append(own)
    shown = workspace.shown
    if shown and shown.tuned and len(shown.images) == len(result):
        for name, positions in zip(("fixed", "broken"), shown.wrong()[:2], strict=True):
            for i in positions:
                result[i].add(name)
    return result


def missing(workspace: Workspace) -> tuple[str, dict[str, int]] | None:
    """Return what is missing before anything can be tuned, as a key of the words and its fields; None if nothing is."""
    if not workspace.images:
        return "missing.images", {}
    if len(unlabelled(workspace)) == len(workspace.images):
        key = "missing.labelled" if workspace.labels_text else "missing.both"
        return key, {"count": len(workspace.images)}
    try:
        parse_labels(workspace.labels_text)
    except LabError:
        return ("missing.second" if len(set(tasks.counts(workspace)[0])) == 1 else "missing.labels"), {}
    return None
