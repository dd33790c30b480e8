"""Pocket VLM: the bundled CLIP's patch tokens, a projection, and a small language model, joined as in LLaVA (Liu et
al., arXiv 2304.08485).

What the language model sees of a picture are 49 tokens, one for each 32 x 32 pixels of a 224 x 224 picture. Each
joins what three depths of the frozen image tower say of that place: the last layer, the patch embedding, and the
trunk's middle map, which is fine enough to read a digit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.backbones.hf_clip import HFClip

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
PAD, START, ANSWER, END = "<pad>", "<start>", "<answer>", "<end>"
SPECIAL = (PAD, START, ANSWER, END)
"""Tokens 0 to 3: fills a batch up, begins a text, stands between question and answer, ends an answer."""


@dataclass(frozen=True)
class PocketVlmConfig:
    """Sizes of a pocket model."""

    vocabulary: int = 4096
    width: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 704
    """Width inside a layer's gated feed-forward part."""
    context: int = 192
    """Most tokens of picture, question and answer together."""
    seen: int = 960
    """Width of what the image tower says of a place."""
    places: int = 49
    backbone: str = ""
    """``weight_hash`` of the CLIP that it was trained on."""


class PocketVlm(nn.Module):
    """Projection and language model; the image tower is not part of it."""

    def __init__(self, config: PocketVlmConfig):
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes: dict[str, Any] = {
            "vocab_size": config.vocabulary,
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads,
            "intermediate_size": config.hidden,
            "max_position_embeddings": config.context,
        }
        super().__init__()
        self.config = config
        self.projector = nn.Sequential(
            nn.LayerNorm(config.seen),
            nn.Linear(config.seen, config.width),
            nn.GELU(),
            nn.Linear(config.width, config.width),
        )
        self.language: Any = LlamaForCausalLM(
            LlamaConfig(
                **sizes,
                tie_word_embeddings=True,
                pad_token_id=SPECIAL.index(PAD),
                bos_token_id=SPECIAL.index(START),
                eos_token_id=SPECIAL.index(END),
            )
        )

    def embed(self, seen: Tensor | None, ids: Tensor) -> Tensor:
        """Picture and text as one sequence.

        Args:
            seen: ``(B, T, S)`` of :func:`look`; None for text alone.
            ids: ``(B, L)`` tokens.

        Returns:
            ``(B, T + L, D)``.
        """
        words = self.language.get_input_embeddings()(ids)
        return words if seen is None else torch.cat([self.projector(seen), words], 1)

    def logits_of(self, seen: Tensor | None, ids: Tensor, blocks: Tensor, positions: Tensor) -> Tensor:
        """Return the logits ``(P, V)`` of the tokens after some positions, where several texts about a picture stand in
        one row and none of them sees another.

        Args:
            seen: ``(B, T, S)``, or None for texts alone.
            ids: ``(B, L)`` tokens.
            blocks: ``(B, L)`` number of each token's text in its row, from 0; -1 where a row is filled up.
            positions: ``(P, 2)``, row and token of ``ids``.
        """
        given = self.embed(seen, ids)
        before = given.shape[1] - ids.shape[1]
        mask, places = apart(blocks, before)
        hidden = self.language.model(
            inputs_embeds=given, attention_mask=mask, position_ids=places, use_cache=False
        ).last_hidden_state
        row, token = positions.unbind(1)
        return self.language.lm_head(hidden[row, token + before])

    @torch.no_grad()
    def answer(self, seen: Tensor, ids: Tensor, most: int = 40) -> Iterator[int]:
        """Yield the answer's tokens, the likeliest first, until it ends or ``most`` are said.

        Args:
            seen: ``(1, T, S)``.
            ids: ``(1, L)``, which end with ``ANSWER``.
        """
        given = self.embed(seen, ids)
        for _ in range(max(0, min(most, self.config.context - given.shape[1]))):
            # The whole is read again for each token: at this size that takes no longer than keeping what was read.
            hidden = self.language.model(inputs_embeds=given, use_cache=False).last_hidden_state
            token = int(self.language.lm_head(hidden[:, -1]).argmax())
            if token == SPECIAL.index(END):
                return
            yield token
            given = torch.cat([given, self.embed(None, torch.tensor([[token]], device=given.device))], 1)


def apart(blocks: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """What each token sees, and where it stands, as if its text were alone behind the picture.

    Args:
        blocks: ``(B, L)`` number of each token's text in its row.
        before: the picture's tokens, which all texts see.

    Returns:
        ``(B, 1, T + L, T + L)`` bool, True where the row's token sees the column's, and ``(B, T + L)`` positions.
    """
    whole = torch.nn.functional.pad(blocks, (before, 0), value=-2)  # (B, T + L)
    length = whole.shape[1]
    same = (whole[:, :, None] == whole[:, None, :]) | (whole[:, None, :] == -2)
    mask = same & torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    first = (whole[:, :, None] == whole[:, None, :]).int().argmax(-1)  # where each token's own text begins
    places = torch.arange(length, device=blocks.device) - first
    return mask[:, None], torch.where(whole == -2, places, places + before)


@torch.no_grad()
def look(backbone: HFClip, pixels: Tensor) -> Tensor:
    """What the frozen tower says of each place of pictures ``(B, 3, 224, 224)``: ``(B, 49, 960)``.

    The trunk's map is twice as fine; the four values of each channel in a place stand side by side.
    """
    vision: Any = backbone.vision
    stem = vision.trunk
    lower = stem.lower(pixels)
    patches = stem.projection(stem.upper(lower)).flatten(2).transpose(1, 2)
    hidden = vision.embed(patches)
    for k in range(len(vision.blocks)):
        hidden = vision.run_block(k, hidden)
    fine = nn.functional.pixel_unshuffle(lower, 2).flatten(2).transpose(1, 2)
    return torch.cat([scaled(hidden[:, 1:]), scaled(patches), scaled(fine)], -1)


def scaled(values: Tensor) -> Tensor:
    """Rows with the mean square 1, so that no depth drowns the others."""
    return values / values.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


def text_ids(tokenizer: Tokenizer, question: str, hint: str = "") -> list[int]:
    """Tokens of a question, from ``START`` to ``ANSWER``; what is told about the marks comes first."""
    asked = question.lower().rstrip(" ?.!")
    text = f"{hint.lower()}. {asked}" if hint else asked
    return [SPECIAL.index(START), *tokenizer.encode(text, add_special_tokens=False).ids, SPECIAL.index(ANSWER)]


def save(model: PocketVlm, tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``config.json``, ``tokenizer.json`` and ``model.safetensors`` (fp16)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(asdict(model.config), indent=1) + "\n", encoding="utf8")
    tokenizer.save(str(folder / TOKENIZER))
    half = {name: tensor.detach().half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    half.pop("language.lm_head.weight", None)  # the same as the word embeddings
    save_file(half, folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: Path) -> tuple[PocketVlm, Tokenizer]:
    """Read what :func:`save` wrote, fp32, in evaluation mode."""
    model = PocketVlm(PocketVlmConfig(**json.loads((folder / CONFIG).read_text(encoding="utf8"))))
    tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    missing, unknown = model.load_state_dict(tensors, strict=False)
    if unknown or set(missing) - {"language.lm_head.weight"}:
        raise ValueError(f"{WEIGHTS} lacks {missing} or holds {unknown}")
    return model.eval(), Tokenizer.from_file(str(folder / TOKENIZER))


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """An answer's tokens as text."""
    return tokenizer.decode(list(ids), skip_special_tokens=True).strip()
