"""The command ``continual``: labels that arrive step by step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import BadConfig, messages
from engine.outputs import checked_folder

if TYPE_CHECKING:
    from engine.continual.results import Standing, StrategyResult

messages(
    continual_setting="--set {text!r} is not of the form strategy.name=value, such as l2p.epochs=10.",
    continual_orders="--orders must be at least 1, not {orders}.",
    continual_state_orders="A state goes on in one order of the labels: leave --orders out where there is --state.",
)
GOES_ON = "1"
"""Steps of the labels that are new to a saved state, unless told otherwise."""
DEFAULT = "zero_shot,prototypes,gaussian,ranpac,rail"


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the command's options; those that describe the task are there already."""
    sub.add_argument("--steps", help="a number, or labels by hand: 'a,b;c,d' (default: 5; 1 where a state goes on)")
    sub.add_argument("--strategies", default=DEFAULT, help=f"by comma, or all (default: {DEFAULT})")
    sub.add_argument("--shots", type=int, default=8, help="most training images a label (default: 8)")
    sub.add_argument("--tests", type=int, default=0, help="most test images a label (default: all)")
    sub.add_argument("--orders", type=int, default=1, help="orders of the labels; the first is as given (default: 1)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--state", type=checked_folder, help="folder to go on from, and to write to after each step")
    sub.add_argument("--set", action="append", default=[], metavar="STRATEGY.NAME=VALUE", help="a setting; repeatable")


def settings_of(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """``--set`` by strategy. Raises BadConfig."""
    found: dict[str, dict[str, str]] = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        strategy, dot, field = name.strip().partition(".")
        if not equals or not dot:
            raise BadConfig("continual_setting", text=text)
        found.setdefault(strategy, {})[field] = value.strip()
    return found


def names_of(text: str) -> list[str]:
    """Return the strategies of an option. Raises BadConfig for an unknown one."""
    from engine.continual import strategy

    if text.strip() == "all":
        return [spec.id for spec in strategy.strategies()]
    return [strategy.get(name.strip()).id for name in text.split(",") if name.strip()]


def run(options: argparse.Namespace) -> tuple[Any, str]:
    """Learn a task's labels step by step with each strategy, over several orders."""
    from engine.cli.common import read_task
    from engine.continual.advice import advise
    from engine.continual.results import standings

    names, settings = names_of(options.strategies), settings_of(options)
    if options.orders < 1:
        raise BadConfig("continual_orders", orders=options.orders)
    if options.state and options.orders > 1:
        raise BadConfig("continual_state_orders")
    task, backbone = read_task(options, 1)
    results = list(all_orders(options, task, backbone, names, settings))
    ranked = standings(results)
    found = {
        "backbone": backbone.id,
        "task": task.name,
        "shots": options.shots,
        "seed": options.seed,
        "orders": options.orders,
        "results": [result.to_json() for result in results],
        "standings": [standing_json(standing) for standing in ranked],
    }
    said = [str(note) for note in advise(results)]
    found["advice"] = said
    first = [part for r in results if r.order == 0 for part in (matrix_table(r), selection_lines(r)) if part]
    return found, "\n\n".join([standings_table(ranked), "\n".join(said), *first])


def all_orders(
    options: argparse.Namespace, task: Any, backbone: Any, names: list[str], settings: dict[str, dict[str, str]]
) -> Iterator[StrategyResult]:
    """Yield the result of each strategy on each order of the labels."""
    from engine.continual.tasks import build_stream

    labels = [label.name for label in task.labels]
    for order in range(options.orders):
        seed = options.seed + order
        for name in names:
            if options.state and (options.state / name).is_dir():
                yield goes_on(name, options, task, backbone)
                continue
            stream = build_stream(
                task.labels,
                [image.label for image in task.images],
                groups_of(options, labels, order, "5"),
                options.shots,
                seed,
                options.tests,
            )
            yield one(name, stream, task.images, backbone, settings.get(name), options, order)


def groups_of(options: argparse.Namespace, labels: Sequence[str], order: int, usual: str) -> list[tuple[str, ...]]:
    """Return the labels of each step, in an order."""
    from engine.continual import tasks

    text = (options.steps or usual).strip()
    if text.lstrip("-").isdigit():
        return tasks.split_labels(tasks.shuffled(labels, order), int(text), usual == GOES_ON)
    by_hand = tasks.parse_steps(text)
    tasks.check_steps(by_hand, labels)
    return [by_hand[int(k)] for k in tasks.shuffled([str(k) for k in range(len(by_hand))], order)]


def goes_on(name: str, options: argparse.Namespace, task: Any, backbone: Any) -> StrategyResult:
    """Learn the labels that a saved state does not know yet."""
    from engine.continual import state
    from engine.errors import BadLabels, sentence

    before = state.load(options.state / name, backbone)
    labels, known = [label.name for label in task.labels], {label.name for label in before.labels}
    if not options.steps or options.steps.strip().isdigit():  # steps by hand may name no label that is known
        skipped = [label for label in labels if label in known]
        if len(skipped) == len(labels):
            raise BadLabels("state_all_known", labels=skipped)
        if skipped:
            print(sentence("state_skipped", {"labels": skipped}), file=sys.stderr)
        labels = [label for label in labels if label not in known]
    groups = groups_of(options, labels, 0, GOES_ON)
    stream, images = before.continued(task.labels, task.images, groups, options.shots, options.tests)
    return one(name, stream, images, backbone, before.config, options, 0, before)


def one(
    name: str,
    stream: Any,
    images: Any,
    backbone: Any,
    settings: Any,
    options: argparse.Namespace,
    order: int,
    before: Any = None,
) -> StrategyResult:
    """Run one strategy with a line on stderr where someone reads it; its state is written after each step."""
    from engine.continual.run import StreamRun
    from engine.types import Progress

    run = StreamRun(
        name,
        stream,
        images,
        backbone,
        settings,
        before.seed if before else options.seed + order,
        order,
        before.template_set if before else options.templates,
        before=before,
    )
    result = None
    for item in run.run():
        if isinstance(item, Progress):
            if sys.stderr.isatty():
                line = f"{name}, order {order + 1}: {item.stage} {item.done}/{item.total}"
                print(f"\r{line}\033[K", end="", file=sys.stderr)
            continue
        result = item
        if options.state:
            run.save(options.state / name)
    assert result is not None
    return result


def standing_json(standing: Standing) -> dict[str, Any]:
    """Return plain data; what does not exist is null."""

    def number(value: float) -> float | None:
        return None if value != value else value

    return {
        "strategy": standing.strategy,
        "seconds": standing.seconds,
        "kept_bytes": standing.kept_bytes,
        "trained_parameters": standing.trained_parameters,
        "keeps": standing.keeps,
        "measures": {
            name: {"mean": number(i.value), "interval95": [number(i.low), number(i.high)]}
            for name, i in standing.measures.items()
        },
    }


def cell(interval: Any, points: bool = False) -> str:
    """Return a measure with its interval, in percent or signed points; a dash where there is none."""
    if interval.value != interval.value:
        return "-"
    sign = "+" if points else ""
    text = f"{100 * interval.value:{sign}.1f}"
    return text if interval.low != interval.low else f"{text} ± {100 * (interval.high - interval.value):.1f}"


def standings_table(ranked: list[Standing]) -> str:
    """Return a line a strategy."""
    from engine.cli.common import table
    from engine.units import bytes_text

    head = [
        "strategy",
        "accuracy %",
        "forgotten",
        "backward",
        "forward",
        "never tuned %",
        "all labels %",
        "trained",
        "kept",
        "of old images",
        "seconds",
    ]
    rows = []
    for s in ranked:
        m = s.measures
        rows.append(
            [
                s.strategy,
                cell(m["accuracy"]),
                cell(m["forgetting"]),
                cell(m["backward"], True),
                cell(m["forward"], True),
                cell(m["never_tuned"]),
                cell(m["open"]),
                f"{s.trained_parameters:,}",
                bytes_text(s.kept_bytes),
                s.keeps,
                f"{s.seconds:.2f}",
            ]
        )
    return table(head, rows)


def matrix_table(result: StrategyResult) -> str:
    """Return an accuracy matrix for people."""
    from engine.cli.common import table

    columns = [", ".join(names)[:18] for names in result.step_labels][: result.matrix.shape[1]]
    rows = [
        [f"after step {i + 1}", *("-" if v != v else f"{100 * v:.0f}" for v in row)]
        for i, row in enumerate(result.matrix)
    ]
    return table([result.strategy, *columns], rows)


def selection_lines(result: StrategyResult) -> str:
    """Return whether the choice of prompts depends on the label, and which prompts others choose."""
    found = result.selection
    if found is None:
        return ""
    word = "depends" if found.p_value < 0.05 else "does not depend"
    lines = [f"the choice of prompts {word} on the label (p = {found.p_value:.3f}, Cramér's V {found.cramers_v:.2f})"]
    for m, own, most, share, top in found.own_choice(result.labels):
        if own != most:
            lines.append(f"prompt {m + 1} began as {own} ({share:.0%} choose it); most chosen by {most} ({top:.0%})")
    return "\n".join(lines)
