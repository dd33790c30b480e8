"""What methods are likely to reach on other images: measured figures drawn towards what tuning usually brings.

A normal prior meets a normal likelihood, on two levels: what tuning with any method brings here, and how far a method
stands from the others. A few test images hardly move it, many replace it. The numbers of the prior come from 90 tasks
of 3 to 10 labels that were drawn from six sets of images (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.compare.ranking import Ranking, Standing
from engine.compare.resample import Difference
from engine.types import BASELINE

USUAL, SPREAD = 0.1, 0.3
"""Share of zero-shot's errors that tuning takes away, and its standard deviation from task to task."""
LEAST_SPREAD = 0.01
"""Standard deviation where zero-shot makes no errors; a share of images."""
METHOD_SPREAD = 0.03
"""Standard deviation of a method's accuracy around the mean of the methods; a share of images."""
Z = 1.96
"""Half the width of a 95 % interval in standard errors."""


def expected_gains(ranking: Ranking) -> dict[str, float]:
    """Return what each method is likely to gain over prompt-ensembled zero-shot on other images, a share.

    Baselines gain 0. Where zero-shot was not run, gains are against the mean of the methods.
    """
    tuned = [standing for standing in ranking.standings if standing.family != "baseline"]
    found = {standing.method: 0.0 for standing in ranking.standings}
    if not tuned:
        return found
    floor = 1 / (ranking.tested + 2)
    common = common_gain(ranking, tuned, floor)
    centre = mean(standing.accuracy.value for standing in tuned)
    for standing in tuned:
        others = [ranking.pairs[standing.method, s.method] for s in tuned if s is not standing]
        noise = mean(error(pair, floor) for pair in others) / 2**0.5 if others else 0.0
        trust = METHOD_SPREAD**2 / (METHOD_SPREAD**2 + noise**2)
        found[standing.method] = common + trust * (standing.accuracy.value - centre)
    return found


def common_gain(ranking: Ranking, tuned: list[Standing], floor: float) -> float:
    """Return what tuning is likely to bring here, whatever the method: a share; 0 where zero-shot was not run."""
    zero_shot = ranking.standing(BASELINE)
    if zero_shot is None:
        return 0.0
    right = zero_shot.accuracy.value * ranking.tested
    errors = 1 - (right + 1) / (ranking.tested + 2)  # Laplace's rule: never quite none
    spread = SPREAD * errors + LEAST_SPREAD
    pairs = [ranking.pairs[standing.method, BASELINE] for standing in tuned]
    noise = mean(error(pair, floor) for pair in pairs)
    seen, usual = mean(pair.value for pair in pairs), USUAL * errors
    return (usual / spread**2 + seen / noise**2) / (1 / spread**2 + 1 / noise**2)


def error(difference: Difference, floor: float) -> float:
    """Return a difference's standard error, at least ``floor``: equal on a few images is not equal for certain."""
    return max(floor, (difference.high - difference.low) / (2 * Z))


def mean(values: Iterable[float]) -> float:
    """Return the mean of some numbers; at least one."""
    found = list(values)
    return sum(found) / len(found)
