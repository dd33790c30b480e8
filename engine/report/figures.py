"""Numbers for people: short ones for the page, exact ones for the report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from engine.units import bytes_text

if TYPE_CHECKING:
    from engine.report.language import Words
    from engine.types import Interval

NOTHING = "—"
SIGNS = {"better": "▲", "worse": "▼", "close": "≈", "baseline": "●"}
"""Of a verdict: shapes that differ without their colour."""


def count_text(number: float, t: Callable[..., str]) -> str:
    """``49,152``, ``4.9 M`` or ``1.2 B``."""
    if number < 1e6:
        return f"{number:,.0f}"
    key, value = ("number.million", number / 1e6) if number < 999.5e6 else ("number.billion", number / 1e9)
    return t(key, value=f"{value:.0f}" if value >= 99.5 else f"{value:.1f}")


def time_text(seconds: float, t: Callable[..., str]) -> str:
    """``<0.1 s``, ``0.4 s``, ``12 s``, ``1 min 20 s``, ``2 h 5 min``; plain text."""
    if seconds < 59.5:
        value = f"{seconds:.1f}" if seconds < 9.95 else f"{seconds:.0f}"
        return t("number.seconds", value="<0.1" if 0 < seconds < 0.05 else value)
    if seconds < 3570:
        minutes, rest = divmod(round(seconds), 60)
        return t("number.minutes", minutes=minutes, seconds=rest)
    hours, rest = divmod(round(seconds / 60), 60)
    return t("number.hours", hours=hours, minutes=rest)


@dataclass(frozen=True)
class Figures:
    """How a table's numbers are written. Text is plain; what holds tags is Markup."""

    words: Words
    exact: bool = False
    """Whether with decimals and every digit, as a file has room for."""

    def percent(self, share: float) -> str:
        """``84 %`` of a share from 0 to 1, or ``84.1 %``."""
        if not math.isfinite(share):
            return NOTHING
        return self.words("number.percent", value=f"{100 * share:.{int(self.exact)}f}")

    def interval(self, share: Interval) -> Markup:
        """``84 % 79-88`` with the 95 % interval in small print."""
        if not math.isfinite(share.value):
            return Markup(NOTHING)
        template = '<b>{}</b> <span class="ctl-small">({:.1f}–{:.1f})</span>'
        if not self.exact:
            template = '<b>{}</b> <span class="ctl-small">{:.0f}–{:.0f}</span>'
        return Markup(template).format(self.percent(share.value), 100 * share.low, 100 * share.high)

    def points(self, share: float) -> str:
        """Percentage points with their sign."""
        text = f"{100 * share:+.1f}"
        return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")

    def count(self, number: float) -> str:
        """``4.9 M`` or ``4,915,200``."""
        return f"{number:,}" if self.exact else count_text(number, self.words)

    def time(self, seconds: float) -> str:
        """``1 min 20 s`` or ``80.3 s``."""
        if self.exact:
            return self.words("number.seconds", value=f"{seconds:.1f}")
        return time_text(seconds, self.words)

    def size(self, size: float | None) -> str:
        """``224 MB``; None is not known."""
        return self.words("number.unknown") if size is None else bytes_text(size)

    def verdict(self, word: str) -> str:
        """``▲ better``."""
        return f"{SIGNS[word]} {self.words(f'verdict.{word}')}"
