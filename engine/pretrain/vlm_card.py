"""The model card that goes beside Pocket VLM's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.pretrain.card import RUN, RUNS
from engine.pretrain.measure_vlm import PICTURES, SCENES
from engine.pretrain.vlm_scenes import KINDS

SOURCES = """| data | pictures | terms |
|---|---|---|
| Flickr8k, official training part, five sentences each | 5,984 | research use |
| labelled photographs of 28 open collections (the sources are in Pocket CLIP's card) | 10,528 | as stated there |
| fashion products among them, cut out of their white ground and pasted | 1,182 | Kaggle set: MIT |"""

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Pocket VLM

A vision-language model of {parameters:,} parameters beside Pocket CLIP's frozen image tower, small enough to be kept
beside the code. It answers in English about a picture of 224 x 224 pixels: what it shows, what stands under a mark,
which mark something is, how many marks there are, what colour something has, yes or no. It is built by
`engine.ask.pocket_vlm` as LLaVA is (arXiv 2304.08485): patch tokens, a projection, and a language model, here a Llama
of four layers; and trained by `python -m engine.pretrain.pocket_vlm`. Nothing in it is distilled from another
vision-language model.

## Figures
On pictures that training never saw: {pictures} captions of Flickr8k's test pictures (CIDEr-D against five sentences
each; "nearest" gives each picture the first sentence of the most similar of 2,000 training pictures), and {scenes}
pictures with three marked cut-outs of held-out products on Flickr8k's test pictures, one mark asked for, {kinds} kinds,
right only where the answer is the kind's name letter by letter.

| | |
|---|---|
| captions, CIDEr | {cider:.2f} |
| nearest training picture's sentence, CIDEr | {cider_nearest:.2f} |
| "what is in mark n", of the plain picture (nothing shows which is meant; a third by chance of objects) | {plain:.1%} |
| of the marked picture (Set-of-Mark) | {marked:.1%} |
| of the marked picture with Pocket CLIP's zero-shot labels as text | {labelled:.1%} |
| Pocket CLIP's zero-shot labels themselves | {clip:.1%} |

## Training
| run | examples seen | minutes | on | torch | transformers |
|---|---|---|---|---|---|
{runs}

Three stages: the language model alone on the texts, the projection alone, then both. The data:

{sources}

The last run's recipe (`training.json` has those of all runs):

```json
{recipe}
```

## What it cannot do
- It does not know the world: it has read some thirty thousand sentences about photographs and a few hundred labels.
- It names the object under a mark in {marked:.0%} of the cases above: it shows how such a model is asked, and what its
  answers are worth is measured on the Ask screen.
- It says what is likely. A wrong answer sounds as sure as a right one; the accuracy above is all there is.
- It reads marks 1 to 4 as they are drawn here. Other numbers, letters and crowded pictures are beyond it.
- It does not read text in pictures, does not reason, does not hold a conversation, and reads no Korean.
- Products and everyday photographs are what it has seen; medical, satellite or technical pictures are not for it.
- It shows how such a model is made and what marks do for one. For answers that matter choose a larger model.

## Licence
The weights are Apache-2.0. The images they were learnt from are not included; their terms are above.
"""


def write_card(out: Path, runs: list[dict[str, Any]], figures: dict[str, float], parameters: int) -> None:
    """Write ``README.md``, ``figures.json`` and ``training.json``.

    ``runs`` are those of :func:`engine.pretrain.card.describe_run`, first to last; ``figures`` those of
    :func:`engine.pretrain.measure_vlm.measure`.
    """
    text = CARD.format(
        parameters=parameters,
        pictures=PICTURES,
        scenes=SCENES,
        kinds=len(KINDS),
        runs="\n".join(RUN.format(k=k, **run) for k, run in enumerate(runs, 1)),
        sources=SOURCES,
        recipe=json.dumps(runs[-1]["recipe"], indent=1),
        **figures,
    )
    (out / "README.md").write_text(text, encoding="utf8")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    (out / RUNS).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf8")
