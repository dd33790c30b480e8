"""Prompts drawn from true masks, and SAM's loss (Kirillov et al., arXiv 2304.02643, appendix A)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, Sam
from segment_anything.utils.amg import batched_mask_to_box

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0
"""Weights of focal loss, dice loss and the error of the predicted IoU, as in SAM."""


def depth(masks: torch.Tensor, most: int = 16) -> torch.Tensor:
    """How many erosions by one pixel each point of ``masks (R, H, W)`` bool outlives, at most ``most``."""
    left, total = masks[:, None].float(), masks[:, None].float()
    for _ in range(most):
        left = -F.max_pool2d(-F.pad(left, (1, 1, 1, 1)), 3, 1)
        total = total + left
    return total[:, 0]


def draw(weights: torch.Tensor, cell: int) -> torch.Tensor:
    """One point ``(R, 1, 2)`` in XY pixels for each map of ``weights (R, H, W)``, whose pixels are ``cell`` wide."""
    R, _, width = weights.shape
    flat = torch.multinomial(weights.flatten(1) + 1e-9, 1)  # (R, 1)
    cells = torch.stack([flat % width, flat // width], -1).float()  # (R, 1, 2)
    return (cells + torch.rand(R, 1, 2, device=weights.device)) * cell - 0.5


def first_click(masks: torch.Tensor, cell: int) -> torch.Tensor:
    """A point inside each mask: for half of them anywhere, for the others rather in the middle."""
    inner = depth(masks)
    middle = (inner / inner.amax((1, 2), keepdim=True).clamp(min=1)) ** 4
    anywhere = (torch.rand(len(masks), 1, 1, device=masks.device) < 0.5).float()
    return draw(torch.where(anywhere > 0, masks.float(), middle * masks), cell)


def correction(masks: torch.Tensor, predicted: torch.Tensor, cell: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A click ``(R, 1, 2)`` on a wrong pixel and its label ``(R, 1)``: 1 = was missed, 0 = too much.

    Where nothing is wrong, another click inside the mask.
    """
    wrong = masks ^ predicted
    right = ~wrong.flatten(1).any(1)
    points = draw(torch.where(right[:, None, None], masks, wrong).float(), cell)
    at = ((points + 0.5) / cell).long().clamp(0, masks.shape[-1] - 1)[:, 0]  # (R, 2)
    return points, masks[torch.arange(len(masks), device=masks.device), at[:, 1], at[:, 0]].int()[:, None]


def jittered_boxes(masks: torch.Tensor, share: float = 0.1, most: float = 5.0) -> torch.Tensor:
    """Boxes ``(R, 4)`` XYXY in pixels around ``masks (R, H, W)``, each side moved by noise of a tenth of its length."""
    box = batched_mask_to_box(masks).float()
    sides = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    return box + (torch.randn_like(box) * share * sides).clamp(-most, most)


def decode_masks(
    sam: Sam, features: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All four masks ``(R, 4, h, w)`` and predicted IoUs ``(R, 4)`` for prompts on several images at once.

    ``features (R, C, h, w)`` holds each prompt's own image, where the library's decoder repeats one
    image for all; the arithmetic is that of ``MaskDecoder.predict_masks``.
    """
    decoder: MaskDecoder = sam.mask_decoder
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)
    source = features + dense
    R, C, h, w = source.shape
    place = sam.prompt_encoder.get_dense_pe().expand(R, -1, -1, -1)
    hidden, source = decoder.transformer(source, place, tokens)
    masks_out = hidden[:, 1 : 1 + decoder.num_mask_tokens]
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(R, C, h, w))
    weights = [mlp(masks_out[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    masks = torch.einsum("rmc,rchw->rmhw", torch.stack(weights, 1), upscaled)
    return masks.float(), decoder.iou_prediction_head(hidden[:, 0]).float()


def intersection_over_union(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """IoU of bool masks over the last two dimensions, 0 to 1; 0 where both are empty."""
    both = (predicted & truth).sum((-2, -1)).float()
    return both / (predicted | truth).sum((-2, -1)).clamp(min=1)


def mask_losses(logits: torch.Tensor, coverage: torch.Tensor) -> torch.Tensor:
    """20 x focal + dice of every mask ``(R, M, h, w)`` against ``coverage (R, h, w)``, the share of each
    low-resolution pixel that the true mask covers; returns ``(R, M)``."""
    target = coverage[:, None].expand_as(logits)
    p = logits.sigmoid()
    missed = (target - p).abs()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    alpha = 0.25 * target + 0.75 * (1 - target)
    focal = (alpha * missed**2 * cross).mean((-2, -1))
    both, total = (p * target).sum((-2, -1)), (p + target).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (total + 1)
    return FOCAL_WEIGHT * focal + DICE_WEIGHT * dice


def round_loss(
    logits: torch.Tensor, scores: torch.Tensor, coverage: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of one round of prompts, and which mask ``(R, h, w)`` of logits the next round corrects.

    Of the three masks for ambiguous prompts only the best is trained; the single mask (the first)
    always is. ``scores`` are trained towards the masks' true IoU. ``valid (R,)`` leaves rows out.
    """
    each = mask_losses(logits, coverage)  # (R, 4)
    truth = intersection_over_union(logits.detach() > 0, coverage[:, None] > 0.5)
    loss = each[:, 0] + each[:, 1:].amin(1) + IOU_WEIGHT * ((scores - truth) ** 2).mean(1)
    kept = (loss * valid).sum() / valid.sum().clamp(min=1)
    return kept, logits.detach()[:, 0]
