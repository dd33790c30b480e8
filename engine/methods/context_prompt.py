"""CPT: the tokens of the user's own context sentences, each moved a little, never far."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.backbones.base import TEXT_TOKENS, Backbone, Shape
from engine.errors import BadConfig, Note, messages
from engine.methods.prompt_tuning import LABEL_TOKENS, Around, TextPrompt, word_ids
from engine.tuning.losses import classification
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TrainConfig, TunerContext, option

messages(
    long_context="The context takes {count} tokens of the {limit} that {backbone} reads; {room} must be left for the "
    "labels. Shorten it.",
)


@dataclass(frozen=True)
class ContextPromptConfig(TrainConfig):
    """CPT's settings."""

    method = "context_prompt"
    context: str = option(
        "a picture with one thing in it\nits colour and shape can be seen well\na photo of a",
        help="sentences that stand before every label, one a line or divided by |; the last is nearest",
        lines=3,
    )
    epsilon: float = option(
        1.0, 1e-6, 100, help="farthest that a token may move at text width 2048; shrinks with the root of the width"
    )
    decay: float = option(0.95, 0, 1, help="the loss of the j-th of T sentences counts decay to the power T - j")
    epochs: int = option(40, 1, 2000, help="passes over the training images")
    lr: float = option(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate rises")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sentences:
            raise BadConfig(
                "bad_setting", method=self.method, name="context", value=self.context, allowed=Note("allowed_text")
            )

    @property
    def sentences(self) -> tuple[str, ...]:
        """The context's sentences, in order."""
        lines = (line.strip() for line in self.context.replace("|", "\n").splitlines())
        return tuple(line for line in lines if line)

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        count, limit = tokens_of(self, backbone.shape), backbone.shape.context
        if count <= limit - LABEL_TOKENS:
            return None
        return BadConfig("long_context", count=count, limit=limit, backbone=backbone.id, room=LABEL_TOKENS)


class ContextPrompt(TextPrompt):
    """``[start] s_1 ... s_T [label] . [end]`` with the real tokens of T context sentences plus trained shifts.

    The loss term of the j-th sentence: cross-entropy when a label's text is ``s_1 ... s_j label.``, the
    context as far as that sentence. (CPT's language model predicts the answer of the j-th example from
    the examples before it; here the answer is always the image's label.) Terms are weighted by
    ``decay^(T - j)`` and divided by the sum of the weights, so the last one, with the whole context, weighs
    most; it alone gives the logits.

    PEFT's ``CPTEmbedding`` is not used: its projection, made again in every forward pass, branches on the
    numbers, so that a step cannot be followed for the forecast, and its loss is over a language model's
    next tokens. The ball is the same.
    """

    start: Tensor

    def __init__(self, config: ContextPromptConfig, setting: TunerContext):
        rows = [word_ids(setting.backbone, sentence) for sentence in config.sentences]
        ids = torch.cat(rows)  # (M,)
        if obstacle := config.obstacle(setting.backbone):
            raise obstacle
        super().__init__(config, setting, reserve=len(ids))
        self.lengths = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
        """Tokens of the context as far as each sentence."""
        width = self.backbone.text.width
        self.register_buffer("start", self.backbone.text.embed_tokens(ids).detach().clone(), persistent=False)  # (M, D)
        self.shifts = nn.Parameter(torch.zeros_like(self.start))
        self.radius = radius(config.epsilon, width)

    def vectors(self) -> Tensor:
        """Start tokens plus shifts, ``(M, D)``."""
        return self.start + self.shifts

    def around(self) -> Around:
        return Around(self.vectors())

    def start_ids(self) -> Tensor:
        return torch.cat([word_ids(self.backbone, sentence) for sentence in self.config.sentences])

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        vectors, image = self.vectors(), self.image_features(x)
        weights = [self.config.decay ** (len(self.lengths) - j) for j in range(1, len(self.lengths) + 1)]
        logits, loss = x, torch.zeros((), device=x.device)
        for weight, length in zip(weights, self.lengths, strict=True):
            logits = self.head(image, self.encode(vectors[:length]))
            loss = loss + weight / sum(weights) * classification(logits, targets)
        return loss, logits

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring every shift back into its ball."""
        self.shifts.copy_(torch.renorm(self.shifts, p=2, dim=0, maxnorm=self.radius))


def radius(epsilon: float, width: int) -> float:
    """Farthest that a token of this width may move: PEFT's scale for CPT's epsilon."""
    return epsilon * (width / 2048) ** 0.5


def tokens_of(config: ContextPromptConfig, shape: Shape) -> int:
    """Return tokens of the context's sentences."""
    return sum(shape.count_tokens(sentence) - shape.count_tokens("") for sentence in config.sentences)


def count(shape: Shape, config: ContextPromptConfig, K: int, N: int) -> int:
    """Return tokens of the context times Dt."""
    return tokens_of(config, shape) * shape.text_width


def paper(shots: int) -> ContextPromptConfig:
    """Return the published ball; ``budget``'s is ten times as wide, because a context of a few sentences has far fewer
    tokens to move than one of many examples."""
    return ContextPromptConfig(epsilon=0.1, decay=0.95, lr=1e-3, epochs=25)


register(
    MethodSpec(
        id="context_prompt",
        name="Context prompt (CPT)",
        family="text prompt",
        sentence="Starts from your own sentences about the images and moves each of their words a little.",
        use_when="You can describe the images in sentences and want to stay close to them: few images, and little may "
        "be forgotten.",
        equation="wₖ = text([e₁ + δ₁ … e_T + δ_T] [label k]),  ‖δᵢ‖ ≤ ε·√(Dt/2048)",
        paper="Blau et al. 2024, Context-aware Prompt Tuning, arXiv 2410.17222",
        config=ContextPromptConfig,
        tuner=lambda: ContextPrompt,
        count=count,
        formula="tokens·Dt",
        runs_on="text",
        failures=(
            "With few words or the published epsilon of 0.1 it hardly moves from zero-shot.",
            "Sentences that do not fit the images hold it back; long ones make every step slower.",
        ),
        saved="the shift of each token of the context",
        needs=frozenset({TEXT_TOKENS}),
        presets={
            "budget": lambda shots: ContextPromptConfig(),
            "paper": paper,
        },
    )
)
