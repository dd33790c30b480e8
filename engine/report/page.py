"""The report's sections as HTML. Everything that came from a user or a file is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from engine.checks.forgetting import Forgetting
from engine.checks.label_errors import LabelErrorReport
from engine.metrics.calibration import Calibration
from engine.report import svg
from engine.report.words import Words
from engine.tuning import registry
from engine.types import BASELINE, Note
from engine.units import bytes_text

if TYPE_CHECKING:
    from engine.compare import Comparison, Ranking, Standing

SIGNS = {"better": "▲", "worse": "▼", "close": "≈", "baseline": "●"}
LEAST_SECONDS = 0.01
"""Shorter times are drawn as this one."""


class Sections:
    """The parts of one comparison's report.

    Args:
        words: in whose language it speaks.
        picture: from an image's position to a data URI of its thumbnail, empty where there is none.
    """

    def __init__(self, comparison: Comparison, words: Words, picture: Callable[[int], str] = lambda i: ""):
        self.comparison, self.picture = comparison, picture
        self.words = words

    def plain(self, key: str, **values: Any) -> str:
        """Return the report's own sentence of a key, not escaped: for plots, which do so themselves."""
        return self.words(f"report.{key}", **values)

    def say(self, key: str, **values: Any) -> str:
        """Return the report's own sentence of a key."""
        return escape(self.plain(key, **values))

    def name(self, method: str) -> str:
        """Return a method's name, not escaped: for plots."""
        return self.words.name(method)

    def sentence(self, note: Note) -> str:
        """Return a sentence of another part of the engine."""
        return escape(self.words.engine(note.key, dict(note.values)))

    @property
    def ranking(self) -> Ranking:
        """The comparison's ranking; there is one wherever these sections are asked for."""
        assert self.comparison.ranking is not None
        return self.comparison.ranking

    # ---- what to do

    def advice(self) -> str:
        """Return the recommendation and what the limits left out."""
        advice = self.comparison.advice
        if advice is None:
            return ""
        first, *rest = [self.sentence(note) for note in advice.notes] or [""]
        reasons = "".join(f"<li>{sentence}</li>" for sentence in rest)
        out = "".join(
            f"<li>{escape(self.name(method))}: {self.sentence(note)}</li>" for method, note in advice.excluded
        )
        excluded = f"<h3>{self.say('excluded')}</h3><ul>{out}</ul>" if out else ""
        listed = f"<ul>{reasons}</ul>" if reasons else ""
        return f'<div class="advice"><h2>{self.say("advice")}</h2><p><b>{first}</b></p>{listed}{excluded}</div>'

    # ---- methods

    def methods(self) -> str:
        """Return the table of methods by group."""
        ranking = self.ranking
        note = self.say("methods_note", tested=ranking.tested, shots=ranking.shots, seeds=len(ranking.seeds))
        damage = any(standing.loss is not None for standing in ranking.standings)
        heads = ["method", "family", "accuracy", "over", "parameters", "memory", "seconds", "file"]
        heads += ["loss"] if damage else []
        groups: dict[int, list[Standing]] = {}
        for standing in ranking.standings:
            groups.setdefault(standing.group, []).append(standing)
        body = ""
        for number, standings in groups.items():
            key = "group_close" if len(standings) > 1 else "group"
            body += f'<tr class="group"><th colspan="{len(heads)}">{self.say(key, number=number)}</th></tr>'
            body += "".join(self._standing(standing, damage) for standing in standings)
        head = "".join(f"<th>{self.say(name)}</th>" for name in heads)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return section(self.say("methods"), f"<p>{note}</p>{table}")

    def _standing(self, standing: Standing, damage: bool) -> str:
        chosen = self.comparison.advice is not None and self.comparison.advice.method == standing.method
        over = standing.over_zero_shot
        word = "" if standing.word == "baseline" else escape(self.words(f"verdict.{standing.word}"))
        points = "" if standing.method == BASELINE else f"{SIGNS[standing.word]} {signed(over.value)}"
        cells = [
            f"{'★ ' if chosen else ''}{escape(self.name(standing.method))}",
            escape(self.words(f"family.{standing.family}")),
            share(standing.accuracy),
            f'<span title="{word}">{points}</span>',
            f"{standing.parameters:,}",
            bytes_text(standing.memory_bytes),
            f"{standing.seconds:.1f} s",
            bytes_text(standing.adapter_bytes),
        ]
        if damage:
            cells.append("" if standing.loss is None else signed(-standing.loss))
        styles = ["", *[' class="number"'] * (len(cells) - 1)]
        kind = ' class="baseline"' if is_baseline(standing.method) else ' class="chosen"' if chosen else ""
        return f"<tr{kind}>{''.join(f'<td{style}>{cell}</td>' for style, cell in zip(styles, cells, strict=True))}</tr>"

    def pareto(self) -> str:
        """Time against accuracy."""
        standings = self.ranking.standings
        costs = {s.method: max(LEAST_SECONDS, s.seconds) for s in standings}
        dominated = dominated_by_cost(standings, costs)
        points = [
            svg.Point(
                self.name(s.method), costs[s.method], s.accuracy.value, s.accuracy.low, s.accuracy.high,
                colour_of(s.method), s.method in dominated,
            )
            for s in standings
        ]  # fmt: skip
        figure = svg.scatter(
            points,
            self.plain("axis_seconds"),
            self.plain("axis_accuracy"),
            lambda value: f"{value:,.4g}" if value < 1 else f"{value:,.0f}",
        )
        return section(self.say("pareto"), figure + f"<p>{self.say('pareto_note')}</p>")

    def shots(self) -> str:
        """Return accuracy by training images; empty where there was one number of them."""
        curves = [curve for curve in self.ranking.curves if len(curve.shots) > 1]
        if not curves:
            return ""
        advice = self.comparison.advice
        chosen = advice.method if advice else None
        lines = []
        for curve in curves:
            baseline, strong = is_baseline(curve.method), curve.method in (chosen, BASELINE)
            colour = svg.ZERO_SHOT if baseline else svg.TUNED if strong else svg.FADED
            lines.append(
                svg.Line(
                    self.name(curve.method),
                    tuple(map(float, curve.shots)),
                    tuple(a.value for a in curve.accuracy),
                    tuple(a.low for a in curve.accuracy),
                    tuple(a.high for a in curve.accuracy),
                    colour,
                    strong,
                )
            )
        figure = svg.lines(lines, self.plain("axis_shots"), self.plain("axis_accuracy"))
        return section(self.say("shots"), figure + f"<p>{self.say('shots_note')}</p>")

    # ---- what it costs elsewhere

    def calibration(self, found: Mapping[str, Calibration]) -> str:
        """Reliability of the recommended method beside zero-shot, and a table of all."""
        if not found:
            return ""
        advice = self.comparison.advice
        wanted = dict.fromkeys((BASELINE, advice.method if advice and advice.method else BASELINE, *found))
        shown = [method for method in wanted if method in found][:2]
        axes = self.plain("axis_confidence"), self.plain("axis_right")
        figures = "".join(svg.reliability(found[m].bins, self.name(m), *axes, colour_of(m)) for m in shown)
        rows = [
            (escape(self.name(m)), f"{100 * c.ece:.1f} %", f"{c.brier:.2f}", f"{100 * c.confidence:.0f} %",
             f"{100 * c.accuracy:.0f} %")
            for m, c in sorted(found.items(), key=lambda item: item[1].ece)
        ]  # fmt: skip
        heads = [self.say(key) for key in ("method", "ece", "brier", "confidence", "accuracy")]
        body = f'<div class="row">{figures}</div>{table(heads, rows)}<p>{self.say("calibration_note")}</p>'
        return section(self.say("calibration"), body)

    def damage(self, found: Sequence[Forgetting]) -> str:
        """Return accuracy on labels that were not tuned on."""
        if not found:
            return ""
        note = self.say("damage_note", tuned_on=", ".join(found[0].tuned_on), others=", ".join(found[0].others))
        rows = [
            (
                escape(self.name(d.method)),
                f"{share(d.tuned_labels[0])} → {share(d.tuned_labels[1])}",
                f"{share(d.other_labels[0])} → {share(d.other_labels[1])}",
                ""
                if d.verdict.word == "baseline"
                else f"{SIGNS[d.verdict.word]} {escape(self.words(f'verdict.{d.verdict.word}'))}",
                f"{d.drift.image:.3f}, {d.drift.text:.3f}",
            )
            for d in found
        ]
        heads = [self.say(key) for key in ("method", "damage_tuned", "damage_others", "damage_verdict", "drift")]
        body = f"<p>{note}</p>{table(heads, rows)}<p>{self.say('drift_note')}</p>{self._mixing(found)}"
        return section(self.say("damage"), body)

    def _mixing(self, found: Sequence[Forgetting]) -> str:
        """The WiSE-FT curves of the methods that can be mixed; empty where there is none."""
        curves = [
            svg.Line(
                self.plain(f"line_{side}", method=self.name(d.method)),
                tuple(100 * point.share for point in d.curve),
                tuple(getattr(point, f"{side}_labels") for point in d.curve),
                colour=colour,
                strong=True,
            )
            for d in found
            if d.curve
            for side, colour in (("tuned", svg.TUNED), ("other", svg.OTHER))
        ]
        if not curves:
            return ""
        figure = svg.lines(curves, self.plain("axis_share"), self.plain("axis_plain"), logarithmic=False)
        return f"<h3>{self.say('mixing')}</h3>{figure}<p>{self.say('mixing_note')}</p>"

    def mislabelled(self, check: LabelErrorReport | None) -> str:
        """Return images whose label may be wrong."""
        if check is None:
            return ""
        if not check.judges:
            return section(self.say("mislabelled"), f"<p>{self.say('no_judges')}</p>")
        names = [escape(label.name) for label in self.comparison.labels]
        rows = [
            (
                f"{image_tag(self.picture(s.image))} {escape(self.comparison.image_names[s.image])}",
                names[s.given],
                f"<b>{names[s.suggested]}</b>",
                f"{100 * s.agree:.0f} %",
            )
            for s in check.suspects
        ]
        heads = [self.say(key) for key in ("image", "given", "suggested", "agree")]
        judges = self.say("mislabelled_judges", methods=", ".join(map(self.name, check.judges)))
        listed = table(heads, rows) if rows else f"<p>{self.say('none_suspect')}</p>"
        return section(self.say("mislabelled"), f"<p>{self.say('mislabelled_note')} {judges}</p>{listed}")

    # ---- what it was made from

    def images(self, of_label: Mapping[int, Sequence[int]], most: int = 6) -> str:
        """Return a few thumbnails of each label. ``of_label``: class -> positions of its images."""
        rows = ""
        for k, label in enumerate(self.comparison.labels):
            positions = list(of_label.get(k, ()))
            pictures = "".join(image_tag(self.picture(i), label.name) for i in positions[:most])
            left = len(positions) - most
            more = f" <small>{self.say('images_more', count=left)}</small>" if left > 0 else ""
            prompt = "" if label.prompt == label.name else f"<br><small>{escape(label.prompt)}</small>"
            rows += f"<tr><th>{escape(label.name)}{prompt}</th><td>{pictures}{more}</td></tr>"
        return section(self.say("images"), f'<table class="images"><tbody>{rows}</tbody></table>')

    def failed(self) -> str:
        """Return methods that could not run, and why."""
        seen: dict[tuple[str, str], None] = {}
        for row in self.comparison.rows:
            if row.status != "done" and row.error is not None:
                seen.setdefault((row.method, self.sentence(row.error)), None)
        items = "".join(f"<li><b>{escape(self.name(method))}</b>: {why}</li>" for method, why in seen)
        return section(self.say("failed"), f"<ul>{items}</ul>") if items else ""

    def repeat(self, command: str) -> str:
        """Command, settings and versions."""
        request = self.comparison.request
        done = [row.result for row in self.comparison.rows if row.result]
        versions = done[0]["versions"] if done else {}
        shots = sorted({row.shots or 0 for row in self.comparison.rows if row.result})
        facts: list[tuple[str, Any]] = [
            (self.say("seeds"), ", ".join(map(str, request.seeds))),
            (self.say("shots_used"), ", ".join(map(str, shots))),
            (self.say("preset"), request.preset),
            (self.say("templates"), request.template_set),
            (self.say("precision"), ", ".join(sorted({result["precision"] for result in done}))),
            (self.say("duration"), f"{self.comparison.seconds:.0f} s"),
            *versions.items(),
        ]
        rows = [(name if i < 6 else escape(name), escape(str(value))) for i, (name, value) in enumerate(facts)]
        listed = table([self.say("setting"), self.say("value")], rows)
        code = f"<pre>{escape(command)}</pre><p>{self.say('repeat_note')}</p>" if command else ""
        return section(self.say("repeat"), code + listed)


def is_baseline(method: str) -> bool:
    """Return whether nothing is tuned."""
    return registry.get(method).family == "baseline"


def colour_of(method: str) -> str:
    """Grey for zero-shot, blue for tuned."""
    return svg.ZERO_SHOT if is_baseline(method) else svg.TUNED


def section(heading: str, body: str) -> str:
    """Return a part of the report that is not broken over pages where it fits on one."""
    return f"<section><h2>{heading}</h2>{body}</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def image_tag(uri: str, name: str = "") -> str:
    """Return a thumbnail; nothing where there is none."""
    return f'<img src="{uri}" alt="{escape(name)}">' if uri else ""


def share(interval: Any) -> str:
    """``84.1 % (79.2 - 88.0)``."""
    if not math.isfinite(interval.value):
        return "-"
    return (
        f"{100 * interval.value:.1f} % "
        f'<span class="interval">({100 * interval.low:.1f}–{100 * interval.high:.1f})</span>'
    )


def signed(value: float) -> str:
    """Percentage points with their sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def dominated_by_cost(standings: Sequence[Standing], costs: Mapping[str, float]) -> set[str]:
    """Methods for which another one is at least as accurate and costs no more, and is better in one of the two."""
    return {
        s.method
        for s in standings
        if any(
            o.accuracy.value >= s.accuracy.value
            and costs[o.method] <= costs[s.method]
            and (o.accuracy.value > s.accuracy.value or costs[o.method] < costs[s.method])
            for o in standings
        )
    }
