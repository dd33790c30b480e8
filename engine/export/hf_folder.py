"""A folder of transformers: a plain ``CLIPModel`` or ``SiglipModel`` with merged weights."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from engine.backbones import conv_stem
from engine.backbones.base import Backbone
from engine.backbones.hf_base import HFBackbone
from engine.errors import BadExport, messages
from engine.export.files import CARD, Exported, Source, sizes, write_labels
from engine.export.plain import compare, fold, how_texts_are_read
from engine.runs import card

messages(
    export_not_transformers="{backbone} is a model of open_clip, which transformers has no class for. Export to "
    "open_clip, onnx or page instead.",
)

USE = """
## Use
Plain transformers reads this folder{need}:

```python
import json

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, {cls}

model = {cls}.from_pretrained("."{trust}).eval()
processor = AutoImageProcessor.from_pretrained(".")
labels, head = json.load(open("labels.json", encoding="utf8")), load_file("labels.safetensors")
pixels = processor(Image.open("photo.jpg").convert("RGB"), return_tensors="pt").pixel_values
with torch.no_grad():
    image = model.get_image_features(pixel_values=pixels).pooler_output
logits = torch.nn.functional.normalize(image, dim=-1) @ head["weight"].T + head["bias"]
scores = dict(zip(labels["labels"], logits.{activation}[0].tolist()))
print(scores)
```

{texts}
"""
STEM = "conv_stem.py"


def write(source: Source, folder: Path) -> Exported:
    """Write the model into a folder. Raises BadExport; then nothing is written."""
    backbone = source.setting.backbone
    if not isinstance(backbone, HFBackbone):
        raise BadExport("export_not_transformers", backbone=backbone.id)
    plain = fold(source.tuner, source.setting, source.method)
    model = model_to_save(plain.backbone)
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    hybrid = is_hybrid(backbone)
    if hybrid:
        shutil.copy(str(conv_stem.__file__), folder / STEM)
    write_labels(plain, source, folder)
    texts = how_texts_are_read(plain)
    words = {
        "cls": "AutoModel" if hybrid else type(model).__name__,
        "need": f"; its convolutional trunk is in `{STEM}` and needs timm" if hybrid else "",
        "trust": ", trust_remote_code=True" if hybrid else "",
        "activation": "softmax(-1)" if backbone.bias is None else "sigmoid()",
        "texts": texts,
    }
    text = card.front_matter(source.recipe, "transformers", "finetune") + card.heading(source.recipe)
    (folder / CARD).write_text(text + card.measured(source.recipe) + USE.format(**words), "utf8")
    difference = compare(plain, source.tuner, lambda pixels: read_features(type(backbone.model), folder, pixels))
    return Exported("transformers", sizes(folder), difference, (texts,))


def is_hybrid(backbone: Backbone) -> bool:
    """Return whether a convolutional trunk embeds the image, as in Pocket CLIP, which no class of transformers has."""
    return hasattr(backbone.model.config.vision_config, "conv_stem")


def model_to_save(backbone: Backbone) -> Any:
    """Return the model as its library's own class would be saved, in fp32."""
    from transformers import CLIPModel

    model: Any = copy.copy(backbone.model)
    model.config = copy.deepcopy(model.config)
    model.config.dtype = torch.float32
    if is_hybrid(backbone):
        model.config.auto_map = {"AutoModel": f"{Path(STEM).stem}.{conv_stem.HybridCLIPModel.__name__}"}
    elif isinstance(model, conv_stem.HybridCLIPModel):
        plain: Any = CLIPModel
        model.__class__ = plain  # without a trunk the two are the same
    return model


@torch.no_grad()
def read_features(cls: Any, folder: Path, pixels: Tensor) -> Tensor:
    """Return image features ``(B, P)`` of the model in a folder, read anew."""
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    return model.get_image_features(pixel_values=pixels).pooler_output
