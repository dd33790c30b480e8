"""How well a pocket language model answers on pictures that it never saw: captions of Flickr8k's test pictures, and
what stands under marks of cut-outs that were held out, asked in the three ways of :mod:`engine.ask.prompts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from engine.ask.pocket_vlm import PocketVlm, decode, text_ids
from engine.ask.prompts import LABELLED, MARKED, PLAIN, hint
from engine.backbones.hf_clip import HFClip
from engine.pretrain.corpus import read_parquet
from engine.pretrain.vlm_data import BATCH, opened, seen_of
from engine.pretrain.vlm_scenes import KINDS, Scene, compose, read_things

PICTURES, SCENES = 300, 200
"""Measured: captions, and marked pictures."""


def measure(model: PocketVlm, tokenizer: Tokenizer, backbone: HFClip, data: Path) -> dict[str, float]:
    """Return CIDEr of captions and of the nearest training picture's caption, and the share of marks named rightly
    when the plain picture, the marked one, and the marked one with zero-shot labels is asked about."""
    rows = read_parquet(data / "eval-flickr8k-test.parquet")[:PICTURES]
    tests = [opened(row["image"]["bytes"]) for row in rows]
    said = answers(model, tokenizer, backbone, tests, ["describe the picture"] * len(tests), [""] * len(tests))
    references = [[text.lower().strip(" .") for text in row["captions"]] for row in rows]
    figures = {"cider": cider(said, references), "cider_nearest": nearest(backbone, tests, references, data)}
    return figures | marks(model, tokenizer, backbone, tests, data)


def answers(
    model: PocketVlm,
    tokenizer: Tokenizer,
    backbone: HFClip,
    pictures: Sequence[Image.Image],
    questions: Sequence[str],
    hints: Sequence[str],
) -> list[str]:
    """The answers, each to its own picture."""
    device, found = next(model.parameters()).device, []
    for picture, seen, question, told in zip(
        pictures, seen_of(backbone, pictures).float(), questions, hints, strict=True
    ):
        assert picture.size
        ids = torch.tensor([text_ids(tokenizer, question, told)], device=device)
        found.append(decode(tokenizer, list(model.answer(seen[None].to(device), ids, 24))))
    return found


def cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D (Vedantam et al., arXiv 1411.5726), of the COCO caption evaluation's code."""
    from pycocoevalcap.cider.cider import Cider

    def words(text: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

    truth = {k: [words(text) for text in row] for k, row in enumerate(references)}
    return float(Cider().compute_score(truth, {k: [words(text)] for k, text in enumerate(said)})[0])


def nearest(
    backbone: HFClip, tests: Sequence[Image.Image], references: Sequence[Sequence[str]], data: Path, most: int = 2000
) -> float:
    """CIDEr where each picture gets the first caption of the most similar of ``most`` training pictures."""
    rows = read_parquet(data / "flickr8k-224.parquet")[:most]
    known = features(backbone, [opened(row["image"]["bytes"]) for row in rows])
    close = (features(backbone, tests) @ known.T).argmax(1)
    return cider([rows[int(k)]["captions"][0] for k in close], references)


def held_out_scenes(tests: Sequence[Image.Image], data: Path, count: int = SCENES) -> list[Scene]:
    """Marked pictures of held-out products on test photographs."""
    _, things = read_things(data)
    by_kind = {kind: [thing for thing in things if thing.kind == kind] for kind in KINDS}
    found = []
    for number in range(count):
        rng = np.random.default_rng((7, number))
        kinds = rng.choice(len(KINDS), 3, replace=False)
        chosen = [by_kind[KINDS[int(k)]] for k in kinds]
        found.append(compose(tests[number % len(tests)], [row[int(rng.integers(len(row)))] for row in chosen], rng))
    return found


def marks(
    model: PocketVlm, tokenizer: Tokenizer, backbone: HFClip, tests: Sequence[Image.Image], data: Path
) -> dict[str, float]:
    """Share of right answers to "what is in mark n", one mark a picture, in each way, and of CLIP's labels alone."""
    scenes = held_out_scenes(tests, data)
    asked = [scene.things[k % len(scene.things)] for k, scene in enumerate(scenes)]
    questions = [f"what is in mark {thing.mark}" for thing in asked]
    labels = [zero_shot(backbone, scene) for scene in scenes]
    nothing, hints = [""] * len(scenes), [hint(row) for row in labels]
    plain, marked = [scene.plain for scene in scenes], [scene.marked for scene in scenes]
    found = {"clip": float(np.mean([row[t.mark] == t.kind for row, t in zip(labels, asked, strict=True)]))}
    for way, pictures, told in ((PLAIN, plain, nothing), (MARKED, marked, nothing), (LABELLED, marked, hints)):
        said = answers(model, tokenizer, backbone, pictures, questions, told)
        found[way] = float(np.mean([text == thing.kind for text, thing in zip(said, asked, strict=True)]))
    return found


@torch.no_grad()
def features(backbone: HFClip, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """CLIP's features of pictures, ``(N, P)``, of length 1."""
    found = []
    for start in range(0, len(pictures), BATCH):
        pixels = backbone.normalise(backbone.load_pixels(pictures[start : start + BATCH]))
        found.append(torch.nn.functional.normalize(backbone.encode_image(pixels), dim=-1))
    return torch.cat(found)


def zero_shot(backbone: HFClip, scene: Scene) -> dict[int, str]:
    """Mark -> the kind that the crop around it is most like."""
    crops = [scene.plain.crop(thing.box) for thing in scene.things]
    text = backbone.text_features(KINDS, ["a photo of a {}."])
    best = (features(backbone, crops) @ text.T).argmax(1)
    return {thing.mark: KINDS[int(k)] for thing, k in zip(scene.things, best, strict=True)}
