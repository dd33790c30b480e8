"""The report's plots of a comparison, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from engine.report import plots, svg
from engine.report.figures import time_text

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.compare import Ranking
    from engine.metrics.calibration import Calibration
    from engine.report.language import Words


class Drawings:
    """The plots of one comparison; a plot with nothing to show is empty."""

    def __init__(self, words: Words):
        self.words = words

    def pareto(self, ranking: Ranking, chosen: str | None) -> Markup:
        """Time against accuracy."""
        points = [
            svg.Point(dot.name, dot.cost, dot.value, dot.low, dot.high, _colour(dot.baseline), dot.faded)
            for dot in plots.dots(ranking, "seconds", chosen, self.words)
        ]
        axes = self.words("compare.seconds"), self.words("compare.axis_accuracy")
        return Markup(svg.scatter(points, *axes, lambda seconds: time_text(seconds, self.words)))

    def shots(self, ranking: Ranking, chosen: str | None) -> Markup:
        """Return accuracy by training images; empty where there was one number of them."""
        lines = []
        for curve in plots.growths(ranking, chosen, self.words):
            if len(curve.shots) < 2:
                continue
            strong = curve.chosen or curve.baseline
            colour = svg.ZERO_SHOT if curve.baseline else svg.TUNED if strong else svg.FADED
            x = tuple(map(float, curve.shots))
            lines.append(svg.Line(curve.name, x, curve.values, curve.lows, curve.highs, colour, strong))
        if not lines:
            return Markup()
        return Markup(svg.lines(lines, self.words("compare.axis_shots"), self.words("compare.axis_accuracy")))

    def mixing(self, found: Sequence[Forgetting]) -> Markup:
        """Return the WiSE-FT curves of the methods that can be mixed; empty where there is none."""
        curves = [
            svg.Line(
                self.words(f"report.line_{side}", method=mix.name),
                tuple(100 * share for share in mix.shares),
                values,
                colour=colour,
                strong=True,
            )
            for mix in plots.mixtures(found, self.words)
            for side, values, colour in (
                ("tuned", mix.tuned_labels, svg.TUNED),
                ("other", mix.other_labels, svg.OTHER),
            )
        ]
        if not curves:
            return Markup()
        axes = self.words("compare.axis_mix"), self.words("compare.axis_plain")
        return Markup(svg.lines(curves, *axes, logarithmic=False))

    def reliability(self, found: Mapping[str, Calibration], chosen: str | None) -> Markup:
        """Return the recommended method beside zero-shot."""
        axes = self.words("compare.axis_confidence"), self.words("compare.axis_right")
        figures = [
            svg.reliability(found[method].bins, self.words.name(method), *axes, _colour(method == before))
            for before, after in [plots.before_and_after(found, chosen)]
            for method in (before, after)
            if method
        ]
        return Markup("".join(figures))


def _colour(baseline: bool) -> str:
    """Grey for zero-shot, blue for tuned."""
    return svg.ZERO_SHOT if baseline else svg.TUNED
