"""The model card that goes beside Pocket CLIP's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SOURCES = """| data | images | terms |
|---|---|---|
| Tiny-ImageNet (train) | 100,000 | research use |
| CIFAR-10 and CIFAR-100 (train) | 100,000 | Krizhevsky 2009, cite |
| Flickr8k (official train split, 5 captions each) | 6,000 | research use |
| Noto emoji (Unicode names) | 1,405 | Apache-2.0 |"""

RUNS = "training.json"
RUN = "| {k} | {images:,} | {minutes:.0f} | {device} | {torch} | {transformers} |"
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# Pocket CLIP

A CLIP of {parameters:,} parameters that is small enough to be kept beside the code and fast enough
to be tuned on a laptop. It is trained from scratch, with nothing distilled from another model, by
`python -m engine.pretrain.pocket_clip`. It loads with `transformers.CLIPModel.from_pretrained`.

## Figures
One template ("a photo of a {{}}."), on images it was never trained on:

| set | figure |
|---|---|
{figures}

For scale: OpenAI's ViT-B/32, about thirty times larger, reaches about 89 % on CIFAR-10 and 64 % on
CIFAR-100 (Radford et al. 2021).

## Training
| run | images seen | minutes | on | torch | transformers |
|---|---|---|---|---|---|
{runs}

Each run goes on from the weights of the one before. The images:

{sources}

Images that share a caption are positives of each other; a caption that also fits an image is not
its negative. In most of the last run one caption in five was replaced by a broader word where there
is one ("flower" for a rose; CIFAR-100's superclasses and other everyday words). `words.json` says in
the captions of how many training images each word stands. The last run started at {small} px and ended
at {side} px. Its recipe (`training.json` has those of all runs):

```json
{recipe}
```

## What it cannot do
- It knows everyday things: the classes of its training sets and the words of 30,000 captions.
  Brands, names, species, makers' parts, medical and satellite images are mostly unknown to it.
- It sees {side} x {side} pixels. Text in images, small objects and fine texture are lost.
- It reads lower-case English, at most {context} tokens. Other scripts are read byte by byte and mean nothing to it.
- Its probabilities are not calibrated, and it repeats the biases of its data: people in Flickr8k
  captions are described by sex and age.
- Use it to learn, to test and to start at once; decide about a product with a full-size backbone.

## Licence
The weights are Apache-2.0. The images they were learnt from are not included; their terms are above.
"""


def describe_run(recipe: dict[str, Any], images: int, seconds: float, device: str) -> dict[str, Any]:
    """What the card says about one training run."""
    machine = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "images": images, "minutes": round(seconds / 60, 1), "device": machine,
        "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "recipe": recipe,
    }  # fmt: skip


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The training runs, first to last, that made the weights in ``folder``."""
    path = folder / RUNS
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else []


def write_card(out: Path, runs: list[dict[str, Any]], figures: dict[str, float], parameters: int) -> None:
    """Write ``README.md``, ``figures.json`` and ``training.json``.

    ``runs`` are those of :func:`describe_run`, first to last; ``figures`` are shares from 0 to 1.
    """
    recipe = runs[-1]["recipe"]
    text = CARD.format(
        parameters=parameters,
        figures="\n".join(f"| {name} | {value:.1%} |" for name, value in figures.items()),
        runs="\n".join(RUN.format(k=k, **run) for k, run in enumerate(runs, 1)), sources=SOURCES,
        small=recipe["small_size"], side=recipe["image_size"], context=recipe["context"],
        recipe=json.dumps(recipe, indent=1),
    )  # fmt: skip
    (out / "README.md").write_text(text, encoding="utf8")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    (out / RUNS).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf8")
