"""Where a method's trained parameters act in a model, found by looking and not by knowing the method.

The method is attached to a twin of fake tensors, as for a forecast, and one batch goes through it. Every step of the
towers (embedding, block, pooling, projection) is cut off from the one before it, so the gradient graph of what comes
out of a step ends in the parameters that entered there and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, LINEAR_KINDS, PIXELS, POOLED, Backbone, Tower
from engine.costs import trace
from engine.errors import messages
from engine.tuning import registry

if TYPE_CHECKING:
    from engine.tuning.registry import MethodSpec
    from engine.tuning.tuner import Config, Tuner

messages(
    placement_unknown="Where {method} trains cannot be drawn: its step cannot be followed on tensors that have sizes "
    "and no values ({reason}). It can be run all the same.",
)

TOKENS, NORM, ATTENTION, MLP = "tokens", "norm", "attention", "mlp"
IMAGE, LOGITS = "image features", "logits"
PARTS = (*LINEAR_KINDS, ATTENTION, MLP, NORM, TOKENS, IMAGE, LOGITS, "")
"""Parts of a step: a linear layer of a block, its attention or MLP as a whole, a norm, tokens that join those that
enter the step, and of the head: what changes the image features, what makes logits. The empty one is anything else."""
Piece = tuple[int, int | None]
"""Id of a parameter, and the row of it where only one is taken."""
HEAD = ""
"""Stands for a tower's name where both towers are done."""


@dataclass(frozen=True, order=True)
class Location:
    """One place in the model."""

    tower: str
    """``vision``, ``text`` or ``HEAD``."""
    step: int
    """``PIXELS`` for the embedding, the number of a block, ``POOLED`` for norm and pooling after the last block,
    ``FEATURES`` for the projection; 0 in the head."""
    part: str
    """One of ``PARTS``."""


@dataclass(frozen=True)
class ParameterPlacement:
    """Trained parameters that act at the same locations."""

    locations: tuple[Location, ...]
    """More than one where something is shared, such as a network that makes the prefixes of all layers."""
    count: int


@dataclass(frozen=True)
class TowerDiagram:
    """A method on a backbone: what is trained where, and what each training step runs."""

    places: tuple[ParameterPlacement, ...]
    runs: frozenset[tuple[str, int]]
    """(tower, step) that every training step computes; what is not in it is computed once and kept."""

    @property
    def count(self) -> int:
        """Trained parameters in all."""
        return sum(place.count for place in self.places)

    def at(self, tower: str, step: int) -> dict[str, int]:
        """Part -> trained parameters that act at this step of a tower and nowhere else."""
        found: dict[str, int] = {}
        for place in self.places:
            if len(place.locations) == 1 and (place.locations[0].tower, place.locations[0].step) == (tower, step):
                found[place.locations[0].part] = found.get(place.locations[0].part, 0) + place.count
        return found

    @property
    def shared(self) -> tuple[ParameterPlacement, ...]:
        """What acts at more than one location."""
        return tuple(place for place in self.places if len(place.locations) > 1)


def tower_diagram(
    spec: MethodSpec, config: Config, backbone: Backbone, labels: int = 10, support: int = 40
) -> TowerDiagram:
    """Return where a method trains on a backbone, kept by weights, method, settings and numbers; nothing is computed.

    Args:
        backbone: loaded, or one without weights.
        labels: K, number of labels.
        support: N, number of training images.

    Raises:
        BadConfig: the method cannot run on this backbone.
        Untraceable: its step cannot be followed, as where it reads the value of a tensor.
    """
    if obstacle := registry.obstacle(spec, backbone, config):
        raise obstacle
    key = (backbone.id, backbone.weight_hash, "anatomy", spec.id, config, labels, support)
    with trace.untraceable("placement_unknown", spec.title):
        return trace.remembered(key, lambda: _look(spec, config, backbone, labels, support))


def places(
    spec: MethodSpec, backbone: Backbone, config: Config, labels: int = 10, support: int = 40
) -> tuple[ParameterPlacement, ...]:
    """Return the places of :func:`tower_diagram`."""
    return tower_diagram(spec, config, backbone, labels, support).places


def _look(spec: MethodSpec, config: Config, backbone: Backbone, labels: int, support: int) -> TowerDiagram:
    fakes = trace.Fakes()
    with trace.ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        stand_in = fakes.fake_copy(backbone)
        tuner = trace.attach(spec, config, fakes, stand_in, [f"class {k}" for k in range(labels)], support).eval()
        if not tuner.trains:
            return TowerDiagram((), frozenset())
        pixels = fakes.empty(2, 3, stand_in.shape.image_size, stand_in.shape.image_size)
        with torch.no_grad():
            x = stand_in.vision.advance(pixels, PIXELS, tuner.stage)
        return Watch(tuner).look(x)


class Watch:
    """Notes at which locations each trained parameter enters while a batch goes through."""

    def __init__(self, tuner: Tuner):
        self.tuner, self.trained = tuner, tuner.trained()
        self.names = {id(p): name for name, p in self.trained.items()}
        self.found: dict[str, dict[int | None, set[Location]]] = {name: {} for name in self.trained}
        self.runs: set[tuple[str, int]] = set()
        self.owner = tuner.backbone
        """The backbone whose modules the method may have changed."""
        if changed := getattr(tuner, "tuned", None):  # its views are made anew: fakes have replaced its parameters
            self.owner = changed.replace_model(changed.model)
            tuner.__dict__["tuned"] = self.owner
        self.parts: dict[int, str] = {}
        for p, part in parts_of(self.owner):
            self.parts[id(p)] = part if self.parts.get(id(p), part) == part else ""

    def look(self, x: Tensor) -> TowerDiagram:
        """Send inputs at the tuner's stage through it."""
        tuner: Any = self.tuner
        for backbone in (tuner.backbone, self.owner):
            self._watch_vision(backbone.vision)
            self._watch_text(backbone.text)
        inner = tuner.image_features
        step = Location("vision", FEATURES, "") if tuner.stage == POOLED else Location(HEAD, 0, IMAGE)

        def image_features(x: Tensor) -> Tensor:
            out = inner(x)
            self._note(leaves(out), step)
            return out.detach()

        tuner.image_features = image_features
        self._note(leaves(tuner(x)), Location(HEAD, 0, LOGITS))
        if tuner.stage == POOLED:
            self.runs.add(("vision", FEATURES))
        return TowerDiagram(self._group(), frozenset(self.runs))

    def _watch_vision(self, tower: Any) -> None:
        tower.run_stem = self._step(tower.run_stem, "vision", PIXELS)
        tower.embed = self._step(tower.embed, "vision", PIXELS)
        tower.run_block = self._block(tower, "vision")
        tower.pool = self._step(tower.pool, "vision", POOLED)
        tower.project = self._step(tower.project, "vision", FEATURES)

    def _watch_text(self, tower: Any) -> None:
        if not tower.has_tokens:
            tower.encode_ids = self._step(tower.encode_ids, "text", PIXELS)
            return
        tower.embed_tokens = self._step(tower.embed_tokens, "text", PIXELS)
        tower.add_positions = self._step(tower.add_positions, "text", PIXELS, Location("text", 0, TOKENS))
        tower.run_block = self._block(tower, "text")
        tower.pool = self._step(tower.pool, "text", POOLED)
        tower.project = self._step(tower.project, "text", FEATURES)

    def _step(self, inner: Callable, tower: str, step: int, entering: Location | None = None) -> Callable:
        """A step of a tower that notes what enters in it, and between the last step and it."""

        def run(x: Tensor, *more: Any) -> Tensor:
            self.runs.add((tower, step))
            self._note(leaves(x), entering or Location(tower, step, TOKENS))
            out = inner(x.detach(), *more)
            self._note(leaves(out), Location(tower, step, ""))
            return out.detach()

        return run

    def _block(self, tower: Tower, name: str) -> Callable:
        inner = tower.run_block

        def run_block(k: int, hidden: Tensor) -> Tensor:
            self.runs.add((name, k))
            self._note(leaves(hidden), Location(name, k, TOKENS))
            with self._children(tower.blocks[k], name, k):
                out = inner(k, hidden.detach())
            self._note(leaves(out), Location(name, k, ""))
            return out.detach()

        return run_block

    @contextmanager
    def _children(self, block: nn.Module, tower: str, k: int) -> Iterator[None]:
        """Note what enters in the attention or the MLP of a block without being one of the block's own parameters."""
        kinds = {"attn": ATTENTION, "self_attn": ATTENTION, "mlp": MLP}
        own, handles = {id(p) for p in block.parameters()}, []
        for child, module in block.named_children():
            if child in kinds:

                def after(_: Any, inputs: Any, named: Any, out: Any, part: str = kinds[child]) -> None:
                    came = leaves(*(out if isinstance(out, tuple) else (out,))) - leaves(*inputs, *named.values())
                    self._note({piece for piece in came if piece[0] not in own}, Location(tower, k, part))

                handles.append(module.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, pieces: set[Piece], location: Location) -> None:
        """Remember a location; the modules know the part of their own parameters better than the step does."""
        for key, row in pieces:
            if key not in self.names:
                continue
            locations = self.found[self.names[key]].setdefault(row, set())
            part = location.part or self.parts.get(key, "")
            if part or not any((s.tower, s.step) == (location.tower, location.step) for s in locations):
                locations.add(Location(location.tower, location.step, part))

    def _group(self) -> tuple[ParameterPlacement, ...]:
        """Parameters, or their rows where each row goes its own way, by their locations."""
        counts: dict[tuple[Location, ...], int] = {}
        for name, by_row in self.found.items():
            parameter = self.trained[name]
            if None in by_row or [len(by_row)] != list(parameter.shape[:1]):
                by_row = {None: set().union(*by_row.values())}
            for locations in by_row.values():
                key = tuple(sorted(locations))
                counts[key] = counts.get(key, 0) + parameter.numel() // len(by_row)
        return tuple(ParameterPlacement(locations, counts[locations]) for locations in sorted(counts))


def parts_of(backbone: Backbone) -> Iterator[tuple[nn.Parameter, str]]:
    """(parameter, part) of what the blocks of a backbone, changed or not, hold themselves."""
    names = {
        name: kind
        for tower in ("vision", "text")
        for kind in LINEAR_KINDS
        for name in backbone.linear_names(tower, [kind])
    }
    for name, module in backbone.model.named_modules():
        path = name.split(".")
        kind = next((names[head] for n in range(len(path), 0, -1) if (head := ".".join(path[:n])) in names), "")
        if not kind and isinstance(module, nn.LayerNorm):
            kind = NORM
        elif not kind:
            kind = ATTENTION if "self_attn" in path or "attn" in path else MLP if "mlp" in path else ""
        for parameter in module.parameters(recurse=False):
            yield parameter, kind


def leaves(*values: Any) -> set[Piece]:
    """Return where the gradient graph of some tensors ends; values that are no tensors are passed over."""
    found: set[Piece] = set()
    waiting: list[Any] = []
    for tensor in (value for value in values if isinstance(value, Tensor)):
        if tensor.grad_fn is not None:
            waiting.append(tensor.grad_fn)
        elif tensor.requires_grad:
            found.add((id(tensor), None))
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            found.add((id(node.variable), None))
        for below, _ in node.next_functions:
            if hasattr(below, "variable") and node.name() == "SelectBackward0" and node._saved_dim == 0:
                found.add((id(below.variable), node._saved_index))
            elif below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)
    return found
