"""The record that each strategy declares about itself, and what it must be able to do."""

from __future__ import annotations

import dataclasses
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.backbones.base import Backbone
from engine.errors import BadAdapter, BadConfig, Note, any_of, joined, messages
from engine.tuning.features import FeatureStore
from engine.tuning.registry import parse_value
from engine.tuning.tuner import Config
from engine.types import Label

STRATEGIES = "engine.continual.strategies"
"""Package with a file a strategy or a small family."""
FAMILIES = ("bound", "closed form", "prompts")
CHUNK = 64
"""Images that are encoded at once where accuracy is measured."""
Moment = tuple[int, int, float | None]
"""(steps done, steps in all, loss) of learning."""

messages(
    unknown_strategy="There is no strategy {strategy!r}. Choose one of: {known}.",
    strategy_needs="{strategy} cannot run on {backbone}: it needs {needed}, which this backbone does not have. Choose "
    "another backbone or another strategy.",
    state_tensors="The saved state of {strategy} lacks {name} or holds another shape there. Start again without it.",
)


@dataclass(frozen=True, eq=False)
class StreamContext:
    """What every strategy sees of a stream. ``text`` covers labels of later steps too."""

    backbone: Backbone
    store: FeatureStore
    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    text: Tensor
    """Prompt-ensembled text features ``(K, P)``."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class StepData:
    """What a strategy learns from in one step."""

    classes: tuple[int, ...]
    images: tuple[int, ...]
    """Positions in the store."""
    targets: Tensor
    """Classes ``(N,)`` among all labels of the stream."""


@dataclass(frozen=True, eq=False)
class Origins:
    """What the prompts of a pool began as; all empty where there is none."""

    size: int = 0
    """Prompts in the pool."""
    began_as: tuple[str, ...] = ()
    """Label of the image that each prompt started from; empty text where it started from noise."""
    pictures: tuple[np.ndarray, ...] = ()
    """What the prompts look like now, RGB uint8, where they are pictures."""
    starts: tuple[np.ndarray, ...] = ()
    """What they looked like at the start."""


class Strategy(ABC):
    """A way to learn labels that arrive step by step. It sees each step's images once, in :meth:`learn`."""

    def __init__(self, config: Any, context: StreamContext):
        self.config, self.context = config, context
        self.seen: list[int] = []
        """Classes learned so far, in the order of the columns of :meth:`scores`."""

    @abstractmethod
    def learn(self, step: StepData) -> Iterator[Moment]:
        """Learn a step's labels, yielding (done, all, loss) as it goes."""

    @abstractmethod
    def scores(self, images: Sequence[int]) -> Tensor:
        """Return scores ``(B, seen)`` of images for the labels learned so far; their softmax is a probability."""

    def features(self, images: Sequence[int]) -> Tensor:
        """Return image features ``(B, P)`` as the strategy's own image path gives them."""
        return self.context.store.features(images)

    def choices(self, images: Sequence[int]) -> Tensor | None:
        """Return which prompts of a pool images choose, ``(B, N)`` positions; None where there is no pool."""
        return None

    def origins(self) -> Origins:
        """Return what the prompts of a pool began as and look like."""
        return Origins()

    def text_scores(self, images: Sequence[int]) -> Tensor:
        """Return zero-shot scores ``(B, K)`` of all labels of the stream, through the strategy's own image path."""
        return self.context.backbone.logits(self.features(images), self.context.text)

    def open_probabilities(self, images: Sequence[int]) -> Tensor:
        """Return probabilities ``(B, K)`` of all labels: zero-shot says how likely one is that was never tuned, and
        the rest is shared out as the strategy says."""
        mixed = self.text_scores(images).softmax(1)
        mass = mixed[:, self.seen].sum(1, keepdim=True)
        mixed[:, self.seen] = (mass * self.scores(images).softmax(1)).to(mixed.dtype)
        return mixed

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return everything it keeps between steps."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` returned; :attr:`seen` is set already. Raises BadAdapter."""

    @property
    def trained(self) -> int:
        """Numbers that gradient steps train."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of what is kept between steps."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def taken(self, tensors: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> Tensor:
        """Return a saved tensor of a known shape. Raises BadAdapter."""
        found = tensors.get(name)
        if found is None or list(found.shape) != list(shape):
            raise BadAdapter("state_tensors", strategy=self.config.method, name=name)
        return found.to(self.context.text.device)


@dataclass(frozen=True)
class StrategySpec:
    """One strategy."""

    id: str
    name: str
    """Name on screen, as the field writes it."""
    family: str
    """One of ``FAMILIES``."""
    sentence: str
    """What it does, for a newcomer."""
    equation: str
    paper: str
    config: type[Config]
    strategy: Callable[[], type[Strategy]]
    count: str
    """What it trains or keeps, in symbols: P size of a feature, K labels, D width of a token."""
    failures: tuple[str, ...]
    """Known ways to disappoint."""
    keeps: str = "none"
    """What it keeps of old images."""
    needs: frozenset[str] = frozenset()
    """What it needs of a backbone, among ``engine.backbones.base.CAPABILITIES``."""

    def configure(self, settings: Mapping[str, Any] | None = None) -> Any:
        """Return its settings with some replaced; strings are read by each field's type. Raises BadConfig."""
        fields = {field.name: field for field in dataclasses.fields(self.config)}
        changes = {}
        for name, value in (settings or {}).items():
            if name not in fields:
                raise BadConfig("unknown_setting", method=self.id, name=name, known=any_of(fields))
            changes[name] = parse_value(self.id, fields[name], value)
        config = self.config(**changes)
        config.check()
        return config

    def build(self, context: StreamContext, settings: Mapping[str, Any] | None = None) -> Strategy:
        """Return the strategy before its first step. Raises BadConfig."""
        missing = sorted(self.needs - context.backbone.offers)
        if missing:
            needed = joined("both", (Note(f"needs.{capability}") for capability in missing))
            raise BadConfig("strategy_needs", strategy=self.name, backbone=context.backbone.id, needed=needed)
        config = self.configure(settings)
        if obstacle := config.obstacle(context.backbone):
            raise obstacle
        return self.strategy()(config, context)


_SPECS: dict[str, StrategySpec] = {}


def register(spec: StrategySpec) -> StrategySpec:
    """Add a strategy; refuses a duplicate or badly written id, an unknown family and missing parts."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", spec.id):
        raise ValueError(f"strategy id {spec.id!r} must be lower_snake_case")
    if spec.id in _SPECS:
        raise ValueError(f"strategy {spec.id!r} is registered twice")
    if spec.family not in FAMILIES:
        raise ValueError(f"strategy {spec.id!r}: family {spec.family!r} is none of {FAMILIES}")
    for name in ("name", "sentence", "equation", "paper", "count", "keeps"):
        if not getattr(spec, name).strip():
            raise ValueError(f"strategy {spec.id!r}: {name} is empty")
    _SPECS[spec.id] = spec
    messages(**{f"strategy.{spec.id}": spec.sentence, f"strategy.{spec.id}.name": spec.name})
    messages(**{f"strategy.{spec.id}.failures.{number}": text for number, text in enumerate(spec.failures)})
    messages(**{f"keeps.{spec.keeps}": spec.keeps})
    return spec


def get(strategy: str) -> StrategySpec:
    """Return a strategy's record. Raises BadConfig with the known names."""
    known = [spec.id for spec in strategies()]
    if strategy not in known:
        raise BadConfig("unknown_strategy", strategy=strategy, known=", ".join(known))
    return _SPECS[strategy]


def strategies() -> tuple[StrategySpec, ...]:
    """Return every strategy, family by family."""
    importlib.import_module(STRATEGIES).load_all()
    return tuple(sorted(_SPECS.values(), key=lambda spec: FAMILIES.index(spec.family)))


def grown(rows: Tensor, count: int) -> Tensor:
    """Return rows ``(n, ...)`` with zeros added up to ``count`` rows."""
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])
