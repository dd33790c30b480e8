"""A small lower-case byte-level BPE in the file format of CLIP's tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions: Iterable[str], out: Path, vocabulary: int = 7168, context: int = 40) -> CLIPTokenizerFast:
    """Learn the merges and write ``vocab.json``, ``merges.txt`` and the rest into ``out``.

    Vocabulary order is CLIP's: 256 bytes, 256 bytes that end a word, merges, start, end. The end
    token has the highest id because CLIP pools the text at ``argmax(ids)``; every byte exists with
    and without the end-of-word mark, so that any script (Korean, emoji) can be read.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *dict.fromkeys(a + b for a, b in merges)]
    tokens = [*dict.fromkeys(tokens), START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    clip = CLIPTokenizerFast(vocab=vocab, merges=merges, model_max_length=context)
    out.mkdir(parents=True, exist_ok=True)
    clip.save_pretrained(out)
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    return CLIPTokenizerFast.from_pretrained(out)


def copy_tokenizer(start: Path, out: Path) -> CLIPTokenizerFast:
    """The tokenizer of finished weights, its files copied into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        if start.resolve() != out.resolve():
            shutil.copy(start / name, out / name)
    return CLIPTokenizerFast.from_pretrained(out)
