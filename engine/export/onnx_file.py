"""One ONNX file from an image's pixels to the labels' probabilities, in fp32 and in int8, for any method."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.errors import BadExport, LabError, Note, messages, reason_of
from engine.export.files import CARD, LABELS, Exported, Source, labels_json, sizes
from engine.export.plain import TOLERANCE, noise_images
from engine.export.scorer import Scorer, preprocessing
from engine.runs import card
from engine.types import DIGITS
from engine.units import MB

if TYPE_CHECKING:
    from engine.data.images import ImageFile

FULL, SMALL = "model.onnx", "model-int8.onnx"
OPSET = 17
"""Of ONNX: the first with LayerNormalization, which every runtime of the last years reads."""
FEW_WEIGHTS = 1024
"""Convolutions with fewer weights stay as they are: they take no room."""
MOST_MEASURED = 400
"""Images that both files score to compare their accuracy."""

messages(
    export_package="The package {package} is missing, which this form needs. Install it with: pip install {package}",
    export_onnx="{method} on {backbone} cannot be written as ONNX ({reason}). Export to transformers or open_clip "
    "instead.",
    export_unmeasured="How much accuracy int8 costs was not measured: that takes labelled images that did not train "
    "(--task on the command line).",
    export_lost="int8 takes {before:.1f} MB to {after:.1f} MB; of {count} images that did not train {full:.1%} are "
    "right in fp32 and {small:.1%} in int8.",
)

USE = """
## Use
`{full}` and the smaller `{small}` take one image as uint8 `pixels (1, 3, {size}, {size})` and return probabilities
`tuned` and `zero_shot`, `(1, {count})` each. Normalisation, labels' texts and head are inside.

```python
import json

import numpy as np
import onnxruntime
from PIL import Image

about = json.load(open("labels.json", encoding="utf8"))
image, side = Image.open("photo.jpg").convert("RGB"), about["size"]
method, short = getattr(Image.Resampling, about["interpolation"].upper()), min(image.size)
if about["resize"] == "shortest":
    image = image.resize([side * edge // short for edge in image.size], method)
    left, top = (round((edge - side) / 2) for edge in image.size)
    image = image.crop((left, top, left + side, top + side))
else:
    image = image.resize((side, side), method)
pixels = np.asarray(image).transpose(2, 0, 1)[None]
session = onnxruntime.InferenceSession("{small}")
tuned, zero_shot = session.run(["tuned", "zero_shot"], {{"pixels": pixels}})
scores = dict(zip(about["labels"], tuned[0].tolist()))
print(scores)
```

{said}
"""


def write(source: Source, folder: Path, images: Sequence[ImageFile] = ()) -> Exported:
    """Write both files into a folder.

    Args:
        images: with labels; those that did not train measure what int8 costs.

    Raises:
        BadExport: a package is missing, or the method's operations have no form in ONNX; then nothing is written.
    """
    require("onnx", "onnxruntime")
    folder.mkdir(parents=True, exist_ok=True)
    difference = trace(source, folder / FULL)
    quantize(folder / FULL, folder / SMALL)
    about = labels_json(source, None) | preprocessing(source.setting.backbone)
    (folder / LABELS).write_text(json.dumps(about, ensure_ascii=False, indent=1), "utf8")
    accuracy, tested = measure(source, [folder / FULL, folder / SMALL], images)
    note = Note("export_unmeasured")
    if tested:
        before, after = ((folder / name).stat().st_size / MB for name in (FULL, SMALL))
        values = {"full": accuracy["fp32"], "small": accuracy["int8"], "count": tested}
        note = Note.of("export_lost", before=before, after=after, **values)
    words = {"full": FULL, "small": SMALL, "size": about["size"], "count": len(about["labels"]), "said": note}
    text = card.front_matter(source.recipe, "onnx", "quantized") + card.heading(source.recipe)
    (folder / CARD).write_text(text + card.measured(source.recipe) + USE.format(**words), "utf8")
    return Exported("onnx", sizes(folder), difference, (note,), accuracy, tested)


def require(*packages: str) -> None:
    """Raise BadExport where a package is not installed."""
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise BadExport("export_package", package=package)


@torch.no_grad()
def trace(source: Source, path: Path) -> float:
    """Write the fp32 file; return its largest difference of a probability on images of random colours.

    Raises BadExport.
    """
    device = source.setting.backbone.device
    scorer = Scorer(source).eval()
    size = source.setting.backbone.shape.image_size
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    raw = path.with_name("traced.onnx")
    try:
        with quiet():
            torch.onnx.export(
                scorer,
                (pixels,),
                str(raw),
                dynamo=False,  # the other exporter needs two more packages
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["tuned", "zero_shot"],
            )
            tidy(raw, path)
    except LabError:
        raise
    except Exception as error:  # the tracer and the runtime raise what they like
        values = {"method": source.title, "backbone": source.setting.backbone.id}
        raise BadExport("export_onnx", **values, reason=reason_of(error)) from error
    finally:
        raw.unlink(missing_ok=True)
    wanted, found = [], []
    for image in noise_images(size):
        wanted.append(torch.cat(scorer(image[None].to(device))).cpu().numpy())
        found.append(np.concatenate(run(open_session(path), image[None].numpy())))
    difference = float(np.abs(np.stack(wanted) - np.stack(found)).max())
    if difference > TOLERANCE:
        raise BadExport("export_inexact", difference=difference)
    return difference


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of tracer and quantiser to themselves: the result is compared with the model."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def tidy(raw: Path, path: Path) -> None:
    """Write a traced model with constants folded and shared weights under one name, by onnxruntime's basic passes."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, str(path))


def quantize(full: Path, small: Path) -> None:
    """Write a model with int8 weights.

    Matrix products are quantised dynamically, inputs too. Convolutions keep inputs in fp32 and only their weights are
    int8, a scale for each channel: with int8 inputs Pocket CLIP lost 3.3 points on 420 photos of clothes instead of
    0.7, and took four times as long.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        kinds = ["MatMul", "Gemm"]
        quantize_dynamic(
            str(full), str(small), op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8
        )
    quantize_convolutions(small)


def quantize_convolutions(path: Path) -> None:
    """Replace the weights of large convolutions by int8 and a scale for each output channel, in place."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[Any] = []
    done: set[str] = set()
    for node in model.graph.node:
        name = node.input[1] if node.op_type == "Conv" else ""
        values = numpy_helper.to_array(weights[name]) if name in weights else np.empty(0)  # (out, in, h, w)
        if values.size >= FEW_WEIGHTS:
            if name not in done:
                scale = np.abs(values).reshape(len(values), -1).max(1) / 127
                scale[scale == 0] = 1
                whole = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
                model.graph.initializer.remove(weights[name])
                parts = {f"{name}_int8": whole, f"{name}_scale": scale.astype(np.float32)}
                model.graph.initializer.extend(numpy_helper.from_array(part, key) for key, part in parts.items())
                nodes.append(helper.make_node("DequantizeLinear", list(parts), [f"{name}_fp32"], axis=0))
                done.add(name)
            node.input[1] = f"{name}_fp32"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def open_session(path: Path) -> Any:
    """Return onnxruntime's session of a file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: Any, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities ``(1, K)`` of one image ``(1, 3, S, S)`` uint8: tuned, zero-shot."""
    tuned, zero_shot = session.run(["tuned", "zero_shot"], {"pixels": pixels})
    return tuned, zero_shot


def measure(source: Source, files: Sequence[Path], images: Sequence[ImageFile]) -> tuple[dict[str, float], int]:
    """Return the accuracy of the fp32 and the int8 file on labelled images that did not train, and how many there are.

    Of many images ``MOST_MEASURED`` are taken, evenly.
    """
    from engine.data.images import read_checked

    index = {label.name: k for k, label in enumerate(source.setting.labels)}
    learned = set(source.recipe.get("trained_on", ()))
    fresh = [image for image in images if image.label in index and image.digest[:DIGITS] not in learned]
    fresh = [fresh[k] for k in np.linspace(0, len(fresh) - 1, min(len(fresh), MOST_MEASURED)).astype(int)]
    if not fresh:
        return {}, 0
    sessions, right = [open_session(file) for file in files], np.zeros(len(files))
    for image in fresh:
        pixels = source.setting.backbone.load_pixels([read_checked(image)]).cpu().numpy()
        said = [int(run(session, pixels)[0].argmax()) for session in sessions]
        right += np.equal(said, index[image.label or ""])
    return dict(zip(("fp32", "int8"), (right / len(fresh)).tolist(), strict=True)), len(fresh)
