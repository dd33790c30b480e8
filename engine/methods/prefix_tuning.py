"""Prefix tuning: trained keys and values in the attention of every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import FEATURES, Backbone, Shape, fill
from engine.errors import BadConfig, messages
from engine.tuning.keep import KeepConfig, KeepsTexts
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TunerContext, option, tower_title

messages(
    no_prefix_attention="{method} cannot run on {backbone}: the attention of {tower} has no separate query, "
    "key and value layers that a prefix can join. Choose the other tower or another backbone.",
)


@dataclass(frozen=True)
class PrefixTuningConfig(KeepConfig):
    """Settings of prefix tuning."""

    method = "prefix_tuning"
    tokens: int = option(4, 1, 64, help="M, trained keys and values in each layer")
    towers: str = option("text", choices=("text", "vision", "both"), help="which towers")
    encoder: bool = option(True, help="keys and values come out of a small network while they are trained")
    hidden: int = option(128, 1, 4096, help="width of that network")
    epochs: int = option(40, 1, 2000, help="passes over the training images")
    lr: float = option(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate rises")

    @property
    def chosen_towers(self) -> tuple[str, ...]:
        """``text``, ``vision`` or both."""
        return ("text", "vision") if self.towers == "both" else (self.towers,)

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        """Return why these settings cannot run on a backbone; None where they can."""
        for tower in self.chosen_towers:
            blocks = getattr(backbone, tower).blocks
            if not blocks or not all(hasattr(getattr(b, "self_attn", None), "q_proj") for b in blocks):
                return BadConfig(
                    "no_prefix_attention", method=self.method, backbone=backbone.id, tower=tower_title(tower)
                )
        return None


class PrefixAttention(nn.Module):
    """transformers' CLIP or SigLIP self-attention with M more keys and values, which every token sees.

    The tokens' own positions, queries and causal order stay as they are: a prefix is no token.
    """

    prefix: tuple[Tensor, Tensor]
    """Keys and values of this layer, ``(H, M, D / H)`` each; set before every pass through the tower."""

    def __init__(self, attention: Any):
        super().__init__()
        self.attention = attention

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, is_causal: bool = False, **_: Any
    ) -> tuple[Tensor, None]:
        """Tokens ``(B, T, D)`` to ``(B, T, D)``; ``attention_mask``, if any, is added to the scores of the T tokens."""
        attention, (B, T, _D) = self.attention, hidden_states.shape
        q, k, v = (
            layer(hidden_states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        own_k, own_v = (extra.expand(B, *extra.shape) for extra in self.prefix)  # (B, H, M, D / H)
        M, mask = own_k.shape[2], None
        if is_causal:
            mask = torch.ones(T, M + T, dtype=torch.bool, device=q.device).tril(M)  # the prefix and what came before
        elif attention_mask is not None:
            mask = F.pad(attention_mask, (M, 0), value=True if attention_mask.dtype == torch.bool else 0.0)
        mixed = F.scaled_dot_product_attention(
            q, torch.cat([own_k, k], dim=2), torch.cat([own_v, v], dim=2), attn_mask=mask, scale=attention.scale
        )
        return attention.out_proj(mixed.transpose(1, 2).flatten(2)), None


class PrefixTuning(KeepsTexts):
    """M keys and values a layer, from PEFT's ``PrefixEncoder`` while they are trained; the encoder is then dropped.

    PEFT hands its prefix to a language model as ``past_key_values``; CLIP's towers take none, so each
    block's attention is wrapped, on a twin of the backbone.
    """

    def __init__(self, config: PrefixTuningConfig, setting: TunerContext):
        super().__init__(config, setting)
        obstacle = config.obstacle(self.backbone)
        if obstacle:
            raise obstacle
        self.tuned = self.backbone.twin()
        self.ids = self.backbone.tokenize([fill(setting.templates[0], label.prompt) for label in setting.labels])
        self.stage = FEATURES if config.towers == "text" else 0
        self.prefixes = nn.ParameterDict()
        self.encoders = nn.ModuleDict()
        for name in config.chosen_towers:
            tower = getattr(self.tuned, name)
            for block in tower.blocks:
                block.self_attn = PrefixAttention(block.self_attn)
            self.encoders[name] = prefix_encoder(config, tower.width, len(tower.blocks)).to(setting.support)

    def prefix(self, tower: str) -> Tensor:
        """Trained keys and values ``(M, 2 L D)``: of layer 0 the keys, then the values, of layer 1 the keys, ..."""
        if tower in self.prefixes:
            return self.prefixes[tower]
        return self.encoders[tower](torch.arange(self.config.tokens, device=self.ids.device)[None])[0]

    def place(self, name: str) -> None:
        """Give each layer of a tower its keys and values, divided as PEFT does."""
        tower = getattr(self.tuned, name)
        heads = tower.blocks[0].self_attn.attention.num_heads
        split = self.prefix(name).view(self.config.tokens, 2 * len(tower.blocks), heads, -1).permute(1, 2, 0, 3)
        for k, block in enumerate(tower.blocks):
            block.self_attn.prefix = (split[2 * k], split[2 * k + 1])  # (H, M, D / H) each

    def image_features(self, x: Tensor) -> Tensor:
        if self.stage == FEATURES:
            return x
        self.place("vision")
        return self.tuned.vision.advance(x, self.stage, FEATURES)

    def text_features(self) -> Tensor:
        if self.config.towers == "vision":
            return self.frozen_text
        self.place("text")
        return self.tuned.encode_text(self.ids)

    @torch.no_grad()
    def finished(self) -> PrefixTuning:
        for name in list(self.encoders):
            self.prefixes[name] = nn.Parameter(self.prefix(name).clone())
            del self.encoders[name]
        return self

    def restorable(self) -> PrefixTuning:
        return self.finished()


def prefix_encoder(config: PrefixTuningConfig, width: int, layers: int) -> Any:
    """PEFT's module: a table of M rows and, with ``encoder``, the network ``D -> hidden -> 2 L D`` on top."""
    from peft import PrefixEncoder, PrefixTuningConfig

    return PrefixEncoder(
        PrefixTuningConfig(
            num_virtual_tokens=config.tokens,
            token_dim=width,
            num_layers=layers,
            prefix_projection=config.encoder,
            encoder_hidden_size=config.hidden,
        )
    )


def count(shape: Shape, config: PrefixTuningConfig, K: int, N: int) -> int:
    """Table and network of each tower; of these the 2 L M D numbers that come out are kept."""
    total = 0
    for tower in config.chosen_towers:
        width, layers = getattr(shape, f"{tower}_width"), getattr(shape, f"{tower}_layers")
        outputs = 2 * layers * width
        network = config.tokens * width + (width + 1) * config.hidden + (config.hidden + 1) * outputs
        total += network if config.encoder else config.tokens * outputs
    return total


register(
    MethodSpec(
        id="prefix_tuning",
        name="Prefix tuning",
        family="text prompt",
        recommended=True,
        sentence="Adds trained keys and values to the attention of every layer, so that all words look at them.",
        use_when="Word vectors at the input are too weak, but the weights of the text tower must stay as they are.",
        equation="attention(q, [P_K ; K], [P_V ; V]) in every layer,  P = encoder(table)",
        paper="Li & Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation, arXiv 2101.00190",
        config=PrefixTuningConfig,
        tuner=lambda: PrefixTuning,
        count=count,
        formula="M·D + encoder while training; L·2·M·D saved (of each tower)",
        runs_on="text",
        failures=(
            "Does not start at zero-shot: even an untrained prefix takes a part of the attention.",
            "With the image tower too, every step runs it again, which is many times slower.",
        ),
        saved="M keys and values of each layer; the encoder is dropped",
        presets={
            "budget": lambda shots: PrefixTuningConfig(),
            "paper": lambda shots: PrefixTuningConfig(tokens=10, hidden=512, lr=5e-5, epochs=100, batch_size=5),
        },
    )
)
