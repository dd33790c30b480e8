"""CoOp: trained vectors in place of the words around a class name."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.backbones.base import TEXT_TOKENS, Backbone
from engine.errors import BadConfig, Note, messages
from engine.tuning.keep import KeepConfig, KeepsTexts
from engine.tuning.learned import LearnedToken, LearnedTokens, Piece, nearest_words
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TunerContext, option

LABEL_TOKENS = 8
"""Tokens of the context that are kept free for a label, with start, full stop and end."""
MOST_LABELS = 12
"""Labels whose own vectors are described."""

messages(
    learned_shared="{count} trained vectors stand in the text of every label. For {label} the text tower reads:",
    learned_own="The {count} trained vectors of {label}. The text tower reads:",
)


@dataclass(frozen=True)
class PromptTuningConfig(KeepConfig):
    """CoOp's settings."""

    method = "prompt_tuning"
    tokens: int = option(4, 1, 64, help="M, number of trained vectors")
    init: str = option("words", choices=("words", "noise"), help="start from words or from noise (std 0.02)")
    words: str = option("a photo of a", help="the words to start from; cut or filled with noise to M tokens")
    per_class: bool = option(False, help="a set of vectors for each label instead of a shared one")
    class_token: str = option(
        "end", choices=("end", "middle", "front"), help="where the label stands among the vectors"
    )
    epochs: int = option(100, 1, 2000, help="passes over the training images")
    lr: float = option(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start with a small learning rate")

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        return too_many(self.method, "tokens", self.tokens, backbone)


def too_many(method: str, name: str, vectors: int, backbone: Backbone) -> BadConfig | None:
    """Return why so many vectors leave no room for a label; None where they do."""
    most = backbone.shape.context - LABEL_TOKENS
    if vectors <= most:
        return None
    return BadConfig(
        "bad_setting", method=method, name=name, value=vectors, allowed=Note.of("allowed_between", low=1, high=most)
    )


def word_ids(backbone: Backbone, text: str) -> Tensor:
    """Return ids ``(n,)`` of a text's words, without start and end."""
    ids = backbone.tokenize([text])
    return ids[0, backbone.start_tokens : int(backbone.words_end(ids)[0])]


def word_vectors(backbone: Backbone, text: str) -> Tensor:
    """Token embeddings ``(n, D)`` of a text's words, without start and end."""
    return backbone.text.embed_tokens(word_ids(backbone, text)).detach()


class Around(NamedTuple):
    """What stands around a label."""

    context: Tensor
    """``(M, D)`` for all labels, ``(K, M, D)``, or ``(B K, M, D)`` for B versions of every label."""
    where: str = "end"
    """Where the label stands among them, as in :func:`place`."""
    after: Tensor | None = None
    """More vectors ``(A, D)`` between each label and its full stop."""


class TextPrompt(KeepsTexts):
    """Trained vectors among the tokens of ``[start] label . [end]``, through the frozen text tower.

    Args:
        reserve: number of vectors, so that long labels leave room for them.
    """

    class_tokens: Tensor
    fixed: Tensor
    """Ids of words at the end of the context that are not trained, ``(A,)``."""

    def __init__(self, config: Any, setting: TunerContext, reserve: int):
        super().__init__(config, setting)
        backbone = self.backbone
        self.labels = tuple(label.name for label in setting.labels)
        self.ids = backbone.tokenize([f"{label.phrase}." for label in setting.labels], reserve=reserve)  # (K, T)
        with torch.no_grad():
            class_tokens = backbone.text.embed_tokens(self.ids).clone()
        self.register_buffer("class_tokens", class_tokens, persistent=False)  # (K, T, D)
        self.ends: Tensor = backbone.end_of(self.ids)  # (K,)
        self.words_end: Tensor = backbone.words_end(self.ids)  # (K,)
        self.stop_tokens = min(1, max(0, backbone.count_tokens("x.") - backbone.count_tokens("x")))
        self.fixed = self.ids.new_empty(0)

    def around(self) -> Around:
        """Return the vectors around every label, as they are trained so far."""
        raise NotImplementedError

    def text_features(self) -> Tensor:
        return self.encode(*self.around())

    def encode(self, context: Tensor, where: str = "end", after: Tensor | None = None) -> Tensor:
        """Text features of the labels with vectors around them, as in :class:`Around`: ``(K, P)`` or ``(B K, P)``,
        normalised."""
        versions = max(1, len(context) // len(self.class_tokens)) if context.ndim == 3 else 1
        tokens = self.join(self.class_tokens.repeat(versions, 1, 1), context, where, after)
        moved = context.shape[-2] + (0 if after is None else len(after))
        return self.backbone.text.encode_tokens(tokens, self.ends.repeat(versions) + moved)

    def join(self, tokens: Tensor, context: Tensor, where: str, after: Tensor | None) -> Tensor:
        """Put vectors among the labels' tokens ``(K, T, D)`` or ``(B K, T, D)``; only this says what stands where."""
        words = self.words_end.repeat(len(tokens) // len(self.words_end))
        stands = (self.backbone.start_tokens, self.stop_tokens)
        if after is not None:
            tokens = place(after.expand(len(tokens), *after.shape), tokens, words, "front", *stands)
            words = words + len(after)
        return place(context.expand(len(tokens), *context.shape[-2:]), tokens, words, where, *stands)

    # ---- what was learned, for people

    def start_ids(self) -> Tensor:
        """Return ids of the words that the first vectors started from; empty where that was noise."""
        if getattr(self.config, "init", "noise") == "noise":
            return self.ids.new_empty(0)
        return word_ids(self.backbone, self.config.words)[: self.config.tokens]

    @torch.no_grad()
    def learned(self) -> tuple[LearnedTokens, ...]:
        around = self.around()
        own = around.context.ndim == 3
        return tuple(self.describe(k, around, own) for k in range(min(len(self.labels), MOST_LABELS) if own else 1))

    def describe(self, k: int, around: Around, own: bool) -> LearnedTokens:
        """Return the vectors of label ``k`` and where they stand; ``own``: no other label has them."""
        context = around.context[k] if own else around.context
        vectors = context[: len(context) - len(self.fixed)]
        vectors = vectors if around.after is None else torch.cat([vectors, around.after])  # (M, D)
        ids = self.start_ids()
        moved = (vectors[: len(ids)] - self.backbone.text.embed_tokens(ids)).norm(dim=-1).tolist()
        words = [self.backbone.decode([id]) for id in ids.tolist()]
        unknown = len(vectors) - len(ids)
        rows = zip(
            nearest_words(self.backbone, vectors), [*words, *[""] * unknown], [*moved, *[None] * unknown], strict=True
        )
        tokens = tuple(LearnedToken(f"v{n}", near, word, far) for n, (near, word, far) in enumerate(rows, 1))
        about = Note("learned_own" if own else "learned_shared", (("count", len(tokens)), ("label", self.labels[k])))
        return LearnedTokens(about, self.labels[k], not own, self.layout(k, around), tokens)

    def layout(self, k: int, around: Around) -> tuple[Piece, ...]:
        """What the tower reads for label ``k``: the real placing, done with ids, and with -1, -2, ... for v1, v2."""
        before = around.context.shape[-2] - len(self.fixed)
        after = 0 if around.after is None else len(around.after)
        marks = -torch.arange(1, before + after + 1, device=self.ids.device)
        context = torch.cat([marks[:before], self.fixed])[:, None].double()  # ids as vectors of one number
        behind = None if around.after is None else marks[before:, None].double()
        row = self.join(self.ids[..., None].double(), context, around.where, behind)[k, :, 0]
        end = int(self.words_end[k]) + len(context) + after
        ids = [int(id) for id in row[self.backbone.start_tokens : end].tolist()]
        pieces: list[Piece] = []
        for trained, group in itertools.groupby(ids, lambda id: id < 0):
            together = list(group)
            names = [f"v{-id}" for id in together] if trained else [self.backbone.decode(together)]
            pieces += [Piece(name, trained) for name in names]
        return tuple(pieces)


class PromptTuning(TextPrompt):
    """``[start] v_1 ... v_M [label] . [end]``."""

    def __init__(self, config: PromptTuningConfig, setting: TunerContext):
        super().__init__(config, setting, reserve=config.tokens)
        start = start_vectors(config, setting)  # (M, D)
        self.context = nn.Parameter(start.repeat(len(setting.labels), 1, 1) if config.per_class else start)

    def around(self) -> Around:
        return Around(self.context, self.config.class_token)


def start_vectors(config: Any, setting: TunerContext) -> Tensor:
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
        leading=True,
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
            "Loses accuracy on labels it was not tuned on (about 11 points in the CoCoOp paper); keep = 8 holds it "
            "back.",
            "At one shot it can fall below zero-shot.",
        ),
        saved="the M vectors",
        starts_at="zero_shot",
        needs=frozenset({TEXT_TOKENS}),
        presets={"budget": lambda shots: PromptTuningConfig(), "paper": paper},
    )
)
