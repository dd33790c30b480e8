"""The commands. Tables for people; with ``--json`` one JSON object on stdout and nothing else there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import temporary
from engine.cli import ask, compare, continual, export, regions
from engine.cli.common import read_task, settings_of, table
from engine.errors import LabError, messages, sentence
from engine.metrics import leaving, novelty, sets, training
from engine.outputs import checked_folder, writing
from engine.types import Progress, RunResult
from engine.units import bytes_text

messages(system_says_no="The system does not allow it ({reason}). Check the path, its rights and the free space.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 when done, 2 on a user's error, 3 when stopped."""
    try:
        options = parser().parse_args(arguments)
        result, table = options.run(options)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(sentence("system_says_no", {"reason": error}), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 3
    print(json.dumps(result, ensure_ascii=False) if options.json else table)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m engine", description="CLIP Tuning Lab on the command line.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return sub

    command("methods", list_methods, "every tuning method")
    command("backbones", list_backbones, "the backbones, and whether they can be used here")
    task_arguments(command("zero-shot", zero_shot, "zero-shot accuracy of every labelled image"))
    sub = command("tune", tune, "tune a method and compare it with zero-shot")
    task_arguments(sub)
    tune_arguments(sub)
    sub = command("compare", compare.run, "run many methods, shots and seeds on one task")
    task_arguments(sub)
    compare.arguments(sub)
    sub = command("continual", continual.run, "labels that arrive step by step: what is learned and what is forgotten")
    task_arguments(sub)
    continual.arguments(sub)
    forecast_arguments(command("forecast", forecast, "what a run would need: parameters, memory by part, seconds"))
    sub = command("predict", predict, "label images with a saved adapter")
    sub.add_argument("--adapter", type=Path, required=True, help="folder or zip of a saved adapter")
    sub.add_argument("--backbone", help="where the adapter's backbone lies now (default: where it was)")
    sub.add_argument("--device", help="cpu or cuda")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="image, folder or zip; the answers keep this order")
    export.arguments(command("export", export.run, "write a saved adapter as files that other programs read"))
    regions.arguments(command("regions", regions.run, "masks of an image, marked and scored"))
    ask.arguments(command("ask", ask.run, "a small vision-language model answers about a picture and its marks"))
    command("segmenters", regions.list_segmenters, "the segmenters, and whether they can be used here")
    return top


def task_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the images, labels and backbone that a command works on."""
    sub.add_argument(
        "--task",
        required=True,
        nargs="+",
        help="folder or zip with one sub-folder a class, one zip a class, a folder with a table of labels, COCO's or "
        "YOLO's files, a parquet table, or hf://datasets/OWNER/NAME",
    )
    sub.add_argument(
        "--labels", help="labels by comma; 'name=prompt text' gives the text apart (default: the folder names)"
    )
    sub.add_argument("--templates", default="general", help="template set (default: general)")
    sub.add_argument("--backbone", default="pocket", help="catalogue id, folder or hub name (default: pocket)")
    sub.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")


def tune_arguments(sub: argparse.ArgumentParser) -> None:
    """Add what decides a run."""
    sub.add_argument("--method", required=True)
    sub.add_argument("--shots", type=int, default=8, help="most training images a label (default: 8)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--preset", default="budget", help="budget or paper")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method; repeatable"
    )
    sub.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the training steps (default: bf16 where a tower is run and the device is quicker so, otherwise fp32)",
    )
    sub.add_argument("--save", type=checked_folder, help="folder for the adapter")


def forecast_arguments(sub: argparse.ArgumentParser) -> None:
    """Add what decides the run that is forecast."""
    sub.add_argument("--method", required=True)
    sub.add_argument("--backbone", default="pocket", help="catalogue id, folder or hub name (default: pocket)")
    sub.add_argument("--batch", type=int, help="images a step (default: the preset's)")
    sub.add_argument("--labels", type=int, default=10, help="number of labels (default: 10)")
    sub.add_argument("--shots", type=int, default=8, help="training images a label (default: 8)")
    sub.add_argument("--images", type=int, help="all images (default: twice the training images)")
    sub.add_argument("--preset", default="budget", help="budget or paper")
    sub.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the step that is forecast (default: what tune would take)",
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method; repeatable"
    )
    sub.add_argument(
        "--device", choices=("cpu", "cuda"), help="forecast memory for it (default: cuda where there is one)"
    )


def list_methods(options: argparse.Namespace) -> tuple[Any, str]:
    """Return every method's record."""
    from engine.methods.records import records

    rows = records()
    return {"methods": rows}, table(
        ["method", "family", "trained", "what it does"],
        [[r["id"], r["family"], r["count"], r["sentence"]] for r in rows],
    )


def list_backbones(options: argparse.Namespace) -> tuple[Any, str]:
    """Return the catalogue, with what is on this machine."""
    from dataclasses import asdict

    from engine.backbones.entries import ENTRIES
    from engine.backbones.hub import on_this_machine

    rows = [{**asdict(entry), "cached": on_this_machine(entry)} for entry in ENTRIES]
    lines = [
        [
            r["id"],
            f"{r['parameters']:g} M",
            r["image_size"],
            r["licence"],
            "ready" if r["cached"] else f"{r['download_mb']} MB to download",
        ]
        for r in rows
    ]
    return {"backbones": rows}, table(["backbone", "parameters", "pixels", "licence", "here"], lines)


def zero_shot(options: argparse.Namespace) -> tuple[Any, str]:
    """Both baselines on every labelled image."""
    from engine import front_door

    task, backbone = read_task(options)
    found = front_door.zero_shot(task, backbone, options.templates)
    rows = [[name, f"{rate.value:.1%}", f"{rate.low:.1%} to {rate.high:.1%}"] for name, rate in found.accuracy.items()]
    return found.to_json(), table([f"on {found.tested} images", "accuracy", "95 % interval"], rows)


def tune(options: argparse.Namespace) -> tuple[Any, str]:
    """One run."""
    from engine import front_door
    from engine.tuning import registry
    from engine.tuning.learned import LearnedTokens

    settings: dict[str, Any] = dict(settings_of(options))
    registry.get(options.method).configure(options.preset, settings, options.shots)  # raises before anything is read
    task, backbone = read_task(options)
    for note in front_door.split(task, options.shots, options.seed, options.templates).notes:
        print(note, file=sys.stderr)
    tuned = front_door.tune(
        task,
        options.method,
        backbone,
        options.shots,
        options.seed,
        preset=options.preset,
        template_set=options.templates,
        precision=options.precision,
        progress=show_progress,
        **settings,
    )
    with temporary.folder() as work:
        place = options.save or Path(work) / "adapter"
        with writing(place):
            size = tuned.save(place)
    result = replace(tuned.result, cost=replace(tuned.result.cost, adapter_bytes=size))
    learned = [part.to_json() for part in tuned.outcome.tuner.learned() if isinstance(part, LearnedTokens)]
    return result.to_json() | {"learned": learned}, tune_table(result)


def show_progress(moment: Progress) -> None:
    """A progress line on stderr where someone reads it."""
    if sys.stderr.isatty():
        loss = "" if moment.loss is None else f" loss {moment.loss:.3f}"
        print(f"\r{moment.stage} {moment.done}/{moment.total}{loss}\033[K", end="", file=sys.stderr)


def tune_table(result: RunResult) -> str:
    """Return a run for people."""
    words = {
        "better": "better than",
        "worse": "worse than",
        "close": "too close to call against",
        "baseline": "the baseline, compared with",
    }
    rows = []
    verdict, cost = result.verdict, result.cost
    for name, value in result.accuracy.items():
        low, high = result.interval95[name]
        rows.append([name, f"{value:.1%}", f"{low:.1%} to {high:.1%}"])
    seconds = cost.seconds
    lines = [
        table([f"{result.method} on {verdict.tested} test images", "accuracy", "95 % interval"], rows),
        f"verdict: {words[verdict.word]} prompt-ensembled zero-shot (p = {verdict.p_value:.3g}, "
        f"gained {verdict.gained:g}, lost {verdict.lost:g})",
        *([f"training: {said}"] if (said := training.sentence(result.training, result.curve, result.config)) else []),
        *([str(said)] if (said := sets.sentence(result.sets)) else []),
        *([str(said)] if (said := novelty.sentence(result.novelty)) else []),
        *([str(kept)] if (kept := leaving.sentence(result.chosen, len(result.labels), result.support)) else []),
        f"trained {cost.trainable_parameters:,} of {cost.total_parameters:,} parameters; "
        f"peak {bytes_text(cost.peak_memory_bytes)} ({cost.memory_kind}); "
        f"features {seconds['features']:.1f} s, training {seconds['train']:.1f} s, "
        f"evaluation {seconds['evaluate']:.1f} s; "
        f"adapter {bytes_text(cost.adapter_bytes)}",
    ]
    if cost.forecast_memory_bytes is None:
        lines.append("forecast: unknown (a training step cannot be followed on tensors that have sizes and no values)")
    return "\n".join(lines)


def forecast(options: argparse.Namespace) -> tuple[Any, str]:
    """Return what a run would need; the backbone's weights need not be here."""
    from engine.costs.planned import plan

    result = plan(
        options.method,
        options.backbone,
        options.labels,
        options.shots,
        options.images,
        batch=options.batch,
        preset=options.preset,
        precision=options.precision,
        device=options.device,
        settings=dict(settings_of(options)),
    )
    return result, forecast_table(result)


def forecast_table(result: dict[str, Any]) -> str:
    """Return a forecast for people."""
    rows = [[part, bytes_text(size)] for part, size in result["memory"].items()]
    rows.append(["total", bytes_text(result["total_bytes"])])
    seconds = result["seconds"]
    places = []
    for place, good in result["fits"].items():
        batch = result["largest_batch"].get(place)
        smaller = f" (batch size {batch} would)" if batch else ""
        places.append(f"{place}: {'yes' if good else 'no' + smaller}")
    return "\n".join(
        [
            table([f"{result['method']} on {result['backbone']}", "memory"], rows),
            f"trains {result['trainable_parameters']:,} of {result['total_parameters']:,} parameters",
            f"on this machine: features {seconds['features']:.1f} s, training {seconds['train']:.1f} s "
            f"({result['steps']} steps), evaluation {seconds['evaluate']:.1f} s",
            "fits on: " + ", ".join(places),
        ]
    )


def predict(options: argparse.Namespace) -> tuple[Any, str]:
    """Zero-shot and tuned label of some images."""
    from engine import front_door
    from engine.data.own_images import read_in_order

    with temporary.folder() as work:
        intake = read_in_order(options.images, Path(work))
        adapter = front_door.load_adapter(options.adapter, options.device, options.backbone)
        for problem in intake.problems:
            print(problem.message, file=sys.stderr)
        found = front_door.predict(adapter, intake.images)
    lines = [
        [
            row.image,
            row.zero_shot.label,
            f"{row.zero_shot.probability:.2f}",
            row.tuned.label,
            f"{row.tuned.probability:.2f}",
            " or ".join(row.likely),
            {None: "-", True: "maybe", False: "no"}[row.unlike],
        ]
        for row in found
    ]
    head = ["image", "zero-shot", "p", "tuned", "p", "right in 9 of 10", "none of these"]
    return {"predictions": [row.to_json() for row in found]}, table(head, lines)
