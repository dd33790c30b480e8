"""P-tuning: prompt vectors that come out of a small encoder, before and after the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.base import TEXT_TOKENS, Backbone
from engine.errors import BadConfig, Note, messages
from engine.methods.prompt_tuning import Around, TextPrompt, too_many, word_ids
from engine.tuning.keep import KeepConfig
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TunerContext, option

messages(
    no_vector="no vector would be trained",
)


@dataclass(frozen=True)
class PTuningConfig(KeepConfig):
    """P-tuning's settings."""

    method = "p_tuning"
    front: int = option(6, 0, 64, help="trained vectors before the label")
    back: int = option(2, 0, 64, help="trained vectors after the label")
    anchor: str = option("", help="words that stay as they are, between the front vectors and the label")
    encoder: str = option("mlp", choices=("mlp", "lstm"), help="the network that the vectors come out of")
    hidden: int = option(128, 1, 4096, help="width of that network")
    layers: int = option(2, 1, 8, help="layers of the LSTM; the MLP always has three")
    epochs: int = option(40, 1, 2000, help="passes over the training images")
    lr: float = option(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate rises")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tokens:
            raise BadConfig(
                "setting_conflict",
                method=self.method,
                first="front = 0",
                second="back = 0",
                reason=Note("no_vector"),
            )

    @property
    def tokens(self) -> int:
        """M, the number of trained vectors."""
        return self.front + self.back

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        anchor = len(word_ids(backbone, self.anchor))
        return too_many(self.method, "front + back + anchor", self.tokens + anchor, backbone)


class PTuning(TextPrompt):
    """``[start] v_1 ... v_front anchor [label] v_front+1 ... v_M . [end]``, the v from PEFT's ``PromptEncoder``.

    The encoder only helps the training: :meth:`finished` keeps its M output vectors and drops it.
    """

    def __init__(self, config: PTuningConfig, setting: TunerContext):
        fixed = word_ids(setting.backbone, config.anchor)
        super().__init__(config, setting, reserve=config.tokens + len(fixed))
        self.fixed = fixed
        self.vectors: nn.Parameter | None = None
        self.encoder: Any = prompt_encoder(config, self.backbone.text.width).to(setting.support)

    def prompt(self) -> Tensor:
        """Return the trained vectors ``(M, D)``."""
        if self.vectors is not None:
            return self.vectors
        return self.encoder(torch.arange(self.config.tokens, device=self.ids.device)[None])[0]

    def around(self) -> Around:
        vectors, anchor = self.prompt(), self.backbone.text.embed_tokens(self.fixed)  # (M, D), (A, D)
        before, after = vectors[: self.config.front], vectors[self.config.front :]
        return Around(torch.cat([before, anchor]), after=after)

    @torch.no_grad()
    def finished(self) -> PTuning:
        if self.encoder is not None:
            self.vectors = nn.Parameter(self.prompt().clone())
            self.encoder = None
        return self

    def restorable(self) -> PTuning:
        return self.finished()


def prompt_encoder(config: PTuningConfig, width: int) -> Any:
    """PEFT's module, used without PEFT's model wrapper: that one has no task type for CLIP's text tower."""
    from peft import PromptEncoder, PromptEncoderConfig

    options: dict[str, Any] = {"encoder_num_layers": config.layers} if config.encoder == "lstm" else {}
    return PromptEncoder(
        PromptEncoderConfig(
            num_virtual_tokens=config.tokens,
            token_dim=width,
            num_transformer_submodules=1,
            encoder_hidden_size=config.hidden,
            encoder_reparameterization_type=config.encoder.upper(),
            **options,
        )
    )


def count(shape: Any, config: PTuningConfig, K: int, N: int) -> int:
    """Return the table and the encoder; of these the M·Dt numbers that come out are kept."""
    D, H = shape.text_width, config.hidden
    table = config.tokens * D
    if config.encoder == "mlp":
        return table + (D + 1) * H + (H + 1) * H + (H + 1) * D
    lstm = sum(2 * 4 * H * ((D if k == 0 else 2 * H) + H + 2) for k in range(config.layers))
    return table + lstm + (2 * H + 1) * 2 * H + (2 * H + 1) * D


register(
    MethodSpec(
        id="p_tuning",
        name="P-tuning",
        family="text prompt",
        sentence="Prompt tuning whose vectors stand on both sides of the label and come out of a small network.",
        use_when="Plain prompt tuning is stuck and there are eight or more images a label to train its encoder with.",
        equation="wₖ = text([v₁ …] [label k] [… v_M]),  v = encoder(table)",
        paper="Liu et al. 2021, GPT Understands, Too, arXiv 2103.10385",
        config=PTuningConfig,
        tuner=lambda: PTuning,
        count=count,
        formula="M·Dt + encoder while training; M·Dt saved",
        runs_on="text",
        failures=(
            "Starts from noise, so at one or two shots it can fall below zero-shot.",
            "The encoder has many more parameters than the prompt and can overfit few images.",
        ),
        saved="the M vectors; the encoder is dropped",
        needs=frozenset({TEXT_TOKENS}),
        presets={
            "budget": lambda shots: PTuningConfig(),
            "paper": lambda shots: PTuningConfig(encoder="lstm", lr=1e-3, hidden=256, epochs=100),
        },
    )
)
