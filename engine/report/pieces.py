"""What came out of a comparison, as HTML that the page and the report share. Everything a user typed is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from engine.report.columns import columns_of
from engine.report.figures import SIGNS
from engine.report.render import Templates

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.compare import Advice, Ranking, Row, Standing
    from engine.metrics.calibration import Calibration
    from engine.report.language import Words


class Pieces:
    """The parts of a comparison that the page and the report have in common; each is empty where it has nothing.

    Args:
        words: in whose language they speak.
        exact: for the report: exact numbers, and nothing folded away.
        folder: of the page's own templates.
    """

    def __init__(self, words: Words, exact: bool = False, folder: Path | None = None):
        self.words = words
        self.render = Templates(words, exact, folder)
        self.t, self.figures = self.render.t, self.render.figures

    def advice(self, found: Advice | None, standings: Sequence[Standing], stopped: bool = False) -> Markup:
        """Return the recommendation with its reasons and what the limits left out.

        Args:
            standings: of all methods.
            stopped: whether to say that the comparison was stopped early.
        """
        if found is None:
            return Markup()
        families = {standing.method: standing.family for standing in standings}
        tone, sign = ("worse", "⊘") if found.method is None else ("better", "★")
        if found.method and families.get(found.method) == "baseline":
            tone, sign = "baseline", SIGNS["baseline"]
        return self.render(
            "advice.html", tone=tone, sign=sign, notes=found.notes, excluded=found.excluded, stopped=stopped
        )

    def standings(self, ranking: Ranking, within: Sequence[Standing], chosen: str | None) -> Markup:
        """Return methods by group, first those within the limits; the others are faded and have no group.

        Args:
            ranking: all methods.
            within: those within the limits, grouped among themselves.
            chosen: the recommended one.
        """
        by_number: dict[int, list[Standing]] = {}
        for standing in within:
            by_number.setdefault(standing.group, []).append(standing)
        groups = [
            (self.t("compare.group_close" if len(found) > 1 else "compare.group", number=number), False, found)
            for number, found in by_number.items()
        ]
        inside = {standing.method for standing in within}
        beyond = [standing for standing in ranking.standings if standing.method not in inside]
        groups += [(self.t("compare.beyond"), True, beyond)] if beyond else []
        columns = columns_of(ranking.standings)
        return self.render("standings.html", ranking=ranking, columns=columns, groups=groups, chosen=chosen)

    def failed(self, rows: Sequence[Row]) -> Markup:
        """Return methods that did not run, each with its reason."""
        reasons = dict.fromkeys((row.method, self.render.note(row.error)) for row in rows if row.error is not None)
        return self.render("failed.html", reasons=list(reasons)) if reasons else Markup()

    def forgetting(self, found: Sequence[Forgetting]) -> Markup:
        """Return accuracy on labels that were not tuned on, the least loss first."""
        if not found:
            return Markup()
        accuracy = self.figures.interval if self.figures.exact else lambda share: self.figures.percent(share.value)
        return self.render("forgetting.html", found=sorted(found, key=lambda d: d.loss), accuracy=accuracy)

    def calibration(self, found: Mapping[str, Calibration]) -> Markup:
        """Return the calibration of every method, the best calibrated first."""
        best_first = sorted(found.items(), key=lambda item: item[1].ece)
        return self.render("calibration.html", found=best_first) if found else Markup()
