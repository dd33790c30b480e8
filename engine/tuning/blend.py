"""How much of a head to believe beside zero-shot, judged on images left out of the support."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.tuning.loop import fit
from engine.tuning.tuner import Config, TrainConfig, Tuner, TunerContext

AUTO = "auto"
"""Value of the setting ``blend`` that lets folds choose."""
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the tuned logits that are tried."""
ONE_IMAGE_SHARE = 0.5
"""Share where every label has one image, so that nothing can be left out to choose it by."""
TEMPERATURES = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
"""Factors of the mixed logits, the best of which counts: a head's scale must not decide how much of it is taken."""
FOLDS = 5
FEW_IMAGES, REPEATS = 100, 3
"""Up to so many images the folds are dealt out several times."""


def folds_of(images: int) -> int:
    """Return how many folds there are: few images are dealt out several times, as each fold tests few."""
    return FOLDS * (REPEATS if images <= FEW_IMAGES else 1)


def deal_out(targets: Tensor) -> Tensor | None:
    """Return which images are left out in which fold, ``(N, F)`` bool; a label's only image never is.

    There are as many folds with two images a label as with many, so that most labels keep most of their images.

    Args:
        targets: classes ``(N,)``.

    Returns:
        None where every label has one image, so that nothing can be left out.
    """
    count = len(targets)
    several = torch.bincount(targets)[targets] > 1
    if not several.any():
        return None
    generator = torch.Generator().manual_seed(0)
    rounds = []
    for _ in range(folds_of(count) // FOLDS):
        shuffled = torch.randperm(count, generator=generator).to(targets.device)
        order = shuffled[targets[shuffled].argsort(stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(count, device=order.device)
        rounds.append((place[:, None] % FOLDS == torch.arange(FOLDS, device=order.device)) & several[:, None])
    out = torch.cat(rounds, dim=1)
    return out[:, out.any(0)]


def smallest_as_good(right: Tensor, left_out: Tensor) -> int:
    """Return the first candidate that is within one standard error of the best: of their difference over the images.

    Args:
        right: ``(N, F, C)``, whether each of C candidates was right, from the one that changes least on.
        left_out: ``(N, F)`` bool, where that counts.
    """
    tests = left_out.sum(1)
    used = tests > 0
    shares = (right * left_out[..., None]).sum(1)[used] / tests[used, None]  # (n, C)
    short = shares[:, [int(shares.mean(0).argmax())]] - shares
    error = short.std(0) / len(short) ** 0.5
    return int((short.mean(0) <= error + 1e-7).nonzero()[0])


def choose(tuner: Tuner, config: Config, setting: TunerContext, inputs: Tensor, seed: int) -> Iterator[tuple[int, int]]:
    """Choose the share of a trained head's logits beside zero-shot's, into its ``chosen["blend"]``.

    The head is trained once more for each fold, with what it has chosen for itself on all images.

    Args:
        tuner: trained on all of the setting's images.
        inputs: the images at the tuner's stage, ``(N, ...)``.

    Yields:
        Folds done, folds in all.
    """
    left_out = deal_out(setting.targets)
    if left_out is None:
        tuner.chosen["blend"] = ONE_IMAGE_SHARE
        return
    tuned = []
    for number, out in enumerate(left_out.T):
        tuned.append(_fold(tuner, config, setting, inputs, out, seed))
        yield number + 1, left_out.shape[1]
    image = left_out.T.nonzero()[:, 1]  # the tested images, fold after fold
    zero = setting.backbone.logits(setting.support, setting.ensemble)[image]
    tuner.chosen["blend"] = SHARES[largest_as_good(losses(zero, torch.cat(tuned), setting.targets[image]), image)]


def losses(zero: Tensor, tuned: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy ``(n, C)`` of each test with each share, at the share's best temperature.

    Args:
        zero: zero-shot's logits ``(n, K)``; ``tuned``: a head's.
        targets: classes ``(n,)``.
    """
    found = []
    for share in SHARES:
        mixed = (1 - share) * zero + share * tuned
        each = torch.stack([cross_entropy(t * mixed, targets, reduction="none") for t in TEMPERATURES])
        found.append(each[each.mean(1).argmin()])
    return torch.stack(found, dim=1)


def largest_as_good(loss: Tensor, image: Tensor) -> int:
    """Return the last share whose loss is within half a standard error of the lowest: of the difference over images.

    Args:
        loss: ``(n, C)`` of each test.
        image: which image each test was of, ``(n,)``; an image's tests count as one.
    """
    tests = torch.bincount(image)
    mean = loss.new_zeros(len(tests), loss.shape[1]).index_add_(0, image, loss)[tests > 0] / tests[tests > 0, None]
    above = mean - mean[:, [int(mean.mean(0).argmin())]]
    error = above.std(0) / len(above) ** 0.5
    return int((above.mean(0) <= error / 2 + 1e-7).nonzero()[-1])


def _fold(tuner: Tuner, config: Config, setting: TunerContext, inputs: Tensor, out: Tensor, seed: int) -> Tensor:
    """Return logits ``(n, K)`` of images left out, by a head trained on the others."""
    part = replace(setting, support=setting.support[~out], targets=setting.targets[~out])
    head = type(tuner)(config, part)
    head.adopt(tuner.chosen)
    if isinstance(config, TrainConfig):
        for _ in fit(head, inputs[None, ~out], part.targets, config, seed):
            pass
    with torch.no_grad():
        return head.eval().finished()(inputs[out])


def wanted(config: Any) -> bool:
    """Return whether a method's settings ask for the choice."""
    return bool(getattr(config, "blend", "") == AUTO)
