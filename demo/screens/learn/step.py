"""What happens between ``loss.backward()`` and a new weight, on one number, as HTML. Pure functions without gradio.

The model says ``w * GIVEN`` and should say ``WANTED``; the loss is the squared difference. Every number shown is
computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Translate = Callable[..., str]

GIVEN, WANTED, FIRST = 2.0, 3.0, 0.5
GOOD, HIGH = 0.05, 0.27
"""Two learning rates: one that arrives, and one that jumps over the valley, farther each time."""
STEPS = 3
WIDTH, HEIGHT, EDGE = 400, 210, 26
"""Units of the picture."""
LOW, TOP = -0.9, 14.0
"""Smallest weight and largest loss of the picture."""
FAR = 2 * WANTED / GIVEN - LOW
"""Largest weight of the picture, as far from the best as the smallest."""


@dataclass(frozen=True)
class Step:
    """A weight and what is known of it."""

    weight: float
    said: float
    loss: float
    gradient: float


def descent(rate: float, steps: int = STEPS) -> list[Step]:
    """Return the first weight and those after each step of gradient descent at a learning rate."""
    found, weight = [], FIRST
    for _ in range(steps + 1):
        said = weight * GIVEN
        gradient = 2 * (said - WANTED) * GIVEN
        found.append(Step(weight, said, (said - WANTED) ** 2, gradient))
        weight -= rate * gradient
    return found


def lesson(t: Translate) -> str:
    """Return the section: what the calls do, the picture, and its numbers."""
    points = "".join(f"<li>{t(f'step.{name}')}</li>" for name in ("forward", "backward", "step", "memory"))
    good = descent(GOOD)
    rows = "".join(
        f'<tr><th scope="row">{k}</th><td>{one.weight:.2f}</td><td>{one.said:.2f}</td><td>{one.loss:.2f}</td>'
        f"<td>{_signed(one.gradient, '+.1f')}</td></tr>"
        for k, one in enumerate(good)
    )
    head = "".join(f'<th scope="col">{t(f"step.column.{name}")}</th>' for name in ("k", "w", "says", "loss", "grad"))
    slope = _signed(good[0].gradient, "g")
    worked = t("step.worked", weight=good[0].weight, rate=GOOD, grad=slope, new=good[1].weight)
    return (
        f'<section class="ctl-gradient"><h2>{t("step.title")}</h2>'
        f'<article class="ctl-lesson"><div><ol>{points}</ol></div>'
        f'<figure class="ctl-figure"><figcaption>{t("step.picture", given=GIVEN, wanted=WANTED)}</figcaption>'
        f'{picture(t)}<table class="ctl-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'<p class="ctl-detail">{worked}</p></figure></article></section>'
    )


def _signed(value: float, form: str) -> str:
    """A number with a minus sign, not a hyphen."""
    return f"{value:{form}}".replace("-", "−")


def picture(t: Translate) -> str:
    """Return the valley of the loss with the steps of both learning rates."""
    weights = [LOW + (FAR - LOW) * k / 80 for k in range(81)]
    valley = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_at(w, (w * GIVEN - WANTED) ** 2) for w in weights) if y >= 0)
    ways = _way(descent(HIGH, 2), "high") + _way(descent(GOOD), "good")
    axis = HEIGHT - EDGE
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{t("step.alt", good=GOOD, high=HIGH)}">'
        f'<line class="ctl-axis" x1="0" y1="{axis}" x2="{WIDTH}" y2="{axis}"/>'
        f'<polyline class="ctl-valley" points="{valley}"/>{ways}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{t("step.axis")}</text>'
        f'<text x="4" y="14">{t("step.loss")}</text></svg>'
        f'<ul class="ctl-legend"><li><span class="ctl-good-way" aria-hidden="true">●</span>'
        f'{t("step.good", rate=GOOD)}</li><li><span class="ctl-high-way" aria-hidden="true">■</span>'
        f"{t('step.high', rate=HIGH)}</li></ul>"
    )


def _at(weight: float, loss: float) -> tuple[float, float]:
    """Where a weight and its loss stand in the picture."""
    return WIDTH * (weight - LOW) / (FAR - LOW), (HEIGHT - EDGE) * (1 - loss / TOP)


def _way(steps: Sequence[Step], name: str) -> str:
    """The steps as points joined by a line; each learning rate has a shape of its own."""
    places = [_at(one.weight, one.loss) for one in steps]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    shape = (
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        if name == "good"
        else '<rect x="{left:.1f}" y="{top:.1f}" width="9" height="9"/>'
    )
    marks = "".join(shape.format(x=x, y=y, left=x - 4.5, top=y - 4.5) for x, y in places)
    return f'<g class="ctl-{name}-way"><polyline points="{line}"/>{marks}</g>'
