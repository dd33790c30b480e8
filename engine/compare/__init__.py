"""Many runs on one task: what is run, where, what it says, and what to do then."""

from engine.compare.advice import Advice, Constraints, advise
from engine.compare.executors import Executor, InProcess
from engine.compare.held_back import able, hold_back, with_damage
from engine.compare.plan import Job, Request, choose_methods, make_plan, usable_shots
from engine.compare.ranking import Curve, Ranking, Standing, rank
from engine.compare.resample import Difference
from engine.compare.results import Results, Row
from engine.compare.runs import Comparison, Event, compare

__all__ = [
    "Advice",
    "Comparison",
    "Constraints",
    "Curve",
    "Difference",
    "Event",
    "Executor",
    "InProcess",
    "Job",
    "Ranking",
    "Request",
    "Results",
    "Row",
    "Standing",
    "able",
    "advise",
    "choose_methods",
    "compare",
    "hold_back",
    "make_plan",
    "rank",
    "usable_shots",
    "with_damage",
]
