"""The Compare screen's pieces as HTML strings. Pure functions without gradio; everything a user typed is escaped.

What the report shows too comes from :func:`shared`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from demo import html
from demo.html import Translate, time_text
from demo.words import Translator
from engine.report.pieces import Pieces

if TYPE_CHECKING:
    from engine.compare import Row
    from engine.errors import Note

TEMPLATES = Path(__file__).resolve().parent / "templates"


def shared(t: Translator) -> Pieces:
    """Return the parts of a comparison as the report has them too, in the visitor's language."""
    return Pieces(t, folder=TEMPLATES)


def hint(text: str) -> str:
    """Return a sentence beside a control; ``text`` is HTML."""
    return f'<p class="ctl-hint" role="status">{text}</p>' if text else ""


def outlook(runs: int, reused: int, seconds: float, complete: bool, t: Translate) -> str:
    """Return what a comparison would take, before it is started."""
    known = t("compare.reused", count=reused) if reused else ""
    if not runs:
        return hint(f"{t('compare.nothing_left')} {known}")
    if not complete:
        return hint(f"{t('compare.reckoning', runs=runs)} {known}")
    return hint(f"{t('compare.outlook', runs=runs, time=time_text(seconds, t))} {known}")


def progress(done: int, total: int, what: str, seconds_left: float | None, t: Translator) -> str:
    """Return how far a comparison has come. ``what`` is plain text."""
    say, share = shared(t).t, min(1.0, done / total) if total else 0.0
    words: list[str] = [say("compare.done_of", done=done, total=total)] if total else []
    words += [what] if what else []
    words += [say("compare.left", time=shared(t).figures.time(seconds_left))] if seconds_left else []
    return html.bar(share, Markup(" · ").join(words))


@dataclass(frozen=True)
class Line:
    """What is there of a method while a comparison runs: means over its finished runs at the most shots."""

    method: str
    accuracy: float
    shots: int
    runs: int
    parameters: int
    seconds: float


def arriving(rows: Sequence[Row], t: Translator) -> str:
    """Return methods with what is there of them, the most accurate first."""
    done = [row for row in rows if row.result]
    if not done:
        return ""
    largest: dict[str, int] = {}
    for row in done:
        largest[row.method] = max(largest.get(row.method, 0), row.shots or 0)
    lines = []
    for method, shots in largest.items():
        found = [row.result for row in done if row.method == method and row.shots == shots and row.result]
        lines.append(
            Line(
                method,
                accuracy=sum(result.accuracy["tuned"] for result in found) / len(found),
                shots=shots,
                runs=sum(row.method == method for row in done),
                parameters=found[0].cost.trainable_parameters,
                seconds=sum(sum(result.cost.seconds.values()) for result in found) / len(found),
            )
        )
    return str(shared(t).render("arriving.html", lines=sorted(lines, key=lambda line: -line.accuracy)))


def searched(said: str, notes: Sequence[Note], t: Translator) -> str:
    """Return what came of a search for wrong labels, and what it could have found."""
    say = shared(t).render.note
    return hint(Markup(" ").join(part for part in (Markup(said), *map(say, notes)) if part))


def suspect(
    picture: str, file: str, given: str, suggested: str, chance: float, left: int, judges: Sequence[str], t: Translator
) -> str:
    """Return an image whose label may be wrong, with what the methods say.

    Args:
        picture: data URI of a thumbnail, empty where there is none.
        chance: probability that the label is wrong, 0 to 1.
        left: suspects that are open, this one included.
    """
    found = shared(t).render(
        "suspect.html",
        picture=picture,
        file=file,
        given=given,
        suggested=suggested,
        chance=chance,
        left=left,
        judges=judges,
    )
    return str(found)
