"""Many runs on one task: what is run, where, what it says, and what to do then."""

from engine.compare.executors import Executor, InProcess
from engine.compare.plan import Job, Request, choose_methods, make_plan, usable_shots
from engine.compare.results import Results, Row
from engine.compare.runs import Comparison, Event, compare

__all__ = [
    "Comparison",
    "Event",
    "Executor",
    "InProcess",
    "Job",
    "Request",
    "Results",
    "Row",
    "choose_methods",
    "compare",
    "make_plan",
    "usable_shots",
]
