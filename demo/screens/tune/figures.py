"""What is shown -> figures and HTML, by the tab that is open. Plotly is loaded when first needed."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from demo import tasks
from demo.screens.tune import adapters
from demo.words import Translator
from demo.workspace import DisplayedResult, Workspace


def values(shown: DisplayedResult, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ``(N, K)`` before and after, as one of ``engine.types.SCORES``."""
    before, after = shown.arrays["ensemble"], shown.arrays.get("tuned")
    return shown.scale.values(before, kind), None if after is None else shown.scale.values(after, kind)


def scores(shown: DisplayedResult, index: int, kind: str, t: Translator, dark: bool | None) -> Any:
    """Bars of one image."""
    from demo import plots

    before, after = values(shown, kind)
    truth = shown.targets[index] if shown.targets[index] >= 0 else None
    return plots.scores(shown.names, before[index], None if after is None else after[index], truth, t, kind, dark)


def bars(found: adapters.Scores, kind: str, t: Translator, dark: bool | None) -> Any:
    """Bars of a new image."""
    from demo import plots

    pair = [found.before] + ([] if found.after is None else [found.after])
    pair = [found.scale.values(row, kind) for row in pair]
    return plots.scores(found.names, pair[0], pair[1] if len(pair) > 1 else None, None, t, kind, dark)


def heat_map(shown: DisplayedResult, kind: str, t: Translator, dark: bool | None) -> Any:
    """Return images x labels."""
    from demo import plots

    before, after = values(shown, kind)
    names = [image.name for image in shown.images]
    return plots.heat_map(names, shown.names, before, after, shown.targets, t, dark, kind)


def confusion(shown: DisplayedResult, t: Translator, dark: bool | None) -> Any:
    """Tables of the test images."""
    from demo import plots
    from engine.metrics import statistics

    tested = np.flatnonzero(shown.arrays["tested"])
    goal = np.asarray(shown.targets)[tested]
    tables = [
        statistics.confusion(goal, shown.arrays[key][tested].argmax(1), len(shown.labels))
        for key in ("ensemble", "tuned")
        if key in shown.arrays
    ]
    return plots.confusion(tables[0], tables[1] if len(tables) > 1 else None, shown.names, t, dark)


def training(shown: DisplayedResult | None, t: Translator, dark: bool | None) -> Any:
    """Return the curve of a finished run."""
    from demo import plots

    curve = shown.result.curve if shown and shown.result else ()
    return plots.training(thinned(curve), None, t, dark)


def live(curve: list[tuple[int, float, float]], total: int, t: Translator, dark: bool | None) -> Any:
    """Return the curve of a run in progress."""
    from demo import plots

    return plots.training(thinned(curve), total, t, dark)


def thinned(curve: Any, most: int = 400) -> list[Any]:
    """At most ``most`` points, the last one among them."""
    step = max(1, -(-len(curve) // most))
    return list(curve[::-1][::step])[::-1]


def embedding_map(workspace: Workspace, shown: DisplayedResult, t: Translator, dark: bool | None) -> Any:
    """Return images and labels in the plane, before and after on the same axes."""
    from demo import plots
    from engine.metrics import statistics

    arrays, n, k = shown.arrays, len(shown.images), len(shown.labels)
    parts = [arrays["image_before"], arrays["text_before"]]
    if moved := "image_after" in arrays and "text_after" in arrays:
        parts += [arrays["image_after"], arrays["text_after"]]
    # Images and texts lie in two cones of their own; each is centred, so that the axes show classes.
    flat = statistics.project(np.concatenate([part - part.mean(0) for part in parts]))
    before, label_before, rest = flat[:n], flat[n : n + k], flat[n + k :]
    thumbs = [tasks.thumb_uri(workspace, image, 56) for image in shown.images]
    return plots.embedding_map(
        before,
        rest[:n] if moved else None,
        shown.names,
        shown.targets,
        arrays["ensemble"].argmax(1),
        arrays["tuned"].argmax(1) if shown.tuned else None,
        label_before,
        rest[n : n + k] if moved else None,
        [image.name for image in shown.images],
        thumbs,
        t,
        dark,
    )


def image_choices(shown: DisplayedResult, t: Translator) -> list[tuple[str, int]]:
    """Return images for a menu, in the order of :meth:`DisplayedResult.order`: number, label, name."""
    none, names = t("images.no_label"), shown.names
    signs = {i: f" {sign}" for group, sign in zip(shown.wrong(), "✓✕○", strict=True) for i in group if shown.tuned}
    rows = ((i, shown.images[i], shown.targets[i]) for i in shown.order())
    return [(f"{i + 1} · {names[k] if k >= 0 else none} · {image.name}{signs.get(i, '')}", i) for i, image, k in rows]


def picture(workspace: Workspace, shown: DisplayedResult, index: int, kind: str, t: Translator) -> str:
    """Return one image with its true label and what both models say."""
    image, names = shown.images[index], shown.names
    truth = shown.targets[index]
    rows: list[tuple[str, str, bool | None]] = [
        (t("scores.truth"), names[truth] if truth >= 0 else t("images.no_label"), None)
    ]
    for key, word in (("ensemble", "plot.zero_shot"), ("tuned", "plot.tuned")):
        if key in shown.arrays:
            found = int(shown.arrays[key][index].argmax())
            rows.append((t(word), names[found], None if truth < 0 else found == truth))
    signs = {None: "", True: " ✓", False: " ✕"}
    lines = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}{signs[c]}</dd>" for a, b, c in rows)
    role = t("scores.test_image") if shown.arrays["tested"][index] else t("scores.training_image") if truth >= 0 else ""
    uri = tasks.thumb_uri(workspace, image, 320)
    keys = ["scores.margin_hint"] if kind == "margin" else ["scores.sigmoid"] if shown.scale.bias is not None else []
    keys += ["scores.unlike"] if "unlike" in shown.arrays and shown.arrays["unlike"][index] else []
    hint = "".join(f'<p class="ctl-hint">{escape(t(key))}</p>' for key in keys)
    return (
        f'<figure class="ctl-picture"><img src="{uri}" alt="{escape(image.name)}"><figcaption><dl>{lines}</dl>'
        f"<small>{escape(image.name)}{' · ' + role if role else ''}</small></figcaption></figure>" + hint
    )
