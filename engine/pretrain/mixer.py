"""Batches of pictures with a sentence each, in epochs of a fresh shuffle for every source."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import torch
from torch import Tensor

from engine.pretrain.broader import broader
from engine.pretrain.corpus import Source
from engine.pretrain.lexicon import ABOVE_TEMPLATES, DRAWN_TEMPLATES, EMOJI_TEMPLATES, TEMPLATES

BROADER_SHARE = 0.15
"""Share of captions that are replaced by a broader word where there is one."""
LABELLED = ("photos", "tiny-imagenet", "cifar")
"""Sources whose captions are labels, of which there are few enough to be wrong answers to each other."""


@dataclass
class Pictures:
    """The crops of one source: crop ``c`` of picture ``i`` is number ``c * N + i``."""

    source: Source
    captions: list[list[str]]
    """What is said of each of the N pictures."""
    broader: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.broader = [broader(captions) for captions in self.captions]

    def __len__(self) -> int:
        return len(self.captions) * self.source.crops

    def drawn(self, crop: int) -> bool:
        """Whether a crop was redrawn as a sketch."""
        return crop // len(self.captions) in self.source.drawn

    def draw(self, crop: int, generator: torch.Generator) -> str:
        """Return a random caption of a crop, now and then a broader word."""
        i = crop % len(self.captions)
        words = self.captions[i]
        if self.broader[i] and torch.rand(1, generator=generator).item() < BROADER_SHARE:
            words = self.broader[i]
        return words[randint(len(words), generator)]


@dataclass(frozen=True)
class Batch:
    """``B`` crops and ``U`` distinct captions: those that were drawn for them, then some that fit other pictures."""

    places: list[Tensor]
    """Numbers of each source's crops, ``B`` in all."""
    mirrored: Tensor
    """``(B,)`` bool."""
    taught: Tensor
    """``(B,)`` bool: photographs whose ImageNet logits can be believed."""
    captions: list[str]
    sentences: list[str]
    """Each caption in a sentence."""
    target: Tensor
    """``(B,)`` the caption of each crop."""
    related: Tensor
    """``(B, U)`` bool: captions that fit the crop too."""


class Mixer:
    """Batches made of every source's share."""

    def __init__(self, pictures: Sequence[Pictures], batch_size: int, seed: int, distractors: int = 0):
        self.pictures, self.seed, self.distractors = pictures, seed, distractors
        labelled = [p.captions for p in pictures if p.source.name in LABELLED]
        self.labels = list(dict.fromkeys(caption for rows in labelled for row in rows for caption in row))
        total = sum(p.source.share for p in pictures)
        self.counts = [max(1, round(batch_size * p.source.share / total)) for p in pictures]
        self._order: dict[tuple[int, int], Tensor] = {}

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``; half of its crops are mirrored."""
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + step)
        places, chosen, fitting, taught = [], [], [], []
        for which, pictures in enumerate(self.pictures):
            indices = self._indices(which, step)
            places.append(indices)
            for k in indices.tolist():
                chosen.append((pictures.draw(k, generator), self._templates(pictures, k)))
                i = k % len(pictures.captions)
                fitting.append(pictures.captions[i] + pictures.broader[i])
                taught.append(pictures.source.name in ("photos", "flickr") and not pictures.drawn(k))
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        others = [self.labels[randint(len(self.labels), generator)] for _ in range(self.distractors)]
        return Batch(places, mirrored, torch.tensor(taught), *arrange(chosen, fitting, others, generator))

    def _templates(self, pictures: Pictures, crop: int) -> tuple[str, ...]:
        name = pictures.source.name
        if name == "flickr":
            return ("{}", "{}.")
        if pictures.drawn(crop):
            return DRAWN_TEMPLATES
        if name == "emoji":
            return EMOJI_TEMPLATES
        above = any(caption.startswith("aerial view") for caption in pictures.captions[crop % len(pictures.captions)])
        return TEMPLATES[:4] + ABOVE_TEMPLATES if above else TEMPLATES

    def _indices(self, which: int, step: int) -> Tensor:
        """Positions of this step's crops: epochs of a fresh shuffle, one after the other."""
        n, count = len(self.pictures[which]), self.counts[which]
        places = torch.arange(step * count, (step + 1) * count)
        epochs = places.div(n, rounding_mode="floor")
        return torch.cat([self._shuffle(which, e)[places[epochs == e] % n] for e in epochs.unique().tolist()])

    def _shuffle(self, which: int, epoch: int) -> Tensor:
        if (which, epoch) not in self._order:
            self._order = {k: v for k, v in self._order.items() if k[0] != which or k[1] >= epoch - 1}
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + which * 10_007 + epoch)
            self._order[which, epoch] = torch.randperm(len(self.pictures[which]), generator=generator)
        return self._order[which, epoch]


def randint(high: int, generator: torch.Generator) -> int:
    """Return a random whole number below ``high``."""
    return int(torch.randint(high, (1,), generator=generator))


def arrange(
    chosen: list[tuple[str, tuple[str, ...]]], fitting: list[list[str]], others: list[str], generator: torch.Generator
) -> tuple[list[str], list[str], Tensor, Tensor]:
    """Return the distinct captions, ``others`` last, a sentence for each, each crop's caption and which captions fit
    which crop."""
    column = {caption: k for k, caption in enumerate(dict.fromkeys([*(c for c, _ in chosen), *others]))}
    templates = {**dict.fromkeys(others, TEMPLATES), **dict(reversed(chosen))}
    sentences = [phrase(caption, templates[caption], generator) for caption in column]
    target = torch.tensor([column[caption] for caption, _ in chosen])
    related = torch.zeros(len(chosen), len(column), dtype=torch.bool)
    for row, captions in enumerate(fitting):
        related[row, [column[c] for c in captions if c in column]] = True
    return list(column), sentences, target, related


def phrase(caption: str, templates: Sequence[str], generator: torch.Generator) -> str:
    """Return a caption in a random sentence."""
    return templates[randint(len(templates), generator)].format(caption)


class Ahead:
    """A mixer's batches in order, the next ones made meanwhile: in a thread, or in several processes."""

    def __init__(self, mixer: Mixer, workers: int):
        self.workers, self.waiting = workers, dict[int, Future]()
        if workers > 1:
            self.pool: Executor = processes(workers, initializer=_set_mixer, initargs=(mixer,))
            self.make: Callable[[int], Any] = _make
        else:
            self.pool, self.make = ThreadPoolExecutor(1), mixer.batch

    def __call__(self, step: int) -> Batch:
        """Return batch number ``step``."""
        wanted = range(step, step + 2 * self.workers)
        self.waiting = {k: self.waiting.get(k) or self.pool.submit(self.make, k) for k in wanted}
        made = self.waiting[step].result()
        return pickle.loads(made) if isinstance(made, bytes) else made


def processes(count: int, **options: Any) -> ProcessPoolExecutor:
    """Return a pool of processes, forked where the system can: they start at once, and may not use a GPU."""
    fork = "fork" if "fork" in get_all_start_methods() else None
    return ProcessPoolExecutor(count, get_context(fork), **options)


_mixer: list[Mixer] = []


def _set_mixer(mixer: Mixer) -> None:
    torch.set_num_threads(1)
    _mixer[:] = [mixer]


def _make(step: int) -> bytes:
    """A batch, pickled by value: tensors that travel between processes by themselves hold a file open each."""
    return pickle.dumps(_mixer[0].batch(step))
