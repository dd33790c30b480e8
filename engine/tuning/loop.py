"""The only training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.tuning import lbfgs
from engine.tuning.tuner import LBFGS, TrainConfig, Tuner


def fit(
    tuner: Tuner, inputs: Tensor, targets: Tensor, config: TrainConfig, seed: int, precision: str = "fp32"
) -> Iterator[tuple[int, int, float, float]]:
    """Train, yielding (step, steps, loss, share right) after every step; L-BFGS may end before the last one.

    Args:
        inputs: ``(V, N, ...)`` values at the tuner's stage, V views of each image.
        targets: ``(N,)`` classes.
        precision: ``fp32``, or ``bf16`` for autocast.
    """
    if config.optimizer == LBFGS:
        yield from solve(tuner, inputs, targets, config.epochs)
        return
    count = len(targets)
    batch = count if tuner.full_batch else min(config.batch_size, count)
    per_epoch = -(-count // batch)
    steps = config.steps_for(count, batch)
    optimizer = make_optimizer(list(tuner.trained().values()), config, tuner.lr_factor)
    scheduler = make_scheduler(optimizer, config, per_epoch, steps)
    generator = torch.Generator().manual_seed(seed)
    tuner.train()
    try:
        for number in range(steps):
            if number % per_epoch == 0:
                order = torch.randperm(count, generator=generator)
            chosen = order[(number % per_epoch) * batch :][:batch]
            views = torch.randint(len(inputs), (len(chosen),), generator=generator)
            tuner.set_batch(views, chosen)
            loss, right = step(tuner, inputs[views, chosen], targets[chosen], optimizer, scheduler, precision)
            yield number + 1, steps, loss.item(), right.item()
    finally:
        optimizer.zero_grad()  # a kept or stopped tuner holds no gradients


def solve(tuner: Tuner, inputs: Tensor, targets: Tensor, most: int) -> Iterator[tuple[int, int, float, float]]:
    """Train on all views of all images at once until the loss cannot fall any more, in ``most`` steps at most."""
    views, count = len(inputs), len(targets)
    place, goal = torch.arange(count).repeat(views), targets.repeat(views)
    x = inputs.flatten(0, 1)
    tuner.set_batch(torch.arange(views).repeat_interleave(count), place)
    tuner.train()
    tuner.converged = yield from lbfgs.solve(
        list(tuner.trained().values()), lambda: tuner.objective(x, goal), goal, most
    )


def step(
    tuner: Tuner, x: Tensor, targets: Tensor, optimizer: Any, scheduler: Any, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Take one gradient step on inputs ``(B, ...)`` and classes ``(B,)``; loss and share right, scalars.

    With ``bf16`` the forward pass runs under autocast; weights, gradients and optimizer stay in fp32.

    Old gradients go before the forward pass, so that they are not there beside all the activations.
    """
    optimizer.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
        loss, logits = tuner.objective(x, targets)
    loss.backward()
    optimizer.step()
    tuner.after_step()
    scheduler.step()
    return loss.detach(), (logits.argmax(1) == targets).float().mean()


def make_optimizer(parameters: list[Any], config: TrainConfig, lr_factor: float = 1.0) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, at ``lr_factor`` times the config's learning rate."""
    lr = config.lr * lr_factor
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=config.weight_decay, eps=config.eps)


def make_scheduler(
    optimizer: Any, config: TrainConfig, per_epoch: int, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Cosine to zero after the warm-up."""
    warm = min(config.warmup_epochs * per_epoch, steps - 1)

    def factor(step: int) -> float:
        if step < warm:
            return min(1.0, 1e-5 / config.lr) if config.warmup == "constant" else (step + 1) / (warm + 1)
        return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
