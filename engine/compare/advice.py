"""Which method to take, in words with reasons. Limits only choose anew among what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log10
from typing import Any

from engine.compare.expected import expected_gains
from engine.compare.ranking import Ranking, Standing
from engine.compare.resample import Difference
from engine.errors import Note, messages
from engine.metrics.statistics import LEVEL
from engine.types import BASELINE
from engine.units import MB

SECOND = 1.0
"""Seconds below which time is no reason."""
TENFOLD = 0.01
"""Accuracy that ten times the time must bring, a share."""
ENOUGH = 0.02
"""Likely gain over zero-shot, a share, that tuning is not worth: below it zero-shot is enough."""

messages(
    advice_take="Take {method}: {accuracy:.1f} % right on {tested} test images (training images a label: {shots}, "
    "draws: {draws}), {points:+.1f} points against zero-shot ({low:+.1f} to {high:+.1f}).",
    advice_likely="Take {method}, likely better than zero-shot: {accuracy:.1f} % right on {tested} test images "
    "(training images a label: {shots}, draws: {draws}), {points:+.1f} points ({low:+.1f} to {high:+.1f}). These "
    "images do not prove it: more test images would.",
    advice_cannot_tell="Whether tuning helps cannot be told from these {tested} test images (training images a label: "
    "{shots}, draws: {draws}): stay with zero-shot until more of them show it.",
    advice_alone="No other method that was compared comes close to it: the differences are beyond chance.",
    advice_alone_within="No other method within your limits comes close to it: the differences are beyond chance.",
    advice_tied="It cannot be told apart from {methods}: too close to call on these images.",
    advice_tied_within="Within your limits it cannot be told apart from {methods}: too close to call on these images.",
    advice_cheaper="{best} is {points:.1f} points above {method} on these images, of which {lasting:.1f} are likely to "
    "last, and takes {best_seconds:.1f} s against {seconds:.1f} s: take {method}.",
    advice_worth="It is likely {lasting:.1f} points better than {method} and takes {more:.1f} s longer.",
    advice_zero_shot="Zero-shot is enough: on these {tested} test images (training images a label: {shots}, draws: "
    "{draws}) no method that was compared is better than it beyond chance, nor likely by {enough:.0f} points.",
    advice_highest="The highest figure, that of {method}, is {points:+.1f} points against zero-shot ({low:+.1f} to "
    "{high:+.1f}).",
    advice_nothing_fits="No method fits your limits. {method} comes nearest.",
    advice_over_memory="{method} needs {need:.0f} MB of memory; your limit is {limit:.0f} MB.",
    advice_unknown_memory="How much memory {method} needs is unknown, so it cannot be held against your limit.",
    advice_memory_unknown="How much memory {methods} needs is unknown: a training step cannot be followed on tensors "
    "that have sizes and no values.",
    advice_over_seconds="{method} takes {need:.1f} s; your limit is {limit:.1f} s.",
    advice_over_parameters="{method} trains {need:,} parameters; your limit is {limit:,}.",
    advice_over_file="{method} makes a file of {need:.2f} MB; your limit is {limit:.2f} MB.",
    advice_over_loss="{method} loses {need:.1f} points on labels that it was not tuned on; your limit is {limit:.1f}.",
    advice_beyond="Beyond your limits {method} is {points:.1f} points better ({low:+.1f} to {high:+.1f}).",
    advice_more_photos="Doubling the photos ({shots} to {more} a label) should add about {points:.1f} points to "
    "{method} ({low:+.1f} to {high:+.1f}), more than any other method that was compared: collect photos.",
    advice_other_method="{other} adds {gain:.1f} points to what {method} reaches; doubling the photos ({shots} to "
    "{more} a label) about {points:+.1f} ({low:+.1f} to {high:+.1f}): the method pays more than photos.",
    advice_flat="Doubling the photos ({shots} to {more} a label) is not sure to help {method}: {points:+.1f} points "
    "({low:+.1f} to {high:+.1f}). Neither does another method stand out.",
    advice_no_curve="To learn whether more photos would help, compare two numbers of shots or more.",
)


@dataclass(frozen=True)
class Constraints:
    """Limits of what may be chosen; None where there is none."""

    memory_bytes: int | None = None
    seconds: float | None = None
    """Of a run on features that are there already."""
    parameters: int | None = None
    adapter_bytes: int | None = None
    loss: float | None = None
    """Most accuracy that may be lost on labels that were not tuned on, a share; only where that was measured."""

    def broken_by(self, standing: Standing) -> Iterator[tuple[float, Note]]:
        """(times the limit, sentence) of each limit that a method breaks, or may break for all that is known."""
        if self.memory_bytes is not None and standing.memory_bytes is None:
            yield inf, Note("advice_unknown_memory", (("method", standing.title),))
        checks = (
            ("memory", standing.memory_bytes, self.memory_bytes, 1 / MB),
            ("seconds", standing.seconds, self.seconds, 1),
            ("parameters", standing.parameters, self.parameters, 1),
            ("file", standing.adapter_bytes, self.adapter_bytes, 1 / MB),
            ("loss", standing.loss, self.loss, 100),
        )
        for name, need, limit, unit in checks:
            if need is not None and limit is not None and need > limit:
                values = (("method", standing.title), ("need", need * unit), ("limit", limit * unit))
                yield need / max(limit, 1e-9), Note(f"advice_over_{name}", values)


@dataclass(frozen=True)
class Advice:
    """What to take, and why."""

    method: str | None
    """None where nothing fits the limits."""
    best: str | None
    """The most accurate method within the limits."""
    ranking: Ranking
    """Those within the limits, grouped anew."""
    notes: tuple[Note, ...]
    """Sentences, the most important first."""
    excluded: tuple[tuple[str, Note], ...]
    """(method, which limit it breaks most)."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes in English."""
        return tuple(map(str, self.notes))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        reasons = [note.to_json() for note in self.notes]
        excluded = [{"method": method, **note.to_json()} for method, note in self.excluded]
        return {"method": self.method, "best": self.best, "reasons": reasons, "excluded": excluded}


NO_LIMITS = Constraints()


def advise(ranking: Ranking, constraints: Constraints = NO_LIMITS) -> Advice:
    """Return the method with the least expected regret within some limits, and the reasons.

    What it is likely to reach is what :func:`engine.compare.expected.expected_gains` says, ``TENFOLD`` less for every
    tenfold of its time (below ``SECOND`` all times are equal). Zero-shot stays where no gain of ``ENOUGH`` is likely.
    """
    broken = {s.method: sorted(constraints.broken_by(s), key=lambda b: -b[0]) for s in ranking.standings}
    within = ranking.within(method for method, limits in broken.items() if not limits)
    excluded = tuple((method, limits[0][1]) for method, limits in broken.items() if limits)
    if not within.standings:
        nearest = min(ranking.standings, key=lambda s: broken[s.method][0][0])
        notes = [Note("advice_nothing_fits", (("method", nearest.title),)), *(n for _, n in broken[nearest.method])]
        notes += unknown(ranking)
        return Advice(None, None, within, tuple(notes), excluded)
    best = within.standings[0]
    chosen = recommend(within)
    notes = [*reasons(chosen, within, bool(excluded)), *beyond(chosen, ranking, constraints)]
    tuned = [standing for standing in within.standings if not is_zero_shot(standing)]
    if tuned:
        notes.append(photos_or_method(tuned[0] if is_zero_shot(chosen) else chosen, ranking))
    notes += unknown(ranking)
    return Advice(chosen.method, best.method, within, tuple(notes), excluded)


def is_zero_shot(standing: Standing) -> bool:
    """Return whether nothing was tuned."""
    return standing.family == "baseline"


def recommend(within: Ranking) -> Standing:
    """Return the method with the least expected regret; zero-shot where no gain over it is likely.

    Its regret is what the likeliest best is expected to have over it, and ``TENFOLD`` for every tenfold of its time.
    """
    gains = expected_gains(within)
    baselines = sorted(filter(is_zero_shot, within.standings), key=lambda s: s.method != BASELINE)
    tuned = [standing for standing in within.standings if not is_zero_shot(standing)]
    candidates = [s for s in tuned if not baselines or s.word == "better" or gains[s.method] >= ENOUGH]
    if not candidates:
        return baselines[0]
    return max(candidates, key=lambda s: (round(gains[s.method] - price(s), 9), -s.parameters, -s.usual_seconds))


def price(standing: Standing) -> float:
    """Return the accuracy that a method must bring for its time, a share."""
    return TENFOLD * log10(max(standing.usual_seconds, SECOND))


def reasons(chosen: Standing, within: Ranking, limited: bool) -> Iterator[Note]:
    """Why a method is chosen; ``limited`` says whether limits left others out."""
    best = within.standings[0]
    where = (("tested", within.tested), ("shots", within.shots), ("draws", len(within.seeds)))
    if is_zero_shot(chosen):
        if any(s.over_zero_shot.high > ENOUGH for s in within.standings if not is_zero_shot(s)):
            yield Note("advice_cannot_tell", where)
        else:
            yield Note("advice_zero_shot", (*where, ("enough", 100 * ENOUGH)))
        if not is_zero_shot(best):
            yield Note("advice_highest", (("method", best.title), *points(best.over_zero_shot)))
        return
    right = (("method", chosen.title), ("accuracy", 100 * chosen.accuracy.value), *where)
    key = "advice_take" if chosen.word != "close" else "advice_likely"
    yield Note(key, (*right, *points(chosen.over_zero_shot)))
    yield from trade(chosen, within)
    others = tuple(s.title for s in within.standings if s.group == chosen.group and s.method != chosen.method)
    ending = "_within" if limited else ""
    if others:
        yield Note(f"advice_tied{ending}", (("methods", others),))
    elif chosen is best:
        yield Note(f"advice_alone{ending}")


def trade(chosen: Standing, within: Ranking) -> Iterator[Note]:
    """What is given up for a shorter time, or what a longer time buys."""
    best, gains = within.standings[0], expected_gains(within)
    if best.method != chosen.method and best.usual_seconds > max(chosen.usual_seconds, SECOND):
        gap = within.pairs[best.method, chosen.method]
        likely = max(0.0, gains[best.method] - gains[chosen.method])
        yield Note(
            "advice_cheaper",
            (
                ("best", best.title),
                ("points", 100 * gap.value),
                ("lasting", 100 * likely),
                ("method", chosen.title),
                ("best_seconds", best.usual_seconds),
                ("seconds", chosen.usual_seconds),
            ),
        )
        return
    quicker = [
        s for s in within.standings if not is_zero_shot(s) and 2 * max(s.usual_seconds, SECOND) < chosen.usual_seconds
    ]
    if quicker:
        other = max(quicker, key=lambda s: gains[s.method] - price(s))
        likely = gains[chosen.method] - gains[other.method]
        more = chosen.usual_seconds - other.usual_seconds
        yield Note("advice_worth", (("lasting", 100 * likely), ("method", other.title), ("more", more)))


def beyond(chosen: Standing, ranking: Ranking, constraints: Constraints) -> Iterator[Note]:
    """What the limits cost, where the most accurate method breaks them and is better beyond chance."""
    first = most_accurate(ranking)
    broken = sorted(constraints.broken_by(first), key=lambda limit: -limit[0])
    if broken:
        gap = ranking.pairs[first.method, chosen.method]
        if gap.p <= LEVEL:
            yield Note("advice_beyond", (("method", first.title), *points(gap)))
            yield broken[0][1]


def unknown(ranking: Ranking) -> Iterator[Note]:
    """Whose memory is unknown, where there are such methods."""
    if methods := tuple(standing.title for standing in ranking.standings if standing.memory_bytes is None):
        yield Note("advice_memory_unknown", (("methods", methods),))


def most_accurate(ranking: Ranking) -> Standing:
    """Return the method with the highest figure."""
    return max(ranking.standings, key=lambda standing: standing.accuracy.value)


def photos_or_method(subject: Standing, ranking: Ranking) -> Note:
    """Return whether twice the photos or the best other method would add more to what a method reaches.

    Photos count only where the interval of their gain is above zero, a method only where it is better beyond chance.
    """
    curve, other = ranking.curve(subject.method), most_accurate(ranking)
    if curve is None or curve.doubling is None:
        return Note("advice_no_curve")
    gap = ranking.pairs.get((other.method, subject.method))
    gain = gap.value if gap and gap.p <= LEVEL else 0.0
    photos = curve.doubling.value if curve.doubling.low > 0 else 0.0
    shots = curve.shots[-1]
    values = (("method", subject.title), ("shots", shots), ("more", 2 * shots), *points(curve.doubling))
    if photos > gain:
        return Note("advice_more_photos", values)
    if gain > 0:
        return Note("advice_other_method", (*values, ("other", other.title), ("gain", 100 * gain)))
    return Note("advice_flat", values)


def points(difference: Difference) -> tuple[tuple[str, float], ...]:
    """Return a difference and its interval in points."""
    return ("points", 100 * difference.value), ("low", 100 * difference.low), ("high", 100 * difference.high)
