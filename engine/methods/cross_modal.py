"""Cross-modal adaptation: the labels' texts are training samples of the probe, beside the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import HeadConfig, Tuner, TunerContext, option


@dataclass(frozen=True)
class CrossModalConfig(HeadConfig):
    """Cross-modal adaptation's own numbers."""

    method = "cross_modal"
    text_share: float = option(0.5, 0, 1, help="share of the texts in the loss; the images have the rest")
    epochs: int = option(100, 1, 2000, help="passes over the training images; all texts are in every step")
    lr: float = option(1e-3, 1e-8, 10, help="peak learning rate")
    weight_decay: float = option(0.01, 0, 10, help="decoupled weight decay (AdamW) or L2 (SGD)")


class CrossModal(Tuner):
    """``s x W^T`` for images and texts x alike, with W started at the texts."""

    texts: Tensor
    """Single and ensembled text of each label, ``(2K, P)``."""
    owners: Tensor
    """Labels of :attr:`texts`, ``(2K,)``."""

    def __init__(self, config: CrossModalConfig, setting: TunerContext):
        super().__init__(config, setting)
        labels = torch.arange(len(setting.labels), device=setting.ensemble.device)
        self.register_buffer("texts", torch.cat((setting.single, setting.ensemble)), persistent=False)
        self.register_buffer("owners", labels.repeat(2), persistent=False)
        self.weight = nn.Parameter(setting.ensemble.clone())  # (K, P)

    def text_features(self) -> Tensor:
        return nn.functional.normalize(self.weight, dim=-1)

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return self.backbone.logits(image, self.weight)

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().objective(x, targets)
        of_texts = self.loss(self.head(self.texts, self.weight), self.owners)
        share = self.config.text_share
        return (1 - share) * loss + share * of_texts, logits


register(
    MethodSpec(
        id="cross_modal",
        name="Cross-modal adaptation",
        family="head",
        sentence="Trains one weight vector a label on your images and on the labels' texts, as if those were images "
        "too.",
        use_when="You have one or two images a label: each text stands in for images that you do not have.",
        equation="logits = s·x·Wᵀ,  loss = (1 − τ)·CE(images) + τ·CE(texts)",
        paper="Lin et al. 2023, Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models, "
        "arXiv 2301.06267",
        config=CrossModalConfig,
        tuner=lambda: CrossModal,
        count=lambda shape, config, K, N: K * shape.embedding,
        formula="K·P",
        runs_on="features",
        failures=(
            "Texts lie apart from images in the shared space, so with many images they help less.",
            "Knows only the labels it was trained on.",
        ),
        saved="the weights of each label",
        starts_at="zero_shot_ensemble",
        presets={
            "budget": lambda shots: CrossModalConfig(blend="auto"),
            "paper": lambda shots: CrossModalConfig(epochs=min(2000, max(1, 12_800 // max(1, shots))), batch_size=8),
        },
    )
)
