"""``python -m engine regions``: masks of an image, marked, and what zero-shot and a tuned model say of each."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BadConfig, BadRegion, Note, messages
from engine.outputs import checked_folder, filling, writing
from engine.regions.export import guess_json, mask_name, region_json, shortcut_json, sides_of

if TYPE_CHECKING:
    from PIL import Image

    from engine.regions.scores import Scorer
    from engine.regions.segmenter import Scene
    from engine.regions.types import Region

messages(
    regions_numbers="{option} {text!r} is not {wanted}, in pixels of the image.",
    point_form="x,y or x,y,1 (object) or x,y,0 (background)",
    point_form_marked="x,y,1 (object) or x,y,0 (background)",
    regions_both_labels="--labels and --adapter were both given; an adapter brings its own labels. Leave one out.",
    regions_layer="There is no layer {name!r}. Choose some of: {known}.",
    regions_no_object="There is no region {number} to test as the object. Choose one of: {known}.",
    regions_no_scorer="--object needs --labels or --adapter, so that there are labels to compare.",
)


def arguments(sub: argparse.ArgumentParser) -> None:
    """The command's options."""
    sub.add_argument("--image", required=True, help="image file")
    sub.add_argument(
        "--out", type=checked_folder, required=True, help="folder for overlay.png, the masks and regions.json"
    )
    sub.add_argument(
        "--segmenter", default="pocket", help="catalogue id, .pth or .safetensors file, or folder (default: pocket)"
    )
    sub.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,0|1]",
        help="a click on the object, or with 0 on the background; all clicks shape one region",
    )
    sub.add_argument("--box", action="append", default=[], metavar="X1,Y1,X2,Y2", help="a box: one region each")
    sub.add_argument("--auto", action="store_true", help="find everything (default without --point and --box)")
    sub.add_argument("--granularity", default="parts", help="with --auto: objects, parts or all (default: parts)")
    sub.add_argument("--marks", default="numbers", help="numbers or letters (default: numbers)")
    sub.add_argument("--alpha", type=float, default=0.4, help="strength of the masks' colours, 0 to 1 (default: 0.4)")
    sub.add_argument(
        "--layers", default="mask,contour,number", help="what is drawn: mask, contour, box, number, by comma"
    )
    sub.add_argument("--labels", help="score the regions with these labels, by comma; 'name=prompt text'")
    sub.add_argument("--adapter", type=Path, help="score with a saved adapter too; it brings labels and backbone")
    sub.add_argument("--templates", default="general", help="template set (default: general)")
    sub.add_argument("--backbone", help="catalogue id, folder or hub name (default: pocket, or the adapter's)")
    sub.add_argument("--view", default="crop", help="how a region is shown: crop, blur, grey or cut (default: crop)")
    sub.add_argument("--margin", type=float, default=0.15, help="around a crop, as a share of it (default: 0.15)")
    sub.add_argument(
        "--object", type=int, metavar="NUMBER", help="test whether this region or its background gives the label"
    )
    sub.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")


def run(options: argparse.Namespace) -> tuple[Any, str]:
    """Find, score, mark and write the regions of one image."""
    from engine.data.images import OWN_MEGAPIXELS, read_image
    from engine.regions import marks, scores, shortcut

    layers = _layers(options.layers)
    style = marks.Style(options.marks, options.alpha, **layers)
    points, boxes = [_point(text) for text in options.point], [_box(text) for text in options.box]
    image = read_image(options.image, max_megapixels=OWN_MEGAPIXELS, whole=True)
    scorer = scorer_of(options)
    if scorer is None and options.object is not None:
        raise BadConfig("regions_no_scorer")
    segmenter = _segmenter(options)
    seconds, started = {}, time.perf_counter()
    scene = segmenter.set_image(image)
    seconds["encode"], started = time.perf_counter() - started, time.perf_counter()
    regions = find(scene, points, boxes, options.auto, options.granularity)
    seconds["find"], started = time.perf_counter() - started, time.perf_counter()
    scored = scores.score(scene.picture, regions, scorer, options.view, options.margin) if scorer else ()
    tested = None
    if scorer and options.object is not None:
        tested = shortcut.probe(scene.picture, [_numbered(regions, options.object)], scorer)
    seconds["score"] = time.perf_counter() - started
    overlay = marks.draw(image, regions, style)
    by_number = {row.number: row for row in scored}
    result = {
        "image": {"file": Path(options.image).name, "width": image.width, "height": image.height},
        "segmenter": segmenter.id,
        "granularity": options.granularity if any(r.granularity for r in regions) else None,
        "backbone": scorer.backbone.id if scorer else None,
        "view": options.view if scorer else None,
        "labels": [label.name for label in scorer.labels] if scorer else [],
        "regions": [
            {
                **region_json(region, marks.text_of(region.number, options.marks)),
                **({side: guess_json(guess, scorer) for side, guess in sides_of(by_number.get(region.number))}),
            }
            for region in regions
        ],
        "without_mark": list(overlay.unplaced),
        "shortcut": shortcut_json(tested, scorer),
        "seconds": seconds,
    }
    write(options.out, overlay.image, regions, result)
    return result, regions_table(result, options.out)


def list_segmenters(options: argparse.Namespace) -> tuple[Any, str]:
    """Return the catalogue, with what is on this machine."""
    from engine.cli.common import table
    from engine.regions import catalog

    rows, lines = [], []
    for entry in catalog.ENTRIES:
        obstacle = entry.obstacle()
        rows.append(
            {
                "id": entry.id,
                "name": entry.name,
                "parameters": entry.parameters,
                "image_size": entry.image_size,
                "download_mb": entry.download_mb,
                "licence": entry.licence,
                "source": entry.source,
                "cached": obstacle is None,
                "obstacle": str(obstacle) if obstacle else None,
            }
        )
        here = (
            "ready" if obstacle is None else f"{entry.download_mb} MB to download" if entry.download_mb else "missing"
        )
        lines.append([entry.id, f"{entry.parameters:g} M", entry.image_size, entry.licence, here])
    return {"segmenters": rows}, table(["segmenter", "parameters", "pixels", "licence", "here"], lines)


def find(scene: Scene, points: list[Any], boxes: list[Any], auto: bool, granularity: str) -> tuple[Region, ...]:
    """Return the regions that were asked for; those of *everything* keep their numbers, others come after them."""
    from engine.regions.types import numbered

    found: list[Region] = []
    if points:
        found.append(scene.click([point[:2] for point in points], [point[2] for point in points])[0])
    found += [scene.box(box)[0] for box in boxes]
    everything = scene.everything(granularity, _progress()) if auto or not found else ()
    return (*everything, *numbered(found, max((region.number for region in everything), default=0) + 1))


def write(folder: Path, overlay: Any, regions: tuple[Region, ...], result: dict[str, Any]) -> None:
    """overlay.png, a black and white PNG a mask, regions.json. Raises BadOutput where the folder cannot be written."""
    from PIL import Image

    with writing(folder), filling(folder) as fresh:
        overlay.save(fresh / "overlay.png")
        for region in regions:
            Image.fromarray(region.mask).save(fresh / mask_name(region.number))
        (fresh / "regions.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf8")


def regions_table(result: dict[str, Any], folder: Path) -> str:
    """Return the regions for people."""
    from engine.cli.common import table

    pixels = result["image"]["width"] * result["image"]["height"]
    sides = [side for side in ("zero_shot", "tuned") if any(side in row for row in result["regions"])]
    head = ["region", "share", "left, top, width, height", "estimate", "stability"]
    head += [name for side in sides for name in (side.replace("_", "-"), "p", "margin")]
    rows = []
    for row in result["regions"]:
        cells = [
            row["mark"],
            f"{row['area'] / pixels:.1%}",
            ", ".join(map(str, row["bbox"])),
            f"{row['predicted_iou']:.2f}",
            f"{row['stability_score']:.2f}",
        ]
        for side in sides:
            cells += [row[side]["label"], f"{row[side]['probability']:.2f}", f"{row[side]['margin']:.2f}"]
        rows.append(cells)
    seconds = ", ".join(f"{part} {spent:.1f} s" for part, spent in result["seconds"].items())
    lines = [table(head, rows), *(result["shortcut"] or {}).get("sentences", ())]
    return "\n".join([*lines, f"{seconds}; overlay.png, masks and regions.json are in {folder}"])


def _layers(text: str) -> dict[str, bool]:
    names = ("mask", "contour", "box", "number")
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in names:
            raise BadConfig("regions_layer", name=name, known=", ".join(names))
    return {name: name in chosen for name in names}


def _point(text: str) -> tuple[float, float, int]:
    parts = _numbers("--point", text, Note("point_form"), (2, 3))
    label = parts[2] if len(parts) == 3 else 1
    if label not in (0, 1):
        raise BadConfig("regions_numbers", option="--point", text=text, wanted=Note("point_form_marked"))
    return parts[0], parts[1], int(label)


def _box(text: str) -> list[float]:
    return _numbers("--box", text, "left,top,right,bottom", (4,))


def _numbers(option: str, text: str, wanted: str | Note, counts: tuple[int, ...]) -> list[float]:
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in counts or not all(map(math.isfinite, parts)):
        raise BadConfig("regions_numbers", option=option, text=text, wanted=wanted)
    return parts


def _numbered(regions: tuple[Region, ...], number: int) -> Region:
    for region in regions:
        if region.number == number:
            return region
    raise BadRegion("regions_no_object", number=number, known=", ".join(str(region.number) for region in regions))


def marked(options: argparse.Namespace, image: Image.Image) -> tuple[tuple[Region, ...], Image.Image]:
    """Return the regions that the options ask for, and the picture that they were found on."""
    scene = _segmenter(options).set_image(image)
    points, boxes = [_point(text) for text in options.point], [_box(text) for text in options.box]
    return find(scene, points, boxes, options.auto, options.granularity), scene.picture


def scorer_of(options: argparse.Namespace) -> Scorer | None:
    """Zero-shot with the labels, or a saved adapter beside it; None where neither is asked for."""
    from engine.backbones import catalog
    from engine.data.labels import parse_labels
    from engine.front_door import load_adapter
    from engine.regions.scores import Scorer

    if options.adapter and options.labels:
        raise BadConfig("regions_both_labels")
    if options.adapter:
        adapter = load_adapter(options.adapter, options.device, options.backbone)
        return Scorer(adapter.setting, adapter.tuner)
    if options.labels:
        labels = parse_labels(options.labels)
        return Scorer.zero_shot(
            catalog.load(options.backbone or catalog.POCKET, options.device), labels, options.templates
        )
    return None


def _segmenter(options: argparse.Namespace) -> Any:
    """The segmenter, downloaded if need be with its progress on stderr."""
    from engine.regions import catalog

    shown = _progress(1_000_000, " MB of the segmenter")
    catalog.fetch(options.segmenter, shown)
    return catalog.load(options.segmenter, options.device)


def _progress(unit: int = 1, what: str = " steps of the search") -> Any:
    """A line on stderr where someone reads it."""
    if not sys.stderr.isatty():
        return None
    return lambda done, total: print(f"\r{done // unit}/{total // unit}{what}\033[K", end="", file=sys.stderr)
