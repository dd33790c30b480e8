"""What the Learn screen says about a method and about the field's words, as HTML. No gradio.

Modules that need torch are imported inside the functions, so that the page is there before torch is.
"""

from __future__ import annotations

import dataclasses
import re
from html import escape
from typing import TYPE_CHECKING, Any

from demo import html
from demo.model_download import backbone_name
from demo.screens.tune import service as tuning
from demo.words import Translator
from demo.workspace import Workspace
from engine.errors import LabError, Untraceable
from engine.tuning.registry import PAPER_LINKS

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.tuning.registry import MethodSpec

LABELS, SHOTS = 10, 4
"""What counts are for where the visitor has no labels and images yet."""
GLOSSARY = (
    "contrastive",
    "sigmoid",
    "similarity",
    "scale",
    "probability",
    "margin",
    "calibration",
    "backbone",
    "adapter",
    "peft",
    "rank",
    "prompt token",
    "ensemble",
    "shots",
    "overfitting",
    "held-out",
    "cross-validation",
    "interval",
    "mcnemar",
    "pareto",
    "vram",
    "forgetting",
    "pool",
    "lwf",
    "embedding",
    "token",
    "vit",
    "gradient",
    "hard prompt",
    "projection",
    "distillation",
    "quantisation",
    "foundation model",
    "vlm",
    "mrope",
    "set-of-mark",
    "prediction set",
)


def lesson(workspace: Workspace, method: str, t: Translator) -> str:
    """Return a method on the visitor's backbone: words on one side, the drawing on the other."""
    from engine.tuning import registry

    spec, backbone = registry.get(method), tuning.backbone_of(workspace)
    labels, images = numbers(workspace)
    config = spec.configure(shots=max(1, images // labels))
    obstacle = registry.obstacle(spec, backbone, config)
    if obstacle:
        sides = f"<div>{about(spec, t)}{_cannot(obstacle, t)}{_record(spec, t)}</div>"
    else:
        counted = _count(spec, config, backbone, labels, images, t)
        try:
            picture = _figure(spec, config, backbone, labels, images, t)
        except Untraceable as unknown:
            picture = html.notes([t.error(unknown)], t)
        sides = f"<div>{about(spec, t)}{counted}{_record(spec, t)}</div>{picture}"
    return f'<article class="ctl-lesson">{sides}</article>{settings(spec, t)}'


def numbers(workspace: Workspace) -> tuple[int, int]:
    """Return labels and training images: the visitor's own, or ``LABELS`` of ``SHOTS`` each."""
    try:
        built = tuning.episode_of(workspace)
    except LabError:
        return LABELS, LABELS * SHOTS
    return len(built.labels), len(built.folds[0].support)


def about(spec: MethodSpec, t: Translator) -> str:
    """Name, sentence, when to use it, equation."""
    sentence, when = (t.method(f"{spec.id}.{name}", getattr(spec, name)) for name in ("sentence", "use_when"))
    return (
        f'<h2>{escape(t.name(spec.id))}</h2><p><span class="ctl-chip">{escape(t(f"family.{spec.family}"))}</span> '
        f'{escape(sentence)}</p><p class="ctl-when"><b>{t("learn.use_when")}</b> {escape(when)}</p>'
        f'<h3>{t("learn.equation")}</h3><p class="ctl-equation">{escape(spec.equation)}</p>'
        f'<p class="ctl-detail">{escape(t("learn.letters"))}</p>'
    )


def _cannot(obstacle: LabError, t: Translator) -> str:
    return (
        f'<p class="ctl-unavailable"><span aria-hidden="true">⊘</span> <b>{t("learn.cannot")}</b> '
        f"{escape(t.error(obstacle))}</p>"
    )


def _count(spec: MethodSpec, config: Any, backbone: Backbone, labels: int, images: int, t: Translator) -> str:
    """The count in letters and as a number."""
    from engine.methods import count_formula

    count = spec.count(backbone.shape, config, labels, images)
    known = count_formula.values(spec, config, backbone.shape, labels, images)
    layers = known.pop("layers", None)
    letters = [count_formula.in_words(known)] if known else []
    letters += [t("learn.layers", count=layers)] if layers else []
    share = html.percent_text(count / backbone.shape.parameters, t)
    of = t("learn.share", share=share, total=html.count_text(backbone.shape.parameters, t))
    words = t.method(f"{spec.id}.formula", spec.formula)
    given = t("learn.for", labels=labels, images=images)
    return (
        f'<h3>{t("learn.count")}</h3><p class="ctl-equation">{escape(words)} → <b>{count:,}</b></p>'
        f'<p class="ctl-detail">{escape("; ".join([*letters, given]))}; {of}</p>'
    )


def _record(spec: MethodSpec, t: Translator) -> str:
    """The rest of the record."""
    failures = "".join(
        f"<li>{escape(t.method(f'{spec.id}.failures.{k}', text))}</li>" for k, text in enumerate(spec.failures)
    )
    rows = (
        ("runs", f"<p>{escape(t.method(f'runs_on.{spec.runs_on}', spec.recomputes.sentence))}</p>"),
        ("saved", f"<p>{escape(t.method(f'{spec.id}.saved', spec.saved))}</p>"),
        ("failures", f"<ul>{failures}</ul>"),
        ("paper", f"<p>{paper(spec.paper)}</p>"),
    )
    return "".join(f"<h3>{t(f'learn.{name}')}</h3>{html}" for name, html in rows)


def paper(text: str) -> str:
    """Return a paper with its ids as links, which the visitor may follow; the page itself fetches nothing."""
    text = escape(text)
    for pattern, address in PAPER_LINKS:
        text = re.sub(pattern, rf'<a href="{address}\2" target="_blank" rel="noopener noreferrer">\1 \2</a>', text)
    return text


def _figure(spec: MethodSpec, config: Any, backbone: Backbone, labels: int, images: int, t: Translator) -> str:
    """Drawing, legend, and the same as a table."""
    from demo.screens.learn import diagram
    from engine.costs.placement import tower_diagram as look

    found = look(spec, config, backbone, labels, images)
    title = t("learn.picture", method=t.name(spec.id), backbone=backbone_name(backbone.id, t))
    return (
        f'<figure class="ctl-figure"><figcaption>{escape(title)}</figcaption>'
        f"{diagram.drawing(found, backbone, labels, t, title)}{legend(t)}"
        f"{_by_place(diagram.summary(found, t), found.count, t)}</figure>"
    )


def _by_place(rows: list[tuple[str, int]], count: int, t: Translator) -> str:
    """The drawing's numbers as a table, folded away where it is long."""
    body = "".join(f'<tr><th scope="row">{escape(where)}</th><td>{n:,}</td></tr>' for where, n in rows)
    head = f'<th scope="col">{t("learn.where")}</th><th scope="col">{t("learn.trained")}</th>'
    foot = f'<th scope="row">{t("learn.sum")}</th><td>{count:,}</td>'
    opened = " open" if len(rows) <= 8 else ""
    return (
        f"<details{opened}><summary>{t('learn.by_place')}</summary>"
        f'<table class="ctl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot><tr>{foot}</tr></tfoot>'
        "</table></details>"
    )


def legend(t: Translator) -> str:
    """Return what the drawing's colours and patterns mean; each differs in shape too."""
    keys = "".join(
        f'<li><span class="ctl-key ctl-key-{name}" aria-hidden="true"></span>{t(f"learn.legend_{name}")}</li>'
        for name in ("trained", "part", "tokens", "run", "kept")
    )
    return f'<ul class="ctl-legend">{keys}</ul><p class="ctl-detail">{t("learn.legend_letters")}</p>'


def settings(spec: MethodSpec, t: Translator) -> str:
    """Return every setting with its meaning and its value in each preset, folded away; empty where there is none."""
    fields = dataclasses.fields(spec.config)
    if not fields:
        return ""
    presets = {
        t(f"preset.{name}") if name in ("budget", "paper") else escape(name): make(SHOTS)
        for name, make in spec.presets.items()
    }
    head = "".join(f'<th scope="col">{name}</th>' for name in (t("learn.setting"), t("learn.meaning"), *presets))
    rows = []
    for field in fields:
        meaning = t.setting(spec.id, field.name, field.metadata.get("help", ""))
        cells = "".join(f"<td>{escape(str(getattr(config, field.name)))}</td>" for config in presets.values())
        rows.append(f'<tr><th scope="row">{escape(field.name)}</th><td>{escape(meaning)}</td>{cells}</tr>')
    table = f'<table class="ctl-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return (
        f'<details class="ctl-lesson-settings"><summary>{t("learn.settings")}</summary>'
        f'<div class="ctl-scroll">{table}</div></details>'
    )


def glossary(t: Translator) -> str:
    """Return the field's words in plain ones."""
    rows = "".join(
        f"<div><dt>{escape(t(f'glossary.{id}'))}</dt><dd>{escape(t(f'glossary.{id}.text'))}</dd></div>"
        for id in GLOSSARY
    )
    return f'<section class="ctl-glossary"><h2>{t("learn.glossary")}</h2><dl>{rows}</dl></section>'
