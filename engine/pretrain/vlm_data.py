"""What the pocket language model learns from: pictures as the frozen image tower sees them, kept on disk, and their
questions and answers as tokens."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from engine.ask.pocket_vlm import END, PAD, SPECIAL, PocketVlmConfig, look, text_ids
from engine.ask.prompts import hint
from engine.backbones.hf_clip import HFClip
from engine.data.images import rgb
from engine.pretrain.vlm_scenes import (
    KINDS,
    MOST,
    SIDE,
    Asked,
    Scene,
    Thing,
    compose,
    questions,
    read_captioned,
    read_labelled,
    read_things,
    told,
)

PLACES = PocketVlmConfig.places
BATCH, SHARD = 16, 1024
"""Pictures that the tower looks at together, and pictures a file."""
TOGETHER = 5
"""Questions about one picture that are learnt in one step: the picture's own tokens are read once for all."""
DESCRIBE = ("describe the picture", "describe the image", "what happens in the picture", "what do you see")
NAME = ("what is in the picture", "what is this", "what does the picture show", "what is it")
ALSO = {
    "what is in mark": ("what is mark", "what object is mark", "what is marked"),
    "which mark is the": ("where is the", "which number is the"),
    "how many objects are marked": ("how many marks are there", "how many marks do you see"),
    "is there a": ("can you see a", "does the picture show a"),
    "which colour is mark": ("what colour is mark", "what color is mark"),
}
"""Other ways to ask the same."""


@dataclass(frozen=True)
class Example:
    """One picture's number and a question about it with the answer."""

    picture: int
    asked: Asked


@dataclass(frozen=True)
class Batch:
    """Pictures with what is asked about them, and what stands at each of their places where that is known."""

    seen: Tensor
    """``(B, T, S)``."""
    asked: list[list[Asked]]
    marks: Tensor
    """``(B, T)`` number of the mark at each place, 0 where there is none."""
    kinds: Tensor
    """``(B, T)`` position of its kind in :attr:`Corpus.kinds`, -1 where there is none."""


class Corpus:
    """Pictures as the tower sees them, and examples of three sorts: captions, names, marks."""

    def __init__(self, data: Path, work: Path, backbone: HFClip, scenes: int, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.parts: dict[str, tuple[Tensor, list[list[Asked]]]] = {}
        self.kinds: list[str] = []
        self.places: list[tuple[Tensor, Tensor]] = []
        """Of each marked picture: marks and kinds at its places."""
        captioned = read_captioned(data)
        backgrounds = [bytes_ for bytes_, _ in captioned]
        things, _ = read_things(data)
        made = draw_scenes(backgrounds, things, scenes, seed)
        for name, pictures, asked in (
            ("captions", map(opened, backgrounds), [_described(texts) for _, texts in captioned]),
            ("names", (opened(b) for b, _ in read_labelled(data)), [_named(t) for _, t in read_labelled(data)]),
            ("marks", (scene.marked for scene, _ in made), None),
        ):
            seen = kept(work / name, pictures, backbone)
            if asked is None:
                self.kinds, asked = sorted({thing.kind for thing in things}), []
                for scene, rows in draw_scenes(backgrounds, things, scenes, seed, pictures=False):
                    asked.append(rows)
                    self.places.append(places_of(scene, self.kinds))
            self.parts[name] = (seen, asked)

    def texts(self) -> Iterator[str]:
        """All questions and answers."""
        for _, asked in self.parts.values():
            for rows in asked:
                for row in rows:
                    yield f"{row.hint} {row.question} {row.answer}"

    def batch(self, size: int, shares: dict[str, float]) -> Batch:
        """Draw ``size`` pictures, with up to ``TOGETHER`` questions about each."""
        names, weights = list(shares), np.array(list(shares.values()))
        seen, asked, places = [], [], []
        for name in self.rng.choice(names, size, p=weights / weights.sum()):
            pictures, rows = self.parts[str(name)]
            k = int(self.rng.integers(len(rows)))
            order = self.rng.permutation(len(rows[k]))[: TOGETHER if name != "names" else 1]
            seen.append(turned(pictures[k]) if name != "marks" and self.rng.random() < 0.5 else pictures[k])
            asked.append([self._said_otherwise(rows[k][int(m)]) for m in order])
            nothing = torch.zeros(len(pictures[k]), dtype=torch.long)
            places.append(self.places[k] if name == "marks" else (nothing, nothing - 1))
        marks, kinds = (torch.stack(rows) for rows in zip(*places, strict=True))
        return Batch(torch.stack(seen).float(), asked, marks, kinds)

    def _said_otherwise(self, row: Asked) -> Asked:
        for start, others in ALSO.items():
            if row.question.startswith(start) and self.rng.random() < 0.4:
                other = others[int(self.rng.integers(len(others)))]
                return Asked(other + row.question[len(start) :], row.answer, row.hint)
        return row


def places_of(scene: Scene, kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the mark at each of a picture's places, 0 for none, and the position of what lies there in ``kinds``, -1
    for nothing: ``(T,)`` each. A place is a thing's where its middle is in the thing's box."""
    side = round(PLACES**0.5)
    middle = (np.arange(side) + 0.5) * SIDE / side
    marks, found = np.zeros((side, side), int), np.full((side, side), -1)
    for thing in scene.things:
        left, top, right, bottom = thing.box
        inside = ((middle >= top) & (middle < bottom))[:, None] & ((middle >= left) & (middle < right))[None]
        marks[inside], found[inside] = thing.mark, kinds.index(thing.kind)
    return torch.from_numpy(marks.ravel()), torch.from_numpy(found.ravel())


def turned(seen: Tensor) -> Tensor:
    """A picture's places ``(49, S)``, left and right exchanged."""
    side = round(len(seen) ** 0.5)
    return seen.unflatten(0, (side, side)).flip(1).flatten(0, 1)


def opened(data: bytes) -> Image.Image:
    """A picture squashed to the square that the model looks at."""
    return rgb(Image.open(io.BytesIO(data))).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _described(captions: Sequence[str]) -> list[Asked]:
    return [Asked(DESCRIBE[k % len(DESCRIBE)], text.lower().strip(" .")) for k, text in enumerate(captions)]


def _named(captions: Sequence[str]) -> list[Asked]:
    return [Asked(NAME[k % len(NAME)], captions[0]) for k in range(len(NAME))]


def draw_scenes(
    backgrounds: Sequence[bytes], things: Sequence[Thing], count: int, seed: int, pictures: bool = True
) -> Iterator[tuple[Scene, list[Asked]]]:
    """Yield marked pictures with questions; a third of those come with labels of the marks. The same ``seed`` gives
    the same ones; without ``pictures`` only the questions are right."""
    by_kind: dict[str, list[Thing]] = {}
    for thing in things:
        by_kind.setdefault(thing.kind, []).append(thing)
    kinds = sorted(by_kind)
    wanted = [kind for kind in KINDS if kind in by_kind]
    blank = Image.new("RGB", (8, 8))
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        pool = wanted if rng.random() < 0.65 else kinds
        drawn = [by_kind[pool[int(k)]] for k in rng.choice(len(pool), int(rng.integers(1, MOST + 1)), replace=False)]
        chosen = [rows[int(rng.integers(len(rows)))] for rows in drawn]
        back = backgrounds[int(rng.integers(len(backgrounds)))]
        scene = compose(opened(back) if pictures else blank, chosen, rng)
        asked = []
        for row in questions(scene, pool, rng):
            asked.append(row)
            asked.append(Asked(row.question, row.answer, hint(told(scene, pool, rng))))
            asked.append(row)
        yield scene, asked


def kept(folder: Path, pictures: Iterator[Image.Image], backbone: HFClip) -> Tensor:
    """Return what the tower sees of pictures, fp16 ``(N, T, S)``; computed once, and gone on with where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    done = sorted(folder.glob("*.safetensors"))
    if not (folder / "whole").exists():
        for _ in range(SHARD * len(done)):
            next(pictures)
        number = len(done)
        while shard := [picture for _, picture in zip(range(SHARD), pictures, strict=False)]:
            save_file({"seen": seen_of(backbone, shard)}, folder / f"{number:05d}.tmp")
            (folder / f"{number:05d}.tmp").replace(folder / f"{number:05d}.safetensors")
            number += 1
            print(f"{folder.name}: {number * SHARD} pictures", flush=True)
        (folder / "whole").touch()
    return torch.cat([load_file(path)["seen"] for path in sorted(folder.glob("*.safetensors"))])


def seen_of(backbone: HFClip, pictures: Sequence[Image.Image]) -> Tensor:
    """What the tower sees of some pictures, fp16 ``(N, T, S)``; the next ones are read meanwhile."""

    def pixels(start: int) -> Tensor:
        found = backbone.normalise(backbone.load_pixels(pictures[start : start + BATCH]))
        return found.contiguous(memory_format=torch.channels_last)

    with ThreadPoolExecutor(1) as pool:
        ahead, found = pool.submit(pixels, 0), []
        for start in range(0, len(pictures), BATCH):
            now = ahead.result()
            ahead = pool.submit(pixels, start + BATCH if start + BATCH < len(pictures) else start)
            found.append(look(backbone, now).half())
    return torch.cat(found)


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """A lower-case byte-level BPE that reads any script; Korean takes several tokens a syllable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def padded(
    tokenizer: Tokenizer, asked: Sequence[Sequence[Asked]], whole: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens of questions with their answers, those about one picture in one row.

    Args:
        whole: whether every token is to be learnt, or the answers' only.

    Returns:
        ``ids (B, L)``, ``blocks (B, L)`` which text each token belongs to, ``positions (P, 2)`` of the tokens before
        those to be learnt, and ``targets (P,)``.
    """
    pad, end = SPECIAL.index(PAD), SPECIAL.index(END)
    rows, blocks, positions, targets = [], [], [], []
    for k, texts in enumerate(asked):
        ids: list[int] = []
        own: list[int] = []
        for number, row in enumerate(texts):
            before = text_ids(tokenizer, row.question, row.hint)
            tokens = [*before, *tokenizer.encode(row.answer, add_special_tokens=False).ids, end]
            for place in range(0 if whole else len(before) - 1, len(tokens) - 1):
                positions.append((k, len(ids) + place))
                targets.append(tokens[place + 1])
            ids += tokens
            own += [number] * len(tokens)
        rows.append(ids)
        blocks.append(own)
    longest = max(map(len, rows))
    return (
        torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        torch.tensor([row + [-1] * (longest - len(row)) for row in blocks]),
        torch.tensor(positions),
        torch.tensor(targets),
    )
