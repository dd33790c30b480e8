"""The photos of the task with their labels, as HTML: what ``assets/style/gallery.js`` makes selectable. No gradio."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from demo import labelling, tasks
from demo.words import Translator
from demo.workspace import Workspace

FILTERS = ("none", "guess", "uncertain", "wrong", "fixed", "broken")
SIGNS = {"fixed": "✓", "broken": "✕", "wrong": "✕", "uncertain": "?"}
"""In a tile's corner; the first that fits."""
MOST_NAMES = 4
"""Labels from file names that a button lists."""


def draw(workspace: Workspace, t: Translator, address: Callable[[str], str]) -> str:
    """Return boxes of labels, what is to be done, and the photos.

    Args:
        address: where the browser finds a file of this machine.
    """
    names, numbers = tasks.counts(workspace)
    if not names and not workspace.images:
        return ""
    found = labelling.marks(workspace)
    parts = [_told(workspace, t), _offers(workspace, t), _boxes(names, numbers, workspace, t)]
    if workspace.images:
        parts += [_tools(names, numbers, found, t), _tiles(workspace, found, t, address)]
        parts.append(f'<p class="ctl-hint ctl-how">{t("gallery.how")}</p>')
    words = {"chosen": t("gallery.chosen", count="#"), "uploading": t("gallery.uploading")}
    data = "".join(f' data-{key}="{escape(text)}"' for key, text in words.items())
    return f'<div class="ctl-gallery"{data}>{"".join(parts)}</div>'


def _told(workspace: Workspace, t: Translator) -> str:
    """What is missing, or how many photos have no label."""
    lacks, open_ = labelling.missing(workspace), len(labelling.unlabelled(workspace))
    if lacks and lacks[0] in ("missing.both", "missing.labelled", "missing.second"):
        return f'<p class="ctl-todo" role="status">{t(lacks[0], **lacks[1])}</p>'
    if open_ and workspace.images:
        return f'<p class="ctl-hint">{t("missing.some", count=open_)}</p>'
    return ""


def _offers(workspace: Workspace, t: Translator) -> str:
    """Buttons that label many photos at once."""
    parts = []
    if named := labelling.offered(workspace):
        labels = list(dict.fromkeys(named.values()))
        counts = [f"{label} {list(named.values()).count(label)}" for label in labels[:MOST_NAMES]]
        text = ", ".join(counts) + (" …" if len(labels) > MOST_NAMES else "")
        parts.append(_button("names", t("gallery.names", labels=escape(text))))
    sure, unsure = labelling.guesses(workspace)
    if sure:
        parts.append(_button("guesses", t("gallery.guesses", sure=len(sure), count=len(sure) + len(unsure))))
        parts.append(f'<p class="ctl-hint">{t("gallery.guesses_left", count=len(unsure))}</p>' if unsure else "")
    if guessed := labelling.guessed(workspace):
        parts.append(f'<p class="ctl-warning">{t("gallery.guessed", count=len(guessed))}</p>')
        parts.append(_button("confirm", t("gallery.confirm")))
    return f'<div class="ctl-offers">{"".join(parts)}</div>' if parts else ""


def _button(act: str, text: str) -> str:
    return f'<button type="button" class="ctl-small-button" data-act="{act}">{text}</button>'


def _boxes(names: list[str], numbers: list[int], workspace: Workspace, t: Translator) -> str:
    """A box a label: pressed it labels what is selected, photos can be dropped on it; and one for a new label."""
    boxes = []
    for name, number in zip(names, numbers, strict=True):
        shown, add = escape(name), escape(t("gallery.box_add", label=name))
        boxes.append(
            f'<span class="ctl-box{"" if number else " ctl-none"}" data-box="{shown}">'
            f'<button type="button" data-act="give" title="{shown}"><span class="ctl-name">{shown}</span> '
            f'<b>{number:,}</b></button><button type="button" class="ctl-plus" data-act="add" title="{add}" '
            f'aria-label="{add}">+</button></span>'
        )
    new = escape(t("gallery.new"))
    boxes.append(
        f'<span class="ctl-box ctl-new"><input type="text" aria-label="{new}" placeholder="{new}" maxlength="80">'
        f'<button type="button" data-act="new">{t("gallery.give")}</button></span>'
    )
    return f'<div class="ctl-boxes" role="group" aria-label="{escape(t("gallery.boxes"))}">{"".join(boxes)}</div>'


def _tools(names: list[str], numbers: list[int], found: list[set[str]], t: Translator) -> str:
    """What is shown, and what can be done with what is selected."""
    options = [("", t("gallery.all", count=len(found)))]
    for mark in FILTERS:
        if count := sum(mark in own for own in found):
            options.append((mark, t(f"gallery.{mark}", count=count)))
    pairs = zip(names, numbers, strict=True)
    options += [(f"={n}", t("gallery.of_label", label=n, count=c)) for n, c in pairs if c]
    menu = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    buttons = [("all", "choose_all"), ("clear", "choose_none"), ("unlabel", "unlabel"), ("remove", "remove")]
    label = {"remove": t("images.remove")}
    shown = "".join(_button(act, label.get(act) or t(f"gallery.{key}")) for act, key in buttons)
    return (
        f'<div class="ctl-gallery-tools"><select aria-label="{escape(t("gallery.filter"))}">{menu}</select>'
        f'<span class="ctl-count" role="status"></span>{shown}</div>'
    )


def _tiles(workspace: Workspace, found: list[set[str]], t: Translator, address: Callable[[str], str]) -> str:
    tiles = []
    for i, (image, own) in enumerate(zip(workspace.images, found, strict=True)):
        path, label = tasks.thumb(workspace, image), image.label
        caption = escape(label or t("images.no_label"))
        sign = next((SIGNS[mark] for mark in SIGNS if mark in own), "")
        picture = f'<img src="{escape(address(path))}" alt="" loading="lazy" draggable="false">' if path else ""
        tiles.append(
            f'<div class="ctl-tile" role="option" id="tile-{i}" aria-selected="false" data-index="{i}" '
            f'data-label="{escape(label or "")}" data-marks="{" ".join(sorted(own))}" '
            f'aria-label="{escape(image.name)}, {caption}" title="{escape(image.name)}">{picture}'
            f'<span class="ctl-tile-label{"" if label else " ctl-none"}">{caption}</span>'
            + (f'<span class="ctl-tile-sign" aria-hidden="true">{sign}</span>' if sign else "")
            + "</div>"
        )
    title = escape(t("images.gallery"))
    return (
        f'<div class="ctl-tiles" role="listbox" aria-multiselectable="true" aria-label="{title}" '
        f'tabindex="0">{"".join(tiles)}</div>'
    )
