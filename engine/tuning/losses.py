"""Training losses, on the logits ``(B, K)`` of a batch's images with the task's K labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits (B, K), targets (B,))``, a scalar."""


def classification(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the class names: logits ``(B, K)``, targets ``(B,)``, mean over the batch."""
    return F.cross_entropy(logits, targets)


def contrastive(logits: Tensor, targets: Tensor) -> Tensor:
    """Symmetric InfoNCE (as CLIP's) over the batch's image-text pairs: logits ``(B, K)``, targets ``(B,)``.

    Image i stands beside the text of its class. Images of one class share a text, so pair (i, j) is a positive
    wherever the classes are the same; each positive is contrasted with the negatives alone and never with another
    positive (SINCERE: Feeney & Hughes 2023, arXiv 2309.14277). With B different classes this is CLIP's own loss.
    Labels without an image in the batch take no part; a batch of one class has the loss 0.
    """
    pairs = logits.float()[:, targets]  # (B, B): image i, text of image j
    same = targets[:, None] == targets
    return (_positives_against_negatives(pairs, same) + _positives_against_negatives(pairs.T, same)) / 2


def _positives_against_negatives(pairs: Tensor, same: Tensor) -> Tensor:
    """Mean over rows of the mean over positives p of ``-log(e^p / (e^p + sum of e^negatives))``."""
    never = torch.finfo(pairs.dtype).min  # not -inf, whose gradient is no number in a row without negatives
    negatives = pairs.masked_fill(same, never).logsumexp(dim=1, keepdim=True)  # (B, 1)
    losses = F.softplus(negatives - pairs) * same  # (B, B)
    return (losses.sum(dim=1) / same.sum(dim=1)).mean()


def sigmoid(logits: Tensor, targets: Tensor) -> Tensor:
    """SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343): ``-log sigmoid(z logit)`` with z = 1 for an image's own text
    and -1 for every other, summed over the texts and averaged over the images.

    Every label's text takes part once, as the different texts of a batch do there: logits ``(B, K)`` with their bias,
    targets ``(B,)``.
    """
    z = 2 * F.one_hot(targets, logits.shape[1]) - 1  # (B, K)
    return -F.logsigmoid(z * logits.float()).sum(dim=1).mean()


def starting_bias(logits: Tensor) -> float:
    """Return the bias with which a model without one starts the sigmoid loss: mean logit plus bias = -log(K - 1).

    SigLIP starts at -10 because its batches hold one positive among thousands of pairs, and the loss should begin near
    that share. Here it is one among K, whose logit is -log(K - 1); the mean takes away the height at which a model
    trained by softmax happens to stand, which softmax never sees.

    Args:
        logits: ``(N, K)`` of the untrained model, without bias.
    """
    return -log(max(1, logits.shape[1] - 1)) - logits.mean().item()


def distillation(logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor:
    """``alpha T² KL(teacher || student) + (1 - alpha)`` cross-entropy with the labels (Hinton et al. 2015, arXiv
    1503.02531), both softened by the temperature T in the first term: logits and teacher ``(B, K)``, targets ``(B,)``.

    The factor T² keeps the first term's gradients as large as the second's whatever the temperature.
    """
    soft, wanted = ((values.float() / temperature).log_softmax(dim=-1) for values in (logits, teacher))
    divergence = F.kl_div(soft, wanted, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * classification(logits, targets)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"classification": classification, "contrastive": contrastive, "sigmoid": sigmoid}
)
"""What the setting ``loss`` may be."""
