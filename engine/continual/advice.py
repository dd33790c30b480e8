"""A recommendation in words: which strategy to take when labels come later, and what the others would cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.continual.metrics import interval
from engine.continual.results import Standing, StrategyResult, standings
from engine.errors import Note, messages

OTHERS = 3
"""Strategies that are named beside the recommended one."""
WORTH = 0.01
"""Share by which a strategy must beat zero-shot to be worth its trouble."""

messages(
    **{
        "continual_advice.take": "Take {strategy}: at the end {accuracy:.1f} % are right; it loses {lost:.1f} "
        "points on old labels, takes {seconds:.2f} s and keeps no old photo.",
        "continual_advice.other": "{strategy}: {accuracy:.1f} %, loses {lost:.1f} points, takes {seconds:.2f} s.",
        "continual_advice.joint": "With all old photos at hand ({strategy}) it would be {accuracy:.1f} %: "
        "{gap:.1f} points more are the price of not keeping them.",
        "continual_advice.nothing": "No strategy without old photos beats zero-shot ({accuracy:.1f} %): write down the "
        "new label's name and tune nothing.",
        "continual_advice.close": "Between {first} and {second} these orders of the labels cannot decide.",
        "continual_advice.one_order": "This is one order of the labels. Order matters: ask for three before you rely "
        "on small differences.",
    }
)


def title(strategy: str) -> Note:
    """Return a strategy's name inside a sentence."""
    return Note(f"strategy.{strategy}.name")


def advise(results: Sequence[StrategyResult]) -> list[Note]:
    """Return the recommendation among strategies that keep nothing of old images; empty where none is finished."""
    ranked = standings(results)
    able = [s for s in ranked if s.keeps == "none" and s.strategy != "zero_shot"]
    if not able:
        return []
    best, zero = able[0], next((s for s in ranked if s.strategy == "zero_shot"), None)
    if zero and _accuracy(zero) >= _accuracy(best) - WORTH:
        return [Note.of("continual_advice.nothing", accuracy=100 * _accuracy(zero)), *_orders(results)]
    said = [_sentence("continual_advice.take", best)]
    if len(able) > 1 and _undecided(results, best.strategy, able[1].strategy):
        said.append(Note.of("continual_advice.close", first=title(best.strategy), second=title(able[1].strategy)))
    said += [_sentence("continual_advice.other", standing) for standing in able[1 : 1 + OTHERS]]
    joint = next((s for s in ranked if s.strategy == "joint"), None)
    if joint and _accuracy(joint) > _accuracy(best):
        gap = 100 * (_accuracy(joint) - _accuracy(best))
        said.append(
            Note.of("continual_advice.joint", strategy=title("joint"), accuracy=100 * _accuracy(joint), gap=gap)
        )
    return said + _orders(results)


def _accuracy(standing: Standing) -> float:
    return standing.measures["accuracy"].value


def _sentence(key: str, standing: Standing) -> Note:
    lost = standing.measures["forgetting"].value
    return Note.of(
        key,
        strategy=title(standing.strategy),
        accuracy=100 * _accuracy(standing),
        lost=0.0 if np.isnan(lost) else 100 * lost,
        seconds=standing.seconds,
    )


def _undecided(results: Sequence[StrategyResult], first: str, second: str) -> bool:
    """Return whether the interval of the difference over the orders holds zero."""
    rows = {(r.strategy, r.order): r.measures["accuracy"] for r in results if not r.stopped}
    orders = [order for name, order in rows if name == first and (second, order) in rows]
    if len(orders) < 2:
        return False
    found = interval([rows[first, order] - rows[second, order] for order in orders])
    return found.low <= 0 <= found.high


def _orders(results: Sequence[StrategyResult]) -> list[Note]:
    return [Note("continual_advice.one_order")] if len({r.order for r in results if not r.stopped}) == 1 else []
