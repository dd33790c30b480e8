"""Many runs on one task: what is run, where, what it says, and what to do then."""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

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


class _Callable(ModuleType):
    """This package, which is also the function of its name at the front door: ``from engine import compare`` can only
    be one of the two. The function is found by name, as it stands above this package."""

    def __call__(self, *arguments: Any, **options: Any) -> Comparison:
        """Run many methods on one task; see ``engine.front_door.compare``."""
        return importlib.import_module("engine.front_door").compare(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(importlib.import_module("engine.front_door").compare)


sys.modules[__name__].__class__ = _Callable
