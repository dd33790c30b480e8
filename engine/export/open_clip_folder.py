"""A checkpoint of open_clip with merged weights, in the layout of its ``local-dir:`` and ``hf-hub:`` names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.backbones.openclip import OpenClip
from engine.backbones.split_attention import join_projections
from engine.errors import BadExport, messages
from engine.export.files import CARD, Exported, Source, sizes, write_labels
from engine.export.plain import Plain, compare, fold, how_texts_are_read
from engine.runs import card

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

messages(
    export_not_open_clip="open_clip has no architecture for {backbone}. Export to transformers, onnx or page instead.",
    export_folded="{method} was trained on convolutions of {backbone} that were folded together, which cannot be taken "
    "apart again. Export to onnx or page instead.",
)

USE = """
## Use
Plain open_clip reads this folder (and `hf-hub:OWNER/NAME` once it is there):

```python
import json

import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file

model, preprocess = open_clip.create_model_from_pretrained("local-dir:.")
labels, head = json.load(open("labels.json", encoding="utf8")), load_file("labels.safetensors")
with torch.no_grad():
    image = model.eval().encode_image(preprocess(Image.open("photo.jpg"))[None], normalize=True)
logits = image @ head["weight"].T + head["bias"]
scores = dict(zip(labels["labels"], logits.{activation}[0].tolist()))
print(scores)
```

{texts}
"""


def write(source: Source, folder: Path) -> Exported:
    """Write the checkpoint into a folder. Raises BadExport; then nothing is written."""
    backbone = source.setting.backbone
    if not isinstance(backbone, OpenClip) or backbone.architecture is None:
        raise BadExport("export_not_open_clip", backbone=backbone.id)
    plain = fold(source.tuner, source.setting, source.method)
    state = open_clip_state(plain, backbone, source)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    preprocess = {name: value for name, value in backbone.model.visual.preprocess_cfg.items() if name != "size"}
    config = {"model_cfg": backbone.architecture, "preprocess_cfg": preprocess}
    (folder / CONFIG).write_text(json.dumps(config, indent=1), "utf8")
    tokenizer = getattr(backbone.tokenizer, "tokenizer", None)
    if tokenizer is not None:  # of transformers; open_clip's own needs no files
        tokenizer.save_pretrained(folder)
    write_labels(plain, source, folder)
    texts = how_texts_are_read(plain)
    words = {"activation": "softmax(-1)" if backbone.bias is None else "sigmoid()", "texts": texts}
    text = card.front_matter(source.recipe, "open_clip", "finetune") + card.heading(source.recipe)
    (folder / CARD).write_text(text + card.measured(source.recipe) + USE.format(**words), "utf8")
    difference = compare(plain, source.tuner, lambda pixels: read_features(folder, pixels))
    return Exported("open_clip", sizes(folder), difference, (texts,))


def open_clip_state(plain: Plain, backbone: OpenClip, source: Source) -> dict[str, Tensor]:
    """Return the weights by open_clip's own names: the merged ones, and those of folded convolutions as they were.

    Raises BadExport where what was trained is only in the folded ones.
    """
    original, tuned = backbone.model.state_dict(), plain.backbone.model.state_dict()
    folded = backbone.folded.state_dict()
    for name, tensor in tuned.items():
        if name not in original and not torch.equal(tensor, folded[name]):
            raise BadExport("export_folded", method=source.method, backbone=backbone.id)
    state = {name: tuned.get(name, tensor) for name, tensor in original.items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in join_projections(state).items()}


@torch.no_grad()
def read_features(folder: Path, pixels: Tensor) -> Tensor:
    """Return image features ``(B, P)`` of the checkpoint in a folder, read anew by open_clip."""
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval().encode_image(pixels)
