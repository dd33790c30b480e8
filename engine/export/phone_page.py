"""One HTML file that runs the int8 model on a phone: photo or camera in, tuned and zero-shot scores out, no server."""

from __future__ import annotations

import base64
import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BadExport, Note, messages
from engine.export import onnx_file, web_runtime
from engine.export.files import CARD, LABELS, Exported, Source, sizes
from engine.runs import card
from engine.units import MB

if TYPE_CHECKING:
    from engine.data.images import ImageFile

PAGE = "index.html"
PARTS = Path(__file__).parent / "phone"
MOST_BYTES = 250_000_000
"""Of a page. Chromium holds no text beyond 512 MB, and the page needs several times its size in memory."""
LIGHT_BYTES = 15_000_000
"""Beyond it the export says that the page is heavy."""
LICENCE = "onnxruntime-web, copyright Microsoft Corporation, MIT licence."

messages(
    export_page_large="On {backbone} the page would take {size:.0f} MB, and it may have at most {limit:.0f} MB. "
    "Export to onnx, or tune a smaller backbone.",
    export_page_heavy="The page takes {size:.0f} MB; an older phone may not open it. A smaller backbone makes it "
    "light.",
)

USE = """
## Use
Send `{page}` to a phone and open it in the browser: take a photo, choose photos, or let the camera run (browsers give
the camera only to pages that come by https or from the own machine; photos work from a file too). Model, runtime and
page are in this one file, and its content policy forbids every request. Some file managers show a preview that runs
no script: then put the file on any static web host, or open it from the browser.

The model is the int8 form of `model.onnx`. {said}

The runtime inside is {licence}
"""


def write(source: Source, folder: Path, images: Sequence[ImageFile] = ()) -> Exported:
    """Write the page into a folder.

    Args:
        images: with labels; those that did not train measure what int8 costs.

    Raises:
        BadExport: a package is missing, the page would be too large, or the method's operations have no form in ONNX;
            then nothing is written.
    """
    script, binary = web_runtime.runtime()
    with tempfile.TemporaryDirectory() as work:
        done = onnx_file.write(source, Path(work) / "onnx", images)
        model = (Path(work) / "onnx" / onnx_file.SMALL).read_bytes()
        about = json.loads((Path(work) / "onnx" / LABELS).read_text("utf8"))
    text = page(about | headline(source), script, binary, model)
    size = len(text.encode())
    if size > MOST_BYTES:
        values = {"size": size / MB, "limit": MOST_BYTES / MB}
        raise BadExport("export_page_large", backbone=source.setting.backbone.id, **values)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(text, "utf8")
    notes = done.notes if size <= LIGHT_BYTES else (*done.notes, Note.of("export_page_heavy", size=size / MB))
    top = card.front_matter(source.recipe, "onnx", "quantized") + card.heading(source.recipe)
    use = USE.format(page=PAGE, said=" ".join(map(str, notes)), licence=LICENCE)
    (folder / CARD).write_text(top + card.measured(source.recipe) + use, "utf8")
    return Exported("page", sizes(folder), done.difference, notes, done.accuracy, done.tested)


def headline(source: Source) -> dict[str, Any]:
    """Return what the page says of the run: method, backbone, accuracy on its test images with the 95 % interval."""
    recipe = source.recipe
    low, high = recipe["interval95"]["tuned"]
    return {
        "method": str(source.title),
        "backbone": recipe["backbone"],
        "tested": recipe["test"],
        "accuracy": recipe["accuracy"]["tuned"],
        "low": low,
        "high": high,
    }


def page(about: Mapping[str, Any], script: bytes, binary: bytes, model: bytes) -> str:
    """Return the whole page.

    Args:
        about: of labels, preprocessing and run, for the script.
        script: the runtime's JavaScript module.
        binary: its WebAssembly.
        model: an ONNX file.
    """
    import jinja2

    template = jinja2.Template((PARTS / "page.html").read_text("utf8"), autoescape=False)
    return template.render(
        title=escape(", ".join(about["labels"])),
        style=(PARTS / "page.css").read_text("utf8"),
        script=(PARTS / "page.js").read_text("utf8"),
        about=safe_json(about),
        words=safe_json(json.loads((PARTS / "words.json").read_text("utf8"))),
        runtime=packed(script),
        binary=packed(binary),
        model=packed(model),
        licence=LICENCE,
    )


def safe_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def packed(data: bytes) -> str:
    """Return bytes as gzip in base64."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
