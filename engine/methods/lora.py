"""LoRA in the attention of either tower, by PEFT."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engine.backbones.base import FEATURES, LINEAR, LINEAR_KINDS, TEXT_TOKENS, Backbone, fill
from engine.errors import BadConfig, Note, any_of, messages
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, Tuner, TunerContext, option, tower_title

messages(
    allowed_among="among {names}",
    no_such_layers="{method}: {tower} of {backbone} has no linear layers {targets} in the chosen blocks "
    "(it has: {there}). Choose other targets, the other tower or more blocks.",
)


class LayerChoice:
    """The linear layers that a config names by its fields ``targets``, ``towers`` and ``last_blocks``."""

    method: ClassVar[str]
    targets: str
    towers: str
    last_blocks: int

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of TowerConfig
        unknown = [kind for kind in self.kinds if kind not in LINEAR_KINDS]
        if unknown or not self.kinds:
            raise BadConfig(
                "bad_setting",
                method=self.method,
                name="targets",
                value=self.targets,
                allowed=Note.of("allowed_among", names=",".join(LINEAR_KINDS)),
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The targets as a tuple."""
        return tuple(kind.strip() for kind in self.targets.split(",") if kind.strip())

    @property
    def chosen_towers(self) -> tuple[str, ...]:
        """``vision``, ``text`` or both."""
        return ("vision", "text") if self.towers == "both" else (self.towers,)

    def names(self, backbone: Backbone) -> list[str]:
        """Modules of the backbone's model that get a low-rank path."""
        return [name for tower in self.chosen_towers for name in self.tower_names(backbone, tower)]

    def tower_names(self, backbone: Backbone, tower: str) -> list[str]:
        """Return the modules of one tower."""
        layers = len(getattr(backbone, tower).blocks)
        return backbone.linear_names(tower, self.kinds, first_block(layers, self.last_blocks))

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        for tower in self.chosen_towers:
            if not self.tower_names(backbone, tower):
                there = any_of(kind for kind in LINEAR_KINDS if backbone.linear_names(tower, [kind]))
                return BadConfig(
                    "no_such_layers",
                    method=self.method,
                    backbone=backbone.id,
                    tower=tower_title(tower),
                    targets=self.targets,
                    there=there,
                )
        return None


@dataclass(frozen=True)
class LoraConfig(LayerChoice, TowerConfig):
    """LoRA's settings."""

    method = "lora"
    r: int = option(8, 1, 256, help="rank")
    alpha: float = option(16.0, 0.01, 1024, help="scaling: the update is multiplied by alpha / r")
    dropout: float = option(0.0, 0, 0.9, help="dropout on the input of the low-rank path")
    targets: str = option("q,v", help="linear layers, by comma: q, k, v, out, fc1, fc2")
    towers: str = option("both", choices=("both", "vision", "text"), help="which towers")
    last_blocks: int = option(0, 0, 100, help="only the last n blocks of a tower; 0 = all")
    epochs: int = option(20, 1, 20_000, help="passes over the training images")
    steps: int = option(0, 0, 1_000_000, help="training steps in the place of epochs; 0 = by epochs")
    lr: float = option(1e-3, 1e-8, 10, help="peak learning rate at width 768; grows with the inverse width")
    weight_decay: float = option(1e-2, 0, 10, help="decoupled weight decay")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")


def first_block(layers: int, last_blocks: int) -> int:
    """First of the last n blocks; n = 0 means all."""
    return max(0, layers - last_blocks) if last_blocks else 0


REFERENCE_WIDTH = 768
"""Width of the tower that published learning rates of weight methods were found on (ViT-B)."""


class TowerTuner(Tuner):
    """A method that changes a twin of the backbone: features come from the twin's towers.

    Learning rates are those of a tower ``REFERENCE_WIDTH`` wide and grow with its inverse width, as
    Adam's best rate for hidden matrices does (muP: Yang et al. 2022, arXiv 2203.03466).
    """

    tuned: Backbone
    tunes_text: bool = True
    text_start: int = 0
    """First block of the text tower that is tuned; what enters it is computed once."""
    entering: Tensor
    """The prompts' tokens ``(K, T, D)`` that enter block ``text_start``, where that is not the first."""

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__(config, setting)
        prompts = [fill(setting.templates[0], label.prompt) for label in setting.labels]
        self.lr_factor = REFERENCE_WIDTH / self.backbone.shape.vision_width
        self.ids: Tensor = self.backbone.tokenize(prompts)

    def image_features(self, x: Tensor) -> Tensor:
        return self.tuned.vision.advance(x, self.stage, FEATURES)

    def text_features(self) -> Tensor:
        if not self.tunes_text:
            return self.frozen_text
        if not self.text_start:
            return self.tuned.encode_text(self.ids)
        return self.tuned.text.encode_from_block(self.entering, self.backbone.end_of(self.ids), self.text_start)

    @torch.no_grad()
    def keep_text_prefix(self, start: int) -> None:
        """Run the prompts through the frozen blocks before ``start`` once and for all."""
        if start and TEXT_TOKENS in self.backbone.offers:
            text = self.backbone.text
            entering = text.run(text.add_positions(text.embed_tokens(self.ids)), 0, start)
            self.register_buffer("entering", entering, persistent=False)
            self.text_start = start

    def merged(self) -> Backbone | None:
        own = self.tuned.model.state_dict().keys()
        plain = (self.backbone.model, self.backbone.twin().model)  # as it was trained, and with folded convolutions
        return self.tuned if any(own == model.state_dict().keys() for model in plain) else None

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return self.tuned.logits(image, text)

    def train(self, mode: bool = True) -> TowerTuner:
        """Batch norms keep the statistics of the pretraining: those of a few images would ruin them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class PeftTuner(TowerTuner):
    """An adapter of PEFT on a twin that shares every frozen tensor with the backbone."""

    peft_model: Any

    def attach(self, adapter: Any) -> None:
        """Put a PEFT config's modules into a new twin."""
        import peft

        with warnings.catch_warnings():  # PEFT asks transformers 5 for an attribute by its old name
            warnings.simplefilter("ignore", FutureWarning)
            self.peft_model = peft.get_peft_model(self.backbone.twin().model, adapter)
        self.tuned = self.backbone.replace_model(self.peft_model.base_model.model)

    def merged(self) -> Backbone | None:
        own = copy.deepcopy(self.peft_model)  # with tensors of its own: merging writes into the frozen ones
        return self.backbone.replace_model(own.merge_and_unload())

    def save_library_format(self, folder: Path) -> None:
        self.peft_model.save_pretrained(str(folder), save_embedding_layers=False)


class LinearTuner(PeftTuner):
    """An adapter of PEFT in linear layers of either tower: all blocks, or only the last ones."""

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__(config, setting)
        self.tunes_text, shape = config.towers != "vision", self.backbone.shape
        self.stage = first_block(shape.vision_layers, config.last_blocks) if config.towers != "text" else FEATURES
        if self.tunes_text:
            self.keep_text_prefix(first_block(shape.text_layers, config.last_blocks))
        self.attach(self.adapter(self.backbone.peft_targets(config.names(self.backbone))))

    def adapter(self, targets: list[str] | str) -> Any:
        """Return the PEFT config for these modules."""
        raise NotImplementedError


class Lora(LinearTuner):
    """PEFT's LoRA."""

    def adapter(self, targets: list[str] | str) -> Any:
        import peft

        return peft.LoraConfig(
            r=self.config.r,
            lora_alpha=self.config.alpha,  # PEFT divides it by r; CLIP-LoRA uses 1.0
            lora_dropout=self.config.dropout,
            target_modules=targets,
        )


def count(shape: Any, config: LoraConfig, K: int, N: int) -> int:
    """r times (inputs + outputs) of every target."""
    total = 0
    for tower in config.chosen_towers:
        first = first_block(getattr(shape, f"{tower}_layers"), config.last_blocks)
        total += config.r * sum(i + o for i, o in shape.linears(tower, config.kinds, first))
    return total


def clip_lora(shots: int) -> LoraConfig:
    """CLIP-LoRA's published settings: 500 steps a shot in batches of 32, however many labels there are (its code's
    ``n_iters * shots``)."""
    return LoraConfig(
        r=2,
        alpha=1.0,
        dropout=0.25,
        targets="q,k,v",
        lr=2e-4,
        weight_decay=1e-2,
        views=16,
        min_crop=0.08,
        steps=500 * shots,
    )


register(
    MethodSpec(
        id="lora",
        name="LoRA",
        family="weights",
        recommended=True,
        leading=True,
        sentence="Adds small low-rank matrices to the attention layers of both towers and trains only those.",
        use_when="The features themselves must change: images far from web photos, and minutes of training are "
        "acceptable.",
        equation="W′ = W + (α/r)·B·A",
        paper="Hu et al. 2021, arXiv 2106.09685; CLIP-LoRA: Zanella & Ben Ayed 2024, arXiv 2405.18541",
        config=LoraConfig,
        tuner=lambda: Lora,
        count=count,
        formula="r·Σ(in + out) over the targeted layers",
        runs_on="both@k",
        failures=("The learning rate decides: too high and other labels are forgotten.",),
        saved="the low-rank matrices; also in PEFT's own format",
        starts_at="zero_shot",
        needs=frozenset({LINEAR}),
        presets={"budget": lambda shots: LoraConfig(), "paper": clip_lora},
    )
)
