"""The command ``compare``: many methods on one task."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import BadConfig, messages
from engine.outputs import checked_file, writing
from engine.units import bytes_text, parse_bytes

if TYPE_CHECKING:
    from engine.backbones.base import Backbone
    from engine.checks.forgetting import Forgetting
    from engine.compare import Comparison, Constraints, Event, Executor, Ranking, Row
    from engine.data.images import ImageFile

messages(
    compare_bad_list="--{name} {text!r} is not a list of whole numbers by comma, such as {example}.",
    compare_bad_size="--{name} {text!r} is not a size such as 2GB, 500MB or 20kB.",
)


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the command's options; those that describe the task are there already."""
    sub.add_argument("--methods", default="quick", help="quick, all, a family, or methods by comma (default: quick)")
    sub.add_argument(
        "--shots", default="", help="training images a label, by comma (default: 1,2,4,8,16 as far as the images go)"
    )
    sub.add_argument("--seeds", default="0,1,2", help="draws of the training images, by comma (default: 0,1,2)")
    sub.add_argument("--preset", default="budget", help="budget or paper")
    sub.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the training steps")
    sub.add_argument("--max-memory", metavar="SIZE", help="limit of the recommended method, such as 2GB")
    sub.add_argument("--max-seconds", type=number, metavar="S", help="the same for the seconds of a run")
    sub.add_argument("--max-parameters", type=number, metavar="N", help="the same for trained parameters, such as 1e5")
    sub.add_argument("--max-file", metavar="SIZE", help="the same for the adapter's file, such as 1MB")
    sub.add_argument(
        "--max-loss",
        type=number,
        metavar="POINTS",
        help="the same for accuracy lost on labels that were not tuned on; asks for --damage",
    )
    sub.add_argument(
        "--damage",
        action="store_true",
        help="tune once more on half of the labels and test on the others: what is lost, how far embeddings drift",
    )
    sub.add_argument(
        "--executor",
        choices=("process", "pool", "ray"),
        default="process",
        help="where runs are done: in this process (default), in several, or on a Ray cluster",
    )
    sub.add_argument("--workers", type=int, metavar="N", help="most runs at once, for pool and ray")
    sub.add_argument("--address", help="of the Ray cluster; auto for the one that runs here (default: start one)")
    sub.add_argument("--again", action="store_true", help="run everything again, also what was run before")
    sub.add_argument("--csv", type=checked_file, metavar="FILE", help="write the runs as a table")
    sub.add_argument("--report", type=checked_file, metavar="FILE", help="write everything as one HTML file")


def run(options: argparse.Namespace) -> tuple[Any, str]:
    """Compare methods; what was run before on the same images and settings is not run again."""
    from engine import front_door
    from engine.cli.common import read_task
    from engine.compare.held_back import divide
    from engine.report.document import command_line, write_report

    shots = whole_numbers("shots", options.shots, "1,2,4")
    seeds = whole_numbers("seeds", options.seeds, "0,1,2")
    limits, executor = limits_of(options), executor_of(options)
    damage: list[Forgetting] = []
    task, backbone = read_task(options)
    if wanted := options.damage or limits.loss is not None:
        divide(task.labels, task.images, 1, options.templates)  # raises now rather than after everything was run
    comparison = shown(
        partial(
            front_door.compare,
            task,
            options.methods,
            backbone,
            shots,
            seeds,
            preset=options.preset,
            template_set=options.templates,
            precision=options.precision,
            limits=limits,
            executor=executor,
            fresh=options.again,
        )
    )
    if wanted and comparison.ranking and not comparison.stopped:
        comparison, damage = held_back(comparison, task.images, backbone, limits)
    if options.report:
        with writing(options.report):
            write_report(
                comparison,
                options.report,
                images=task.images,
                task=task.name,
                command=command_line(comparison, options.task, options.labels or ""),
                damage=damage,
            )
    for note in comparison.notes:
        print(note, file=sys.stderr)
    if options.csv:
        from engine.compare.export import write_csv

        with writing(options.csv):
            write_csv(comparison, options.csv)
    parts = [compare_table(comparison), damage_table(damage)]
    return comparison.to_json() | {"damage": [d.to_json() for d in damage]}, "\n\n".join(filter(None, parts))


def held_back(
    comparison: Comparison, images: Sequence[ImageFile], backbone: Backbone, limits: Constraints
) -> tuple[Comparison, list[Forgetting]]:
    """Test on labels that were not tuned on, with a bar on stderr."""
    from tqdm import tqdm

    from engine.compare import able, hold_back, with_damage
    from engine.types import Progress

    assert comparison.ranking is not None
    methods, found = able(comparison.ranking, backbone), []
    with tqdm(total=len(methods), disable=not sys.stderr.isatty(), unit="method", dynamic_ncols=True) as bar:
        for item in hold_back(comparison, methods, images, backbone):
            if not isinstance(item, Progress):
                found.append(item)
                bar.update()
    return with_damage(comparison, found, limits), found


def whole_numbers(name: str, text: str, example: str) -> tuple[int, ...]:
    """Return numbers by comma. Raises BadConfig."""
    try:
        numbers = tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise BadConfig("compare_bad_list", name=name, text=text, example=example) from error
    if any(number < 0 for number in numbers):
        raise BadConfig("compare_bad_list", name=name, text=text, example=example)
    return numbers


def number(text: str) -> float:
    """Return a number of an option. Raises ValueError, of which argparse says the option."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def limits_of(options: argparse.Namespace) -> Constraints:
    """Return the limits of the options."""
    from engine.compare import Constraints

    return Constraints(
        size_of("max-memory", options.max_memory),
        options.max_seconds,
        None if options.max_parameters is None else int(options.max_parameters),
        size_of("max-file", options.max_file),
        None if options.max_loss is None else options.max_loss / 100,
    )


def executor_of(options: argparse.Namespace) -> Executor:
    """Return where the runs are done."""
    from engine.compare import InProcess

    if options.workers is not None and options.workers < 1:
        raise BadConfig("bad_count", name="workers", low=1)
    if options.executor == "pool":
        from engine.compare.workers import Pool

        return Pool(options.workers)
    if options.executor == "ray":
        from engine.compare.on_ray import OnRay

        return OnRay(options.address, options.workers)
    return InProcess()


def size_of(name: str, text: str | None) -> int | None:
    """Return bytes of a size as typed, None where there is none. Raises BadConfig."""
    if text is None:
        return None
    size = parse_bytes(text)
    if size is None:
        raise BadConfig("compare_bad_size", name=name, text=text)
    return size


def shown(run: Callable[..., Comparison]) -> Comparison:
    """Run a comparison with a bar on stderr, or with a line a row where that is no terminal.

    Args:
        run: takes ``progress``, which it calls with each event.
    """
    from tqdm import tqdm

    rows = 0
    with tqdm(disable=not sys.stderr.isatty(), unit="run", dynamic_ncols=True) as bar:

        def show(event: Event) -> None:
            nonlocal rows
            if event.kind == "planned":
                bar.reset(event.total)
            elif event.kind == "features":
                bar.set_postfix_str(f"features {event.done}/{event.total}")
            elif event.job:
                left = "" if event.seconds_left is None else f", about {event.seconds_left:.0f} s left"
                bar.set_postfix_str(f"{event.job.spec.method}, {event.job.spec.episode.shots} shots{left}")
            elif event.row:
                rows = event.done
                bar.update()
                if bar.disable or event.row.error:
                    tqdm.write(f"{event.done}/{event.total} {row_line(event.row)}", file=sys.stderr)

        try:
            return run(progress=show)
        except KeyboardInterrupt:
            tqdm.write(f"{rows} rows are kept; the same command goes on from there.", file=sys.stderr)
            raise


def row_line(row: Row) -> str:
    """Return a row for people."""
    where = row.method if row.shots is None else f"{row.method}, {row.shots} shots, seed {row.seed}"
    if not row.result:
        return f"{where}: {row.message}"
    return f"{where}: {row.result.accuracy['tuned']:.1%}{' (from before)' if row.reused else ''}"


def compare_table(comparison: Comparison) -> str:
    """Runs, ranking and advice for people."""
    parts = [runs_table(comparison)]
    if comparison.ranking and comparison.advice:
        parts += [ranking_table(comparison.ranking), "\n".join(comparison.advice.sentences)]
    return "\n\n".join(parts)


def runs_table(comparison: Comparison) -> str:
    """Return a line a run."""
    from engine.cli.common import table

    rows: list[list[Any]] = []
    for row in comparison.rows:
        result = row.result
        if not result:
            rows.append([row.method, row.shots or "", "" if row.seed is None else row.seed, row.message])
            continue
        low, high = result.interval95["tuned"]
        rows.append(
            [
                row.method,
                row.shots,
                row.seed,
                f"{result.accuracy['tuned']:.1%}",
                f"{low:.1%} to {high:.1%}",
                result.verdict.word,
                f"{sum(result.cost.seconds.values()):.1f}",
            ]
        )
    head = ["run", "shots", "seed", "accuracy", "95 % interval", "against zero-shot", "seconds"]
    return table(head, [[*row, *[""] * (len(head) - len(row))] for row in rows])


def ranking_table(ranking: Ranking) -> str:
    """Return a line a method; those of a group cannot be told apart from its best."""
    from engine.cli.common import table

    rows = []
    for s in ranking.standings:
        over = s.over_zero_shot
        gain = (
            "" if s.word == "baseline" else f"{100 * over.value:+.1f} ({100 * over.low:+.1f} to {100 * over.high:+.1f})"
        )
        rows.append(
            [
                s.group,
                s.method,
                f"{s.accuracy.value:.1%}",
                f"{s.accuracy.low:.1%} to {s.accuracy.high:.1%}",
                gain,
                s.word,
                f"{s.parameters:,}",
                "unknown" if s.memory_bytes is None else bytes_text(s.memory_bytes),
                f"{s.seconds:.1f}",
                bytes_text(s.adapter_bytes),
            ]
        )
    head = [
        "group",
        f"mean of {len(ranking.seeds)} seeds, {ranking.shots} shots",
        "accuracy",
        "95 % interval",
        "points over zero-shot",
        "verdict",
        "trained",
        "memory",
        "seconds",
        "file",
    ]
    return table(head, rows)


def damage_table(found: Sequence[Forgetting]) -> str:
    """Return a line a method with what it loses elsewhere, and the WiSE-FT curve of those that can be mixed."""
    from engine.cli.common import table
    from engine.report.words import ENGLISH

    if not found:
        return ""
    rows = [
        [
            d.method,
            *(f"{pair[0].value:.1%} to {pair[1].value:.1%}" for pair in (d.tuned_labels, d.other_labels)),
            d.verdict.word,
            f"{d.drift.image:.3f}",
            f"{d.drift.text:.3f}",
        ]
        for d in found
    ]
    head = [
        "labels that were not tuned on",
        "tuned labels",
        "other labels",
        "on other labels",
        "drift, images",
        "drift, texts",
    ]
    mixes = [
        [d.method, f"{point.share:.0%}", f"{point.tuned_labels:.1%}", f"{point.other_labels:.1%}"]
        for d in found
        for point in d.curve
    ]
    parts = [table(head, rows), ENGLISH("compare.drift_hint")]
    if mixes:
        parts.append(table(["WiSE-FT", "tuned weights", "tuned labels", "other labels"], mixes))
    return "\n\n".join(parts)
