"""CoOp: trained vectors in place of the words around a class name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.base import TEXT_TOKENS, Backbone
from engine.errors import BadConfig
from engine.methods.base import Setting, TrainConfig, Tuner, setting
from engine.registry import MethodSpec, register

LABEL_TOKENS = 8
"""Tokens of the context that are kept free for a label, with start, full stop and end."""


@dataclass(frozen=True)
class PromptTuningConfig(TrainConfig):
    """CoOp's settings."""

    method = "prompt_tuning"
    tokens: int = setting(4, 1, 64, help="M, number of trained vectors")
    init: str = setting("words", choices=("words", "noise"), help="start from words or from noise (std 0.02)")
    words: str = setting("a photo of a", help="the words to start from; cut or filled with noise to M tokens")
    per_class: bool = setting(False, help="a set of vectors for each label instead of a shared one")
    class_token: str = setting(
        "end", choices=("end", "middle", "front"), help="where the label stands among the vectors"
    )
    epochs: int = setting(40, 1, 2000, help="passes over the training images")
    lr: float = setting(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = setting(1, 0, 100, help="epochs at the start with a small learning rate")

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        return too_many(self.method, "tokens", self.tokens, backbone)


def too_many(method: str, name: str, vectors: int, backbone: Backbone) -> BadConfig | None:
    """Why so many vectors leave no room for a label; None where they do."""
    most = backbone.shape.context - LABEL_TOKENS
    if vectors <= most:
        return None
    return BadConfig("bad_setting", method=method, name=name, value=vectors, allowed=f"between 1 and {most}")


def word_vectors(backbone: Backbone, text: str) -> Tensor:
    """Token embeddings ``(n, D)`` of a text's words, without start and end."""
    ids = backbone.tokenize([text])
    return backbone.text.embed_tokens(ids)[0, backbone.start_tokens : int(backbone.words_end(ids)[0])].detach()


class TextPrompt(Tuner):
    """Trained vectors among the tokens of ``[start] label . [end]``, through the frozen text tower.

    Args:
        reserve: number of vectors, so that long labels leave room for them.
    """

    class_tokens: Tensor

    def __init__(self, config: Any, setting: Setting, reserve: int):
        super().__init__(config, setting)
        backbone = self.backbone
        ids = backbone.tokenize([f"{label.prompt}." for label in setting.labels], reserve=reserve)
        with torch.no_grad():
            self.register_buffer("class_tokens", backbone.text.embed_tokens(ids).clone(), persistent=False)  # (K, T, D)
        self.ends: Tensor = backbone.end_of(ids)  # (K,)
        self.words_end: Tensor = backbone.words_end(ids)  # (K,)
        self.stop_tokens = min(1, max(0, backbone.count_tokens("x.") - backbone.count_tokens("x")))

    def encode(self, context: Tensor, where: str = "end", after: Tensor | None = None) -> Tensor:
        """Text features of the labels with vectors around them.

        Args:
            context: ``(M, D)`` for all labels, ``(K, M, D)``, or ``(B K, M, D)`` for B versions of every label.
            where: where the label stands, as in :func:`place`.
            after: more vectors ``(A, D)`` between each label and its full stop.

        Returns:
            ``(K, P)`` or ``(B K, P)``, normalised.
        """
        versions = max(1, len(context) // len(self.class_tokens)) if context.ndim == 3 else 1
        tokens = self.class_tokens.repeat(versions, 1, 1)
        pooled, words = self.ends.repeat(versions), self.words_end.repeat(versions)
        around = (self.backbone.start_tokens, self.stop_tokens)
        if after is not None:
            tokens = place(after.expand(len(tokens), *after.shape), tokens, words, "front", *around)
            pooled, words = pooled + len(after), words + len(after)
        context = context.expand(len(tokens), *context.shape[-2:])  # (K, M, D)
        tokens = place(context, tokens, words, where, *around)
        return self.backbone.text.encode_tokens(tokens, pooled + context.shape[-2])


class PromptTuning(TextPrompt):
    """``[start] v_1 ... v_M [label] . [end]``."""

    def __init__(self, config: PromptTuningConfig, setting: Setting):
        super().__init__(config, setting, reserve=config.tokens)
        start = start_vectors(config, setting)  # (M, D)
        self.context = nn.Parameter(start.repeat(len(setting.labels), 1, 1) if config.per_class else start)

    def text_features(self) -> Tensor:
        return self.encode(self.context, self.config.class_token)


def start_vectors(config: Any, setting: Setting) -> Tensor:
    """Initial context ``(M, D)``: embeddings of the config's ``words``, then noise; with ``init`` noise, only that."""
    backbone = setting.backbone
    noise = torch.randn(config.tokens, backbone.text.width, generator=setting.generator()) * 0.02
    noise = noise.to(setting.support)
    if config.init == "noise":
        return noise
    words = word_vectors(backbone, config.words)
    return torch.cat([words[: config.tokens], noise[len(words) :]])


def place(context: Tensor, tokens: Tensor, ends: Tensor, where: str, start: int = 1, stops: int = 1) -> Tensor:
    """Context ``(K, M, D)`` joined with ``[start] label . [end] padding``, ``(K, T, D)``.

    ``end``: before the label; ``front``: between the label and the full stop; ``middle``: half each.

    Args:
        ends: position after each row's last word or full stop, ``(K,)``.
        start, stops: tokens before the label, and of the full stop (0 where the tokenizer drops it).
    """
    if where == "end":
        return torch.cat([tokens[:, :start], context, tokens[:, start:]], dim=1)
    half = context.shape[1] // 2 if where == "middle" else 0
    rows = []
    for row, vectors, end in zip(tokens, context, ends.tolist(), strict=True):
        stop = max(start, end - stops)  # position of the full stop
        rows.append(torch.cat([row[:start], vectors[:half], row[start:stop], vectors[half:], row[stop:]]))
    return torch.stack(rows)


def count(shape: Any, config: PromptTuningConfig, K: int, N: int) -> int:
    """M·Dt, times K with a context for each class."""
    return config.tokens * shape.text_width * (K if config.per_class else 1)


def paper(shots: int) -> PromptTuningConfig:
    """CoOp's published schedule."""
    epochs = 50 if shots <= 1 else 100 if shots <= 4 else 200
    return PromptTuningConfig(tokens=16, init="noise", epochs=epochs, optimizer="sgd", lr=2e-3, warmup="constant")


register(
    MethodSpec(
        id="prompt_tuning",
        name="Prompt tuning (CoOp)",
        family="text prompt",
        sentence="Replaces the words around each label by trained vectors; both towers stay frozen.",
        use_when="The labels are hard to put into words, and you want a tiny file that works with the frozen model.",
        equation="wₖ = text([v₁ … v_M] [label k])",
        paper="Zhou et al. 2021, Learning to Prompt for Vision-Language Models, arXiv 2109.01134",
        config=PromptTuningConfig,
        tuner=lambda: PromptTuning,
        count=count,
        formula="M·Dt (K·M·Dt with a context a class)",
        runs_on="text",
        failures=(
            "Loses accuracy on labels it was not tuned on (about 11 points in the CoCoOp paper).",
            "At one shot it can fall below zero-shot.",
        ),
        saved="the M vectors",
        starts_at="zero_shot",
        needs=frozenset({TEXT_TOKENS}),
        presets={"budget": lambda shots: PromptTuningConfig(), "paper": paper},
    )
)
