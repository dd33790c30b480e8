"""One training step, traced without being computed.

A backbone's twin gets fake tensors for weights: they have sizes and strides and no data. The method
is attached to it as it would be to the real one, then the step that training uses runs on it under a
dispatch mode that sees every operation. It adds each new storage, drops it when it dies, and counts
floating-point operations. No weight is copied and no GPU is needed.

Autocast is on for the step alone, as in training: features, source prompts and evaluation stay in fp32.

Fake tensors are on the device ``cpu``: a fake ``cuda`` device fails without a driver. The mode itself
is never entered, so that small things whose values matter (ids, positions, targets, the scale) stay
real and may be read; what meets a fake tensor becomes one.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, PIXELS, Backbone
from engine.costs.op_counter import OpCost, OpCounter, rounded
from engine.errors import LabError, Note, Untraceable
from engine.lru import LruStore
from engine.tuning import lbfgs
from engine.tuning.registry import MethodSpec
from engine.tuning.tuner import LBFGS, Config, TrainConfig, Tuner, TunerContext
from engine.types import Label

IMAGES = 32
"""Images that are encoded together (``FeatureStore``'s batch)."""
KEPT = 128
"""Followed steps that are kept."""
SAME_STEP = ("epochs", "steps", "warmup_epochs", "lr", "views", "min_crop")
"""Settings that change nothing in a step."""
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision of the step -> dtype of autocast."""


@dataclass(frozen=True)
class StepCost:
    """What is known of a method on a backbone; bytes, and work by part of a run."""

    weights: int
    """The backbone and what the method adds."""
    backbone: int
    """The backbone alone."""
    gradients: int
    optimizer: int
    row: int
    """One image's value at the stage where training starts."""
    at_features: bool
    """Whether training starts at the features that are computed anyway."""
    train: OpCost
    """One gradient step."""
    text: OpCost
    """One template for all labels."""
    encode: OpCost
    """``IMAGES`` images from pixels to features."""
    inputs: OpCost
    """``IMAGES`` images from pixels to the stage where training starts."""
    evaluate: OpCost
    """``IMAGES`` images from that stage to logits."""
    pretraining_stages: tuple[tuple[OpCost, int], ...] = ()
    """A gradient step of each training that comes before, and the number of its steps."""


@dataclass(frozen=True)
class ExtraBackbone:
    """A backbone that a run loads beside its own, to see the training images."""

    weights: int
    encode: OpCost
    """``IMAGES`` images from pixels to features."""
    text: OpCost
    """One template for all labels."""


class Fakes:
    """Makes fake tensors on the device ``cpu``."""

    def __init__(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        self.kind, self.mode = FakeTensor, FakeTensorMode(allow_non_fake_inputs=True)

    def empty(self, *shape: int, like: Tensor | None = None) -> Tensor:
        """Return a fake tensor of a shape, or of another tensor's shape, strides and type."""
        with self.mode:
            if like is None:
                return torch.empty(shape)
            return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")

    def fake_copy(self, backbone: Backbone) -> Backbone:
        """Return the backbone with fake weights. Single numbers (the scale, a bias) are real: methods may read them."""
        memo: dict[int, object] = {}
        folded: Any = getattr(backbone, "folded", backbone.model)  # what runs where convolutions are folded
        tensors = {id(t): t for model in (backbone.model, folded) for t in [*model.parameters(), *model.buffers()]}
        for tensor in tensors.values():
            if tensor.numel() > 1:
                twin = self.empty(like=tensor)
            else:
                twin = torch.ones_like(tensor, device="cpu") if tensor.is_meta else tensor.detach().cpu().clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(twin, requires_grad=False) if is_parameter else twin
        stand_in = backbone.replace_model(copy.deepcopy(folded, memo))
        if folded is not backbone.model:
            stand_in.model = copy.deepcopy(backbone.model, memo)
        return stand_in

    def replace_parameters(self, module: nn.Module) -> None:
        """Swap every real parameter below a module for a fake one; a shared one stays shared."""
        done: dict[int, nn.Parameter] = {}
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is None or isinstance(parameter, self.kind):
                    continue
                if id(parameter) not in done:
                    done[id(parameter)] = nn.Parameter(self.empty(like=parameter), parameter.requires_grad)
                part._parameters[name] = done[id(parameter)]


_found: LruStore[tuple, Any] = LruStore(KEPT)
ONE_AT_A_TIME = threading.Lock()


def remembered(key: tuple, make: Callable[[], Any]) -> Any:
    """Return what was found for a key before, or what ``make`` finds now; the least recently used is forgotten."""
    found = _found.get(key)
    if found is None:
        found = make()
        _found.put(key, found)
    return found


@contextmanager
def untraceable(key: str, method: Note) -> Iterator[None]:
    """Turn whatever goes wrong inside, but the lab's own errors, into Untraceable with the sentence of ``key``.

    Most often a step reads the value of a tensor (a norm, an ``if``), which fake tensors do not have. Any other error
    counts too: where it is the method's own, the run meets it again and says it.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        text = str(error).strip()
        reason = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
        raise Untraceable(key, method=method, reason=reason[:200]) from error


def trace_step(
    spec: MethodSpec,
    config: Config,
    backbone: Backbone,
    prompts: Sequence[str],
    support: int,
    precision: str = "fp32",
    device: str = "cpu",
    steps: int = 1,
) -> StepCost:
    """Follow a method's step; kept by weights, method, settings, labels, support and precision.

    Args:
        prompts: what the labels are read as; their number and length count.
        support: training images.
        precision: key of ``PRECISIONS``.
        device: ``cuda`` follows the optimizer's fused loops, which need more memory.
        steps: gradient steps that are followed. One is enough: the second equals the first with the
            optimizer's state there from the start, which is added here.
    """
    settings = {f.name: f.default for f in fields(config) if f.name in SAME_STEP}
    config, weights = replace(config.without_labels(), **settings), (backbone.id, backbone.weight_hash, precision)
    key = (weights, spec.id, config, tuple(prompts), support, device, steps)
    return remembered(key, lambda: _trace_step(spec, config, backbone, prompts, support, weights, device, steps))


def _trace_step(
    spec: MethodSpec,
    config: Any,
    backbone: Backbone,
    prompts: Sequence[str],
    support: int,
    weights: tuple,
    device: str,
    steps: int,
) -> StepCost:
    fakes, dtype = Fakes(), PRECISIONS[weights[-1]]
    with ONE_AT_A_TIME:
        stand_in = fakes.fake_copy(backbone)
        tuner = attach(spec, config, fakes, stand_in, prompts, support)
        base = [*stand_in.model.parameters(), *stand_in.model.buffers()]
        known = [*base, *tuner.parameters(), *tuner.buffers()]
        text = remembered((weights[:2], "text", tuple(prompts)), lambda: trace_labels(stand_in, base, prompts))
        encode, _ = remembered((weights[:2], FEATURES), lambda: trace_encode(fakes, stand_in, base, FEATURES))
        inputs, row = remembered((weights[:2], tuner.stage), lambda: trace_encode(fakes, stand_in, base, tuner.stage))
        evaluate, _ = measure_call(known, tuner.eval(), fakes.empty(IMAGES, *row))
        train, gradients, state = OpCost(), 0, 0
        if tuner.trains:
            x = fakes.empty(batch_of(tuner, config, support), *row)
            with torch.autocast("cpu", dtype) if dtype else nullcontext():
                train, gradients, state = gradient_step(tuner, x, config, known, device, steps)
        pretraining_stages = tuple(
            trace_pretraining(*row, fakes, stand_in, known, device) for row in tuner.pretraining_stages()
        )
    at_features = tuner.stage == FEATURES
    return StepCost(
        size_of(known),
        size_of(base),
        gradients,
        state,
        4 * prod(row),
        at_features,
        train,
        text,
        encode,
        OpCost() if at_features else inputs,
        evaluate,
        pretraining_stages,
    )


def trace_backbone(backbone: Backbone, prompts: Sequence[str]) -> ExtraBackbone:
    """Follow what another backbone does for a run; kept by weights and labels."""
    key = (backbone.id, backbone.weight_hash)

    def trace() -> ExtraBackbone:
        with ONE_AT_A_TIME:
            fakes = Fakes()
            stand_in = fakes.fake_copy(backbone)
            base = [*stand_in.model.parameters(), *stand_in.model.buffers()]
            encode, _ = trace_encode(fakes, stand_in, base, FEATURES)
            return ExtraBackbone(size_of(base), encode, trace_labels(stand_in, base, prompts))

    return remembered((key, "extra backbone", tuple(prompts)), trace)


def batch_of(tuner: Tuner, config: TrainConfig, images: int) -> int:
    """Return images of one step."""
    return images if tuner.full_batch else min(config.batch_size, images)


def trace_pretraining(
    tuner: Tuner,
    config: TrainConfig,
    images: int,
    fakes: Fakes,
    stand_in: Backbone,
    known: Sequence[Tensor],
    device: str,
) -> tuple[OpCost, int]:
    """Return a step of a training that comes before, in fp32 as those are, and the number of its steps."""
    fakes.replace_parameters(tuner)
    _, row = trace_encode(fakes, stand_in, known, tuner.stage)
    batch = batch_of(tuner, config, images)
    x, there = fakes.empty(batch, *row), [*known, *tuner.parameters(), *tuner.buffers()]
    return gradient_step(tuner, x, config, there, device)[0], config.steps_for(images, batch)


def trace_labels(stand_in: Backbone, known: Sequence[Tensor], prompts: Sequence[str]) -> OpCost:
    """Return the text tower on one sentence a label."""
    return measure_call(
        known, stand_in.encode_text, stand_in.tokenize([f"a photo of a {prompt}." for prompt in prompts])
    )[0]


def trace_encode(
    fakes: Fakes, stand_in: Backbone, known: Sequence[Tensor], stage: int
) -> tuple[OpCost, tuple[int, ...]]:
    """``IMAGES`` images from pixels to a stage, and the shape of one value there."""
    pixels = fakes.empty(IMAGES, 3, stand_in.shape.image_size, stand_in.shape.image_size)
    work, values = measure_call(known, stand_in.vision.advance, pixels, PIXELS, stage)
    return work, tuple(values.shape[1:])


def attach(
    spec: MethodSpec, config: Any, fakes: Fakes, stand_in: Backbone, prompts: Sequence[str], support: int
) -> Tuner:
    """Return the method's tuner on a backbone of fakes, as training would build it."""
    classes = len(prompts)
    direction = stand_in.shape.embedding**-0.5
    text = torch.full((classes, stand_in.shape.embedding), direction)
    setting = TunerContext(
        stand_in,
        tuple(Label(f"{k}", prompt) for k, prompt in enumerate(prompts)),
        ("a photo of a {}.",),
        text,
        text,
        torch.full((support, stand_in.shape.embedding), direction),
        torch.arange(support) % classes,
    )
    with warnings.catch_warnings():  # copying a fake buffer reads its address
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        tuner = spec.tuner()(config, setting)
    fakes.replace_parameters(tuner)
    return tuner


def size_of(tensors: Sequence[Tensor]) -> int:
    """Return bytes of the storages of some tensors, each once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(map(rounded, storages.values()))


@torch.no_grad()
def measure_call(known: Sequence[Tensor], function: Any, *arguments: Any) -> tuple[OpCost, Any]:
    """Return the work of a call without gradients, and what it returns."""
    with OpCounter([*known, *(a for a in arguments if isinstance(a, Tensor))]) as meter:
        result = function(*arguments)
    return meter.work(), result


def gradient_step(
    tuner: Tuner, x: Tensor, config: TrainConfig, known: Sequence[Tensor], device: str, steps: int = 1
) -> tuple[OpCost, int, int]:
    """Follow training's own step on inputs ``(B, ...)``: work, bytes of gradients, bytes of optimizer state."""
    from engine.tuning import loop

    trained = list(tuner.trained().values())
    history = lbfgs.KEPT if config.optimizer == LBFGS else 0
    config = replace(config, optimizer="sgd") if history else config  # its step costs what the gradient costs
    optimizer = loop.make_optimizer(trained, config, tuner.lr_factor)
    for group in optimizer.param_groups:
        group["foreach"] = device == "cuda"  # what each device does by itself
    scheduler = loop.make_scheduler(optimizer, config, 1, 2)
    targets = torch.zeros(len(x), dtype=torch.long)
    tuner.set_batch(torch.zeros_like(targets), torch.arange(len(x)))
    tuner.train()
    meter = OpCounter([*known, x, targets])
    passes: list[tuple[int, int]] = []
    """Peak and bytes alive when the optimizer begins."""
    optimizer.register_step_pre_hook(lambda *_: passes.append((meter.peak, meter.alive)))
    with meter:
        for _ in range(steps):
            loop.step(tuner, x, targets, optimizer, scheduler)
    work = meter.work()
    gradients = size_of([p.grad for p in trained if p.grad is not None])
    state = size_of([v for p in trained for v in optimizer.state[p].values() if isinstance(v, Tensor)])
    state = max(state, meter.alive - passes[0][1])  # AdaLoRA keeps running means besides
    if steps == 1:
        work = replace(work, peak=max(work.peak, passes[0][0] + state))
    if history:
        work = replace(work, peak=work.peak - state + history * gradients)
        state = history * gradients
    return work, gradients, state
