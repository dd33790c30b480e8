"""``ask``: a small vision-language model answers about a picture, its marks, and its marks with CLIP's labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import table
from engine.errors import BadConfig, messages

if TYPE_CHECKING:
    from engine.ask.answerer import Answerer
    from engine.ask.check import WaysChecked

messages(
    ask_nothing="Give a picture and a question (--image, --question), or photos to measure with (--check --task).",
)


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    sub.add_argument("--image", help="image file")
    sub.add_argument("--question", default="", help='such as "What is in mark 2?"')
    sub.add_argument("--model", default="pocket", help="catalogue id or folder (default: pocket; see --models)")
    sub.add_argument("--models", action="store_true", help="list the catalogue instead")
    sub.add_argument("--ways", default="", help="plain, marked, labelled, by comma (default: those that differ)")
    sub.add_argument(
        "--point", action="append", default=[], metavar="X,Y[,0|1]", help="a click that marks a region, as in regions"
    )
    sub.add_argument("--box", action="append", default=[], metavar="X1,Y1,X2,Y2", help="a box: one marked region each")
    sub.add_argument("--auto", action="store_true", help="mark everything that is found")
    sub.add_argument("--granularity", default="objects", help="with --auto: objects, parts or all (default: objects)")
    sub.add_argument("--segmenter", default="pocket", help="what finds the regions (default: pocket)")
    sub.add_argument("--labels", help="labels by comma, of which CLIP gives each mark one")
    sub.add_argument("--adapter", type=Path, help="a saved adapter labels the marks instead")
    sub.add_argument("--templates", default="general", help="template set of --labels (default: general)")
    sub.add_argument("--backbone", help="of --labels, or where the adapter's lies (default: pocket, or the adapter's)")
    sub.add_argument("--check", action="store_true", help="measure with --task whether marks help this model")
    sub.add_argument("--task", nargs="+", help="labelled photos, as tune takes them")
    sub.add_argument("--sheets", type=int, default=20, help="with --check: pictures of four photos (default: 20)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")


def run(options: argparse.Namespace) -> tuple[Any, str]:
    """List, measure or answer."""
    if options.models:
        return list_models()
    if options.check and options.task:
        return measure(options, load(options))
    if not options.image or options.check:
        raise BadConfig("ask_nothing")
    return answer(options)


def list_models() -> tuple[Any, str]:
    """Return the catalogue, with what is on this machine."""
    from dataclasses import asdict

    from engine.ask.catalog import ENTRIES

    rows = [{**asdict(entry), "cached": entry.cached()} for entry in ENTRIES]
    lines = [
        [
            row["id"],
            f"{row['parameters']:g} M",
            row["licence"],
            " ".join(row["languages"]),
            "ready" if row["cached"] else f"{row['download_mb']:,} MB to download",
        ]
        for row in rows
    ]
    return {"models": rows}, table(["model", "parameters", "licence", "reads", "here"], lines)


def load(options: argparse.Namespace) -> Answerer:
    """Return the model, downloaded if need be."""
    from engine.ask import catalog

    catalog.fetch(options.model)
    return catalog.load(options.model, options.device)


def answer(options: argparse.Namespace) -> tuple[Any, str]:
    """Answer one question about one picture."""
    from engine.ask.ask import ask
    from engine.ask.prompts import checked
    from engine.cli import regions as marking
    from engine.data.images import OWN_MEGAPIXELS, read_image
    from engine.regions import scores

    checked(options.question)  # raises before anything is loaded
    image = read_image(options.image, max_megapixels=OWN_MEGAPIXELS, whole=True)
    scorer = marking.scorer_of(options)
    labels: dict[int, str] = {}
    wanted = options.point or options.box or options.auto
    found, picture = marking.marked(options, image) if wanted else ((), image)
    if scorer and found:
        guesses = scores.score(picture, found, scorer)
        labels = {row.number: (row.tuned or row.zero_shot).label for row in guesses}
    ways = [way.strip() for way in options.ways.split(",") if way.strip()]
    said = {}
    for moment in ask(load(options), picture, options.question, found, labels, ways):
        said[moment.way] = moment
    result = {
        "model": options.model,
        "question": options.question,
        "marks": {str(region.number): labels.get(region.number) for region in found},
        "answers": {way: {**m.reply.to_json(), "told": m.prompt.hint} for way, m in said.items()},
    }
    rows = [[way, m.reply.text, m.reply.tokens, f"{m.reply.seconds:.1f} s"] for way, m in said.items()]
    return result, table(["way", "answer", "pieces", "time"], rows)


def measure(options: argparse.Namespace, answerer: Answerer) -> tuple[Any, str]:
    """Ask about sheets of labelled photos in the three ways."""
    from engine import front_door
    from engine.ask.check import check
    from engine.backbones import catalog
    from engine.regions.scores import Scorer

    task = front_door.read_task(options.task, options.labels or None)
    if options.adapter:
        adapter = front_door.load_adapter(options.adapter, options.device, options.backbone)
        scorer = Scorer(adapter.setting, adapter.tuner)
    else:
        backbone = catalog.load(options.backbone or catalog.POCKET, options.device)
        scorer = Scorer.zero_shot(backbone, task.labels, options.templates)
    found: WaysChecked | None = None
    for found in check(answerer, scorer, task.images, max(1, options.sheets), options.seed):
        if sys.stderr.isatty():
            print(f"\r{found.done}/{found.total}\033[K", end="", file=sys.stderr)
    assert found is not None
    rows = [[way, f"{r.value:.0%}", f"{r.low:.0%} to {r.high:.0%}"] for way, r in found.rates().items()]
    return {"model": options.model, **found.to_json()}, table(
        [f'"What is in mark n?" on {found.done} sheets', "right", "95 % interval"], rows
    )
