"""The record that each method declares about itself, and the list of all of them.

Menu, form, command line, documentation and contract tests are derived from these records.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.errors import BadConfig, Note, any_of, joined, messages

if TYPE_CHECKING:
    from engine.backbones.base import Backbone, Shape
    from engine.tuning.tuner import Config, Tuner

METHODS = "engine.methods"
"""Package with a file a method."""
FAMILIES = ("baseline", "head", "text prompt", "visual prompt", "weights")
PAPER_LINKS = (
    (r"(arXiv) (\d{4}\.\d{4,5})", "https://arxiv.org/abs/"),
    (r"(OpenReview) (\w+)", "https://openreview.net/forum?id="),
)
"""Where a paper's id leads: pattern of site and id, and what stands before the id in the address."""


@dataclass(frozen=True)
class Recomputed:
    """What each training step of a method runs anew; all else is computed once."""

    code: str
    """Key in ``MethodSpec.runs_on``."""
    sentence: str
    towers: tuple[str, ...] = ()
    """Towers that a step runs, ``vision`` and ``text``; none where it runs on features alone."""
    steps: bool = True
    """Whether there are training steps."""

    @property
    def tier(self) -> int:
        """How dear a step is, cheap first: 0 nothing, 1 features, 2 the text tower, 3 the image tower."""
        return 3 if "vision" in self.towers else 2 if self.towers else int(self.steps)


VISION, TEXT, BOTH = ("vision",), ("text",), ("vision", "text")
_STEPS = (
    Recomputed("-", "nothing: there are no training steps", steps=False),
    Recomputed("features", "only a head on features: both towers run once for all steps"),
    Recomputed("text", "the text tower; image features are computed once", TEXT),
    Recomputed("image@0", "the image tower from its first block on; text features are computed once", VISION),
    Recomputed("image@k", "the image tower from the first changed block on; all else is computed once", VISION),
    Recomputed("both@0", "both towers from their first layer on", BOTH),
    Recomputed("both@k", "both towers from the first changed block on; all before it is computed once", BOTH),
)
RECOMPUTED: Mapping[str, Recomputed] = MappingProxyType({step.code: step for step in _STEPS})
"""Code -> what the methods that name it in ``runs_on`` run in each step."""

messages(
    unknown_method="There is no method {method!r}. Choose one of: {known}.",
    unknown_preset="{method} has no preset {preset!r}. Choose one of: {known}.",
    unknown_setting="{method} has no setting {name!r}. Its settings are: {known}.",
    bad_setting="{method}: {name} = {value!r} is not allowed; it must be {allowed}.",
    method_needs="{method} cannot run on {backbone}: it needs {needed}, which this backbone does not have. Choose "
    "another backbone or another method.",
    allowed_between="between {low:g} and {high:g}",
    allowed_at_least="at least {low:g}",
    allowed_one_of="one of {choices}",
    allowed_whole="a whole number",
    allowed_number="a number",
    allowed_bool="true or false",
    allowed_text="text",
    setting_conflict="{method}: {first} and {second} contradict each other: {reason}.",
)


@dataclass(frozen=True)
class MethodSpec:
    """One tuning method."""

    id: str
    name: str
    """Name on screen, as the field writes it."""
    family: str
    """One of ``FAMILIES``."""
    sentence: str
    """What it does, for a newcomer."""
    use_when: str
    """When it is worth trying, in a sentence or two."""
    equation: str
    """Its maths in one line: f image features, W text features of the labels, s the logit scale; of weight methods
    W is a layer's frozen weight and x its input."""
    paper: str
    """Authors, year, id on one of the sites of ``PAPER_LINKS``."""
    config: type[Config]
    tuner: Callable[[], type[Tuner]]
    """Returns the class; called only when a run starts, so that listing methods is cheap."""
    count: Callable[[Shape, Any, int, int], int]
    """Trained parameters from (backbone shape, config, classes K, support images N)."""
    formula: str
    """The count in symbols."""
    runs_on: str
    """What each step runs, a key of ``RECOMPUTED``."""
    failures: tuple[str, ...]
    """Known ways to disappoint."""
    saved: str
    """What the adapter file holds."""
    starts_at: str | None = None
    """Baseline that the untrained method equals exactly: ``zero_shot``, ``zero_shot_ensemble`` or none."""
    needs: frozenset[str] = frozenset()
    """What it needs of a backbone, among ``engine.backbones.base.CAPABILITIES``."""
    presets: Mapping[str, Callable[[int], Config]] = dataclasses.field(default_factory=dict)
    """Preset name -> config for a number of shots. ``budget`` is always there."""
    leading: bool = False
    """Whether it stands first in its family wherever methods are listed; the others follow by id."""
    recommended: bool = False
    """Whether it is one of the few that a newcomer is offered first."""

    @property
    def recomputes(self) -> Recomputed:
        """What each training step runs."""
        return RECOMPUTED[self.runs_on]

    @property
    def title(self) -> Note:
        """Its name inside a sentence."""
        return Note(f"{self.id}.name")

    def configure(self, preset: str = "budget", settings: Mapping[str, Any] | None = None, shots: int = 8) -> Config:
        """Return the preset's config with some fields replaced. Strings are read by each field's type.
        Raises BadConfig for an unknown preset or field and for values out of range."""
        if preset not in self.presets:
            raise BadConfig("unknown_preset", method=self.id, preset=preset, known=", ".join(self.presets))
        config = self.presets[preset](shots)
        fields = {f.name: f for f in dataclasses.fields(config)}
        changes = {}
        for name, value in (settings or {}).items():
            if name not in fields:
                raise BadConfig("unknown_setting", method=self.id, name=name, known=any_of(fields))
            changes[name] = parse_value(self.id, fields[name], value)
        config = dataclasses.replace(config, **changes)
        config.check()
        return config


def parse_value(method: str, field: dataclasses.Field, value: Any) -> Any:
    """Return a form's or command line's value as the field's type. Raises BadConfig."""
    kind = str(field.type)
    try:
        if kind == "bool" and isinstance(value, str):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        if kind == "int" and float(value) != int(float(value)):
            raise ValueError
        if kind == "int":
            return int(float(value))
        return float(value) if kind == "float" else bool(value) if kind == "bool" else str(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        allowed = Note(
            {"int": "allowed_whole", "float": "allowed_number", "bool": "allowed_bool"}.get(kind, "allowed_text")
        )
        raise BadConfig("bad_setting", method=method, name=field.name, value=value, allowed=allowed) from error


_METHODS: dict[str, MethodSpec] = {}


def register(spec: MethodSpec) -> MethodSpec:
    """Add a method; refuses a duplicate id, a wrong case, an unknown family, step or need, and missing parts."""
    from engine.backbones.base import CAPABILITIES

    if not re.fullmatch(r"[a-z][a-z0-9_]*", spec.id):
        raise ValueError(f"method id {spec.id!r} must be lower_snake_case")
    if spec.id in _METHODS:
        raise ValueError(f"method {spec.id!r} is registered twice")
    if spec.family not in FAMILIES:
        raise ValueError(f"method {spec.id!r}: family {spec.family!r} is none of {FAMILIES}")
    if spec.runs_on not in RECOMPUTED:
        raise ValueError(f"method {spec.id!r}: runs_on {spec.runs_on!r} is none of {tuple(RECOMPUTED)}")
    if "budget" not in spec.presets:
        raise ValueError(f"method {spec.id!r} has no preset 'budget'")
    if not spec.needs <= set(CAPABILITIES):
        raise ValueError(f"method {spec.id!r} needs something that is none of {CAPABILITIES}")
    for name in ("name", "sentence", "use_when", "equation", "paper", "formula", "saved"):
        if not getattr(spec, name).strip():
            raise ValueError(f"method {spec.id!r}: {name} is empty")
    _METHODS[spec.id] = spec
    messages(**{spec.title.key: spec.name})
    return spec


def get(method: str) -> MethodSpec:
    """Return the method's record. Raises BadConfig with the known names."""
    _load()
    if method not in _METHODS:
        raise BadConfig("unknown_method", method=method, known=", ".join(_METHODS))
    return _METHODS[method]


def obstacle(spec: MethodSpec, backbone: Backbone, config: Config | None = None) -> BadConfig | None:
    """Return why a method (with these settings, or its usual ones) cannot run on a backbone; None where it can.

    It is returned, not raised: its ``key`` and ``values`` let the page grey a method out and say the
    sentence in its language; a run raises it.
    """
    missing = sorted(spec.needs - backbone.offers)
    if missing:
        needed = joined("both", (Note(f"needs.{capability}") for capability in missing))
        return BadConfig("method_needs", method=spec.title, backbone=backbone.id, needed=needed)
    return (config or spec.configure()).obstacle(backbone)


def methods() -> Iterator[MethodSpec]:
    """Every method: family by family, its best known method first, then by id."""
    _load()
    yield from sorted(_METHODS.values(), key=lambda s: (FAMILIES.index(s.family), not s.leading, s.id))


def _load() -> None:
    """Import the package of methods, which register themselves: it is found by name, as it stands above this file."""
    importlib.import_module(METHODS).load_all()
