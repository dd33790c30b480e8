"""A drawing of where a method trains in the two towers, as inline SVG. Pure functions without gradio.

Everything comes from the backbone's shape and from what :mod:`engine.costs.placement` found. Grey is frozen, blue is
trained, hatched is computed once and kept. Colours are the page's variables, so the drawing follows the theme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING

from engine.backbones.base import FEATURES, LINEAR_KINDS, PIXELS, POOLED
from engine.costs.placement import ATTENTION, HEAD, IMAGE, LOGITS, MLP, NORM, TOKENS, Location, ParameterPlacement

if TYPE_CHECKING:
    from engine.backbones.base import Backbone, Shape
    from engine.costs.placement import TowerDiagram

Translate = Callable[..., str]

WIDTH, COLUMN, GAP = 400, 194, 12
"""Units of the picture, of a tower, and between towers. On a phone a unit is about 0.9 pixels."""
BOX, CELL = 24, 10
CELLS_AT, FIRST_ROW = 37, 98
"""Where a block's cells begin, and where the first block does."""
CELLS = (*LINEAR_KINDS, NORM)
LETTERS = ("q", "k", "v", "o", "1", "2", "n")
GROUPS = {ATTENTION: LINEAR_KINDS[:4], MLP: LINEAR_KINDS[4:], "": CELLS}
"""Cells that a part which is no cell itself stands for."""


def drawing(found: TowerDiagram, backbone: Backbone, labels: int, t: Translate, title: str) -> str:
    """Return the picture.

    Args:
        found: what is trained where.
        labels: K, number of labels.
        title: name of the method.
    """
    shape = backbone.shape
    rows = max(shape.vision_layers, shape.text_layers, 1)
    row = 20 if rows <= 8 else 17 if rows <= 14 else 14
    below = FIRST_ROW + rows * row + 8
    parts = [
        *_tower(found, backbone, "vision", 0, row, below, t),
        *_tower(found, backbone, "text", COLUMN + GAP, row, below, t),
    ]
    y = below + 2 * (BOX + 6)
    features = (
        ("vision", 0, t("learn.image_features", size=shape.embedding), found.at(HEAD, 0).get(IMAGE, 0)),
        ("text", COLUMN + GAP, t("learn.label_features", labels=labels, size=shape.embedding), 0),
    )
    for tower, x, words, count in features:
        kept = (tower, FEATURES) not in found.runs and not count
        parts += [_arrow(x + COLUMN / 2, y - 6, y), *_box(x, y, COLUMN, words, count, kept)]
        parts.append(_arrow(x + COLUMN / 2, y + BOX, y + BOX + 6))
    y += BOX + 6
    head = found.at(HEAD, 0).get(LOGITS, 0)
    parts += _box(0, y, WIDTH, t("learn.logits", labels=labels), head, False)
    y += BOX + 8
    for place in found.shared:
        where = describe_spots(place.locations, t)
        parts += _box(0, y, WIDTH, f"{t('learn.shared')} · {where}", place.count, False)
        y += BOX + 6
    desc = "; ".join(f"{where}: {count:,}" for where, count in summary(found, t)) or t("learn.nothing_trained")
    return (
        f'<svg class="ctl-anatomy" viewBox="-2 0 {WIDTH + 4} {y}" role="img" '
        f'aria-labelledby="anatomy-title anatomy-desc"><title id="anatomy-title">{escape(title)}</title>'
        f'<desc id="anatomy-desc">{escape(desc)}</desc>{PATTERN}{"".join(parts)}</svg>'
    )


PATTERN = (
    '<defs><pattern id="anatomy-kept" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="ctl-a-paper" width="6" height="6"/><line class="ctl-a-hatch" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    "</defs>"
)


def _tower(
    found: TowerDiagram, backbone: Backbone, tower: str, x: int, row: int, below: int, t: Translate
) -> Iterator[str]:
    """One tower from its input to its projection.

    Args:
        row: height of a block.
        below: where the parts after the blocks begin, the same in both towers.
    """
    shape = backbone.shape
    layers, width = getattr(shape, f"{tower}_layers"), getattr(shape, f"{tower}_width")
    yield f'<text class="ctl-a-title" x="{x}" y="13">{escape(t(f"learn.{tower}"))}</text>'
    yield _text(x, 28, t("learn.tower_size", layers=layers, width=width) if layers else t("learn.whole"), "muted")
    yield _text(x, 44, _input(backbone, tower, t))
    yield from _box(
        x, 51, COLUMN, t("learn.embedding"), sum(found.at(tower, PIXELS).values()), (tower, PIXELS) not in found.runs
    )
    for letter, cell in zip(LETTERS, CELLS, strict=True) if layers else ():
        yield f'<text class="ctl-a-letter" x="{_cell_x(x, cell) + CELL / 2 - 0.5}" y="{FIRST_ROW - 6}">{letter}</text>'
    for k in range(layers):
        yield from _block(found, shape, tower, k, x, FIRST_ROW + k * row, row - 3, t)
    ends = FIRST_ROW + layers * row - 3 if layers else 51 + BOX
    later = ((below, POOLED, t("learn.pooling")), (below + BOX + 6, FEATURES, _projection(shape, tower, t)))
    for y, step, words in later:
        yield _arrow(x + COLUMN / 2, ends, y)
        yield from _box(x, y, COLUMN, words, sum(found.at(tower, step).values()), (tower, step) not in found.runs)
        ends = y + BOX


def _input(backbone: Backbone, tower: str, t: Translate) -> str:
    """What enters a tower."""
    shape = backbone.shape
    if tower == "text":
        return t("learn.text_input", tokens=shape.context)
    prefix = backbone.vision.prefix
    key = "learn.image_input" if backbone.vision.has_tokens else "learn.map_input"
    return t(key, side=shape.image_size, tokens=shape.vision_tokens - prefix, extra=f" + {prefix}" if prefix else "")


def _projection(shape: Shape, tower: str, t: Translate) -> str:
    wide = shape.vision_pooled or shape.vision_width if tower == "vision" else shape.text_width
    return t("learn.projection", width=wide or "?", size=shape.embedding)


def _cell_x(x: int, cell: str) -> int:
    """Left edge of a block's cell; attention, MLP and norms stand a little apart."""
    n = CELLS.index(cell)
    return x + CELLS_AT + n * CELL + (3 if n > 3 else 0) + (3 if n > 5 else 0)


def _block(
    found: TowerDiagram, shape: Shape, tower: str, k: int, x: int, y: int, high: int, t: Translate
) -> Iterator[str]:
    """One block: its number, tokens that join before it, its layers and what is trained in it."""
    own, sizes = found.at(tower, k), layer_sizes(shape, tower, k)
    together = [
        location.part
        for place in found.shared
        for location in place.locations
        if (location.tower, location.step) == (tower, k)
    ]
    kept = (tower, k) not in found.runs
    yield f'<rect class="ctl-a-{"kept" if kept else "run"}" x="{x}" y="{y}" width="{COLUMN}" height="{high}" rx="4"/>'
    yield _text(x + 4, y + high / 2 + 4, str(k + 1))
    if TOKENS in own or TOKENS in together:
        for n in range(3):
            yield f'<circle class="ctl-a-trained" cx="{x + 19.5 + 5.5 * n}" cy="{y + high / 2}" r="2.4"/>'
    marked = {cell: False for part in (*own, *together) for cell in GROUPS.get(part, (part,)) if part != TOKENS}
    marked |= {cell: own[cell] >= 0.9 * sizes[cell] for cell in own if cell in sizes}
    for cell in CELLS:
        if cell in sizes:
            yield from _cell(_cell_x(x, cell), y + 2, high - 4, marked.get(cell))
    count = f"{sum(own.values()):,}" if own else t("learn.together") if together else ""
    if count:
        yield f'<text class="ctl-a-count" x="{x + COLUMN - 4}" y="{y + high / 2 + 4}">{escape(count)}</text>'


def _cell(x: int, y: float, high: float, whole: bool | None) -> Iterator[str]:
    """A layer of a block: None where it is frozen, else whether all of it is trained or a small part."""
    yield f'<rect class="ctl-a-frozen" x="{x}" y="{y}" width="{CELL - 1}" height="{high}" rx="1.5"/>'
    if whole is not None:
        share = high if whole else max(4.0, high * 0.4)
        yield (
            f'<rect class="ctl-a-trained" x="{x}" y="{y + high - share}" width="{CELL - 1}" height="{share}" rx="1.5"/>'
        )


def layer_sizes(shape: Shape, tower: str, k: int) -> dict[str, int]:
    """Cell -> parameters of a block's linear layers and norms."""
    width = getattr(shape, f"{tower}_width")
    if tower == "vision" and shape.vision_linears is not None:
        found: dict[str, int] = {}
        for kind, i, o in shape.vision_linears[k]:
            found[kind] = found.get(kind, 0) + i * o
    else:
        found = {
            kind: shape.linears(tower, [kind], k)[0][0] * shape.linears(tower, [kind], k)[0][1] for kind in LINEAR_KINDS
        }
    return {**found, NORM: 4 * width}


def _box(x: int, y: float, wide: int, text: str, count: int, kept: bool) -> Iterator[str]:
    """A part that is drawn as a whole, with its trained parameters."""
    yield f'<rect class="ctl-a-{"kept" if kept else "run"}" x="{x}" y="{y}" width="{wide}" height="{BOX}" rx="5"/>'
    if count:
        yield f'<rect class="ctl-a-frame" x="{x}" y="{y}" width="{wide}" height="{BOX}" rx="5"/>'
        yield f'<rect class="ctl-a-trained" x="{x}" y="{y}" width="6" height="{BOX}" rx="3"/>'
        yield f'<text class="ctl-a-count" x="{x + wide - 6}" y="{y + BOX / 2 + 4}">{count:,}</text>'
    yield _text(x + 11, y + BOX / 2 + 4, text)


def _text(x: float, y: float, text: str, kind: str = "text") -> str:
    return f'<text class="ctl-a-{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _arrow(x: float, start: float, stop: float) -> str:
    """A line down to the next part."""
    return f'<path class="ctl-a-arrow" d="M{x} {start}V{stop}"/>'


# ---- the same in words --------------------------------------------------------------------------


def summary(found: TowerDiagram, t: Translate) -> list[tuple[str, int]]:
    """Return (where, trained parameters), blocks of a tower together; the counts sum to the method's."""
    blocks: dict[tuple[str, str], list[ParameterPlacement]] = {}
    rest: list[tuple[str, int]] = []
    for place in sorted(found.places, key=lambda place: place.locations[0].tower != "vision"):
        location = place.locations[0]
        if len(place.locations) == 1 and location.tower and 0 <= location.step < POOLED:
            blocks.setdefault((location.tower, location.part), []).append(place)
        else:
            rest.append((describe_spots(place.locations, t), place.count))
    rows = [
        (describe_spots(tuple(place.locations[0] for place in places), t), sum(place.count for place in places))
        for places in blocks.values()
    ]
    return rows + rest


def describe_spots(locations: tuple[Location, ...], t: Translate) -> str:
    """``image tower, blocks 1 to 12, q``."""
    phrases = []
    for tower in dict.fromkeys(location.tower for location in locations):
        own = [location for location in locations if location.tower == tower]
        parts = " ".join(dict.fromkeys(t(f"learn.part.{location.part}") for location in own if location.part))
        if tower == HEAD:
            phrases.append(parts)
            continue
        where = {PIXELS: t("learn.embedding"), POOLED: t("learn.pooling"), FEATURES: t("learn.projection_short")}
        numbers = sorted({location.step for location in own})
        if numbers[0] in where:
            steps = where[numbers[0]]
        elif len(numbers) == 1:
            steps = t("learn.block", number=numbers[0] + 1)
        else:
            steps = t("learn.blocks", first=numbers[0] + 1, last=numbers[-1] + 1)
        phrases.append(", ".join(filter(None, (t(f"learn.{tower}"), steps, parts))))
    return " + ".join(phrases)
