"""The model card that goes beside Pocket SAM's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.pretrain.card import RUN, RUNS
from engine.pretrain.measure_sam import FIGURES, SMALL_SHARE

SOURCES = """| data | images | terms |
|---|---|---|
| Oxford-IIIT Pets (outlines) | 600 | CC BY-SA 4.0 |
| Clothing Co-Parsing (garments, skin, hair) | 1,004 | Apache-2.0 |
| COCO (objects) | 100 | annotations CC BY 4.0, images Flickr terms |
| Noto emoji, pasted (alpha is the mask) | 1,405 | Apache-2.0 |
| Flickr8k, as backgrounds | 6,000 | research use |"""

CARD = """---
license: apache-2.0
library_name: segment-anything
pipeline_tag: mask-generation
---
# Pocket SAM

A segment-anything model of {parameters:,} parameters, small enough to be kept beside the code. It is
`segment_anything.modeling.Sam` with small parts, built by `engine.regions.pocket_sam`, trained by
`python -m engine.pretrain.pocket_sam`, and works with the library's `SamPredictor` and
`SamAutomaticMaskGenerator`. Nothing in it is distilled from another segmenter.

## Figures
Mean IoU on the tenth of each source that training never saw, each region as one case, through `SamPredictor` at
the picture's own size. The first click is the point farthest from the region's edge; later ones are in the middle of
what is still wrong. Regions below {share:.2%} of their picture (COCO's "small") are in the last row only.

| source | regions | {heads} |
|---|---|{lines}|
{figures}

## Training
| run | images seen | minutes | on | torch | transformers |
|---|---|---|---|---|---|
{runs}

Each run goes on from the weights of the one before; the first started its image encoder from the image
tower of the first Pocket CLIP. Every picture is made anew: a crop of an annotated photograph, or a photograph with
objects pasted on it.
The data:

{sources}

The last run's recipe (`training.json` has those of all runs):

```json
{recipe}
```

## What it cannot do
- It sees {side} x {side} pixels and answers in masks of a quarter of that side: thin things (wires, whiskers, legs of
  chairs), small things and exact edges are lost.
- It knows pets, clothes, people, emoji and a few everyday objects. Satellite tiles, microscopy, diagrams and
  crowded scenes are far from what it learnt; expect blobs that follow colour.
- One click is ambiguous: the three masks often are whole, part and something between. A box or a second click helps.
- Its predicted IoU ranks its own masks; it is not a promise.
- Use it to start at once; for exact masks choose a full SAM.

## Licence
The weights are Apache-2.0. The images they were learnt from are not included; their terms are above.
"""


def write_card(
    out: Path, runs: list[dict[str, Any]], figures: dict[str, dict[str, float]], parameters: int, side: int
) -> None:
    """Write ``README.md``, ``figures.json`` and ``training.json``.

    ``runs`` are those of :func:`engine.pretrain.card.describe_run`, first to last; ``figures`` those of
    :func:`engine.pretrain.measure_sam.measure`.
    """
    rows = [
        f"| {name} | {row['regions']:.0f} | " + " | ".join(f"{row[figure]:.3f}" for figure in FIGURES) + " |"
        for name, row in figures.items()
    ]
    text = CARD.format(
        parameters=parameters,
        share=SMALL_SHARE,
        heads=" | ".join(FIGURES),
        lines="|".join("---" for _ in FIGURES),
        figures="\n".join(rows),
        runs="\n".join(RUN.format(k=k, **run) for k, run in enumerate(runs, 1)),
        sources=SOURCES,
        side=side,
        recipe=json.dumps(runs[-1]["recipe"], indent=1),
    )
    (out / "README.md").write_text(text, encoding="utf8")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    (out / RUNS).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf8")
