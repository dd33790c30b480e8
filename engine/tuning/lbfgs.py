"""Minimising a smooth objective over all images until it has converged, and choosing its penalty by folds.

A convex head has a right answer. A fixed number of gradient steps comes near it with few labels and stays far away with
many; L-BFGS stops where the gradient has vanished, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""Largest entry of the gradient at which an objective has converged."""
LEAST_CHANGE = 1e-7
"""Change of the loss, and of the parameters, below which nothing more is to be had in single precision."""
HISTORY = 10
"""Pairs of steps and gradients that stand for the curvature."""
KEPT = 2 * HISTORY + 3
"""Copies of the parameters that it keeps: pairs, a direction, the gradient before and a place of the line search."""
USUAL = 60
"""Steps that heads take as a rule, for the forecast."""
MOST_TRIALS = 25
"""Evaluations in one iteration: the bound of the line search itself."""
AT_ONCE = 10
"""Iterations between two moments at which a run may be stopped."""
ROUGH, CAREFUL = (10, 3e-4), (30, 1e-4)
"""Iterations for each strength of a penalty, started where the strength before ended, and the change of one fit's loss
below which they end earlier. Careful ones cost little with few images, where they choose better."""
PATIENCE = 2
"""Strengths in a row that help no start, after which weaker ones are not tried."""
FEW_IMAGES = 400
"""Up to so many images there are five folds, beyond three: more images make a fold's share less noisy."""


def minimise(
    parameters: Sequence[Tensor], objective: Callable[[], Tensor], most: int, change: float = LEAST_CHANGE
) -> Generator[int, None, bool]:
    """Minimise by L-BFGS with a strong Wolfe line search (Nocedal & Wright 2006, algorithms 3.5 and 7.5).

    Args:
        parameters: leaves that require gradients; changed in place.
        objective: returns the loss, a scalar.
        most: iterations at most.
        change: of the loss between two iterations, or of every parameter, below which it has converged.

    Yields:
        Iterations done, at least every ``AT_ONCE``.

    Returns:
        Whether it has converged; otherwise there were too few iterations.
    """
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=AT_ONCE,
        max_eval=MOST_TRIALS * AT_ONCE,
        tolerance_grad=TOLERANCE,
        tolerance_change=change,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    done, state = 0, optimizer.state[parameters[0]]
    while done < most:
        optimizer.param_groups[0]["max_iter"] = wanted = min(AT_ONCE, most - done)
        before = done
        optimizer.step(closure)  # type: ignore[arg-type]
        done = state["n_iter"]
        yield min(done, most)
        if done < before + wanted:
            break
    optimizer.zero_grad()
    return done < most


def assign_folds(targets: Tensor, repeats: int = 1) -> Tensor | None:
    """Return which images train in which fold, ``(N, F)`` with 1 for those that do; every class is spread evenly.

    Args:
        targets: classes ``(N,)``.
        repeats: how often the folds are dealt out.

    Returns:
        None where no class has two images, so that nothing can be left out.
    """
    images, most = len(targets), int(torch.bincount(targets).max())
    folds = min(5 if images <= FEW_IMAGES else 3, most)
    if folds < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    rounds = []
    for _ in range(repeats):
        shuffled = torch.randperm(images, generator=generator).to(targets.device)
        order = shuffled[targets[shuffled].argsort(stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(images, device=order.device)
        rounds.append(place[:, None] % folds != torch.arange(folds, device=order.device))
    return torch.cat(rounds, dim=1).float()


def score_strengths(
    parameters: Sequence[Tensor],
    logits: Callable[[], Tensor],
    penalty: Callable[[], Tensor],
    targets: Tensor,
    trains: Tensor,
    strengths: Sequence[float],
    effort: tuple[int, float] = ROUGH,
) -> Iterator[Tensor]:
    """Fit all folds of several starts at once, once for each strength of a penalty.

    Args:
        parameters: leaves that hold ``S`` starts times ``F`` folds; they are changed.
        logits: returns the logits ``(N, S, F, K)`` of all images.
        penalty: returns what a strength multiplies, summed over starts and folds.
        targets: classes ``(N,)``.
        trains: from :func:`assign_folds`, ``(N, F)``.
        strengths: the strongest first: each goes on where the one before ended.
        effort: ``ROUGH`` or ``CAREFUL``.

    Yields:
        For each strength the out-of-fold scores ``(S, 2)`` of every start: share right and mean cross-entropy. Ends
        early where weaker penalties do not help.
    """
    starts, folds = parameters[0].shape[:2]
    weight = (trains / trains.sum(0)).repeat(1, starts).flatten()

    def losses(z: Tensor) -> Tensor:
        every = targets[:, None].expand(-1, starts * folds).flatten()
        return nn.functional.cross_entropy(z.flatten(0, 2), every, reduction="none")  # (N * S * F,)

    highest, since = 0.0, 0
    for strength in strengths:

        def objective(strength: float = strength) -> Tensor:
            return losses(logits()) @ weight + strength * penalty()

        for _ in minimise(parameters, objective, effort[0], effort[1] * starts * folds):
            pass
        with torch.no_grad():
            z, held_out = logits(), (trains == 0)[:, None].expand(-1, starts, -1)  # (N, S, F)
            right = (z.argmax(-1) == targets[:, None, None]).float()
            loss = losses(z).view_as(right)
        right, loss = ((value * held_out).sum((0, 2)) / held_out[:, 0].sum() for value in (right, loss))
        yield torch.stack((right, loss), dim=-1)
        since = 0 if right.max() > highest else since + 1
        highest = max(highest, right.max().item())
        if since == PATIENCE:
            return


def best(scores: Sequence[Tensor]) -> tuple[int, int]:
    """Return (strength, start) with the highest out-of-fold accuracy of scores ``(S, 2)`` a strength.

    Accuracy on few images moves in large steps, so each strength takes the mean with its neighbours; the lower loss
    decides between equals.
    """
    right, loss = torch.stack(tuple(scores)).cpu().unbind(-1)  # (L, S) each
    around = torch.cat((right[:1], right, right[-1:]))
    smooth = (around[:-2] + around[1:-1] + around[2:]) / 3
    strength, start = divmod(int((smooth - 1e-3 * loss).argmax()), right.shape[1])
    return strength, start


def solve(
    parameters: Sequence[nn.Parameter],
    objective: Callable[[], tuple[Tensor, Tensor]],
    targets: Tensor,
    most: int,
) -> Generator[tuple[int, int, float, float], None, bool]:
    """Minimise, yielding (point, most, loss, share right) for every point that lowers the loss.

    Args:
        objective: returns the loss, a scalar, and the logits ``(N, K)``.
        targets: classes ``(N,)``.

    Returns:
        Whether it has converged.
    """
    points: list[tuple[Tensor, Tensor]] = []

    def loss_alone() -> Tensor:
        loss, logits = objective()
        points.append((loss.detach(), (logits.argmax(1) == targets).float().mean()))
        return loss

    number, lowest, steps = 0, float("inf"), minimise(parameters, loss_alone, most)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bool(end.value)
        for loss, right in points:
            if loss.item() < lowest and number < most:
                number, lowest = number + 1, loss.item()
                yield number, most, lowest, right.item()
        points.clear()
