"""What Pocket CLIP's training compares its features with: losses, and the pictures of classes that none shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SURE = 0.025
"""Share of the crops that the trunk's classifier is surest of: how far from the mean its classes lie."""


def contrastive_loss(logits: Tensor, target: Tensor, related: Tensor) -> Tensor:
    """InfoNCE between B images and the batch's U distinct sentences, ``logits (B, U)``.

    ``target (B,)`` is each image's own sentence. A sentence that also fits the image
    (``related (B, U)``) is neither its positive nor its negative. From text to image every image
    that drew the sentence is a positive; sentences that no image drew are wrong answers only.
    """
    own = F.one_hot(target, logits.shape[1]).bool()
    masked = logits.masked_fill(related & ~own, float("-inf"))
    to_text = F.cross_entropy(masked, target)
    log_p = masked.log_softmax(dim=0)
    drawn = own.sum(0)
    to_image = -(log_p.masked_fill(~own, 0).sum(0) / drawn.clamp(min=1)).sum() / (drawn > 0).sum()
    return (to_text + to_image) / 2


def classifier_loss(logits: Tensor, answers: Tensor, taught: Tensor, imagined: Tensor, asked: Tensor | None) -> Tensor:
    """Cross-entropy of ``logits (B + imagined, C)`` against the trunk's ``answers (B, 1000)`` to the ``taught (B,)``
    photographs and against the classes that were imagined.

    ``asked (C,)`` are the classes of the columns, all 1,000 where it is None.
    """
    answers = answers if asked is None else answers[:, asked]
    mass = answers.sum(-1, keepdim=True)
    weight = taught * mass[:, 0]
    photos = -(answers / mass.clamp(min=1e-6) * logits[: len(answers)].log_softmax(-1)).sum(-1)
    column = imagined if asked is None else (asked[None] == imagined[:, None]).float().argmax(-1)
    made = F.cross_entropy(logits[len(answers) :], column.to(logits.device))
    return (photos * weight).sum() / weight.sum().clamp(min=1) + made


class Imagination:
    """Features of classes that no picture shows.

    Of a linear classifier with equal covariances, class k's mean lies from the overall mean in the direction
    ``S w_k``, S being the covariance of its input; S and its length come from the pictures at hand.
    """

    def __init__(self, pooled: Tensor, rows: Tensor, logits: Tensor):
        self.mean = pooled.mean(0)
        centred = rows - rows.mean(0)
        direction = centred @ torch.cov(pooled.T)
        sure = logits.softmax(-1).amax(-1).topk(max(1, int(SURE * len(logits)))).indices
        length = (pooled[sure] - self.mean).norm(dim=-1).mean() * 0.75  # a mean is nearer than a picture
        self.means = self.mean + length * F.normalize(direction, dim=-1)  # (1000, F)

    def __call__(self, grids: Tensor, classes: Tensor) -> Tensor:
        """Grids ``(n, F, 7, 7)`` of any pictures, moved so that their mean is near that of ``classes (n,)``; where
        the object stands is a random blob."""
        shift = self.means.to(grids.device)[classes] - grids.mean((2, 3))
        coarse = torch.rand(len(grids), 1, 3, 3, device=grids.device)
        blob = F.interpolate(coarse, size=grids.shape[-2:], mode="bicubic")
        blob = (blob * 3 - 0.6).clamp(0.15, 1)
        blob = blob / blob.mean((2, 3), keepdim=True)
        strength = 0.7 + 0.5 * torch.rand(len(grids), 1, 1, 1, device=grids.device)
        return (grids + strength * blob * shift[..., None, None]).clamp(0, 6)


@torch.no_grad()
def solve_linear(layer: nn.Linear, inputs: Tensor, wanted: Tensor) -> None:
    """Set a linear layer to the least squares solution of ``inputs (n, I)`` to ``wanted (n, O)``, on the CPU: there
    inputs of deficient rank have a solution too."""
    padded = F.pad(inputs.cpu().double(), (0, 1), value=1.0)
    solution = torch.linalg.lstsq(padded, wanted.cpu().double(), driver="gelsd").solution.to(layer.weight)
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])
