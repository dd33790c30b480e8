"""The columns of Compare's table, in their order, for the page and the report.

A new one is a line in :data:`COLUMNS`; other languages have its heading as ``compare.KEY``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from engine.metrics.training import SETTLED
from engine.report.figures import NOTHING, SIGNS, Figures

if TYPE_CHECKING:
    from engine.compare import Standing


@dataclass(frozen=True)
class Column:
    """A column."""

    key: str
    heading: str
    """In English; every language says it by the key ``compare.KEY``."""
    cell: Callable[[Standing, Figures], str]
    """A method's cell: plain text, which is escaped, or Markup."""
    where: Callable[[Sequence[Standing]], bool] = lambda standings: True
    """Whether there is anything to show for these methods."""
    pointed: bool = False
    """Whether the pointer shows it on a method's dot in the plot too."""


def _method(standing: Standing, figures: Figures) -> Markup:
    family = figures.words(f"family.{standing.family}")
    name = figures.words.name(standing.method)
    return Markup('{}<br> <span class="ctl-small">{}</span>').format(name, family)


def _over(standing: Standing, figures: Figures) -> str:
    if standing.word == "baseline":
        return ""
    word, points = figures.words(f"verdict.{standing.word}"), figures.points(standing.over_zero_shot.value)
    template = Markup('<span title="{0}" aria-label="{0} {2}">{1} {2}</span>')
    return template.format(word, SIGNS[standing.word], points)


def _loss(standing: Standing, figures: Figures) -> str:
    return NOTHING if standing.loss is None else figures.points(-standing.loss)


def _training(standing: Standing, figures: Figures) -> str:
    return figures.words(f"training.{standing.training}") if standing.training else NOTHING


def _any_unsettled(standings: Sequence[Standing]) -> bool:
    return any(standing.training not in ("", SETTLED) for standing in standings)


def _any_loss(standings: Sequence[Standing]) -> bool:
    return any(standing.loss is not None for standing in standings)


COLUMNS = (
    Column("method", "Method", _method),
    Column("accuracy", "Accuracy", lambda s, figures: figures.interval(s.accuracy)),
    Column("over", "Against zero-shot", _over, pointed=True),
    Column("parameters", "Trained parameters", lambda s, figures: figures.count(s.parameters), pointed=True),
    Column("memory", "Memory", lambda s, figures: figures.size(s.memory_bytes), pointed=True),
    Column("seconds", "Time", lambda s, figures: figures.time(s.seconds), pointed=True),
    Column("file", "File", lambda s, figures: figures.size(s.adapter_bytes), pointed=True),
    Column("training", "Training", _training, where=_any_unsettled, pointed=True),
    Column("loss", "Other labels", _loss, where=_any_loss),
)


def columns_of(standings: Sequence[Standing]) -> list[Column]:
    """Return the columns that have something to show."""
    return [column for column in COLUMNS if column.where(standings)]


def pointed_at(standing: Standing, figures: Figures) -> tuple[tuple[str, str], ...]:
    """Return what the pointer shows of a method in a plot: headings and cells as plain text."""
    return tuple(
        (figures.words(f"compare.{column.key}"), Markup(column.cell(standing, figures)).striptags())
        for column in COLUMNS
        if column.pointed
    )
