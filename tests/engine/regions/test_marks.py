"""Marks: where they stand, what is drawn, and that everyone can read them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from engine.errors import BadConfig
from engine.regions import marks
from engine.regions.marks import PALETTE, Style, draw, place, text_of
from engine.regions.types import Prompt, Region, numbered

SIZE = (200, 150)


def region_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> Region:
    """The pixels of some boxes (left, top, right, bottom)."""
    mask = np.zeros(size[::-1], bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return Region.of(mask, size, 1, 1, Prompt())


def blobs(count: int, size: tuple[int, int] = SIZE) -> tuple[Region, ...]:
    """Overlapping rectangles of all sizes."""
    rng, found = np.random.default_rng(count), []
    for _ in range(count):
        width, height = rng.integers(3, size[0] // 2), rng.integers(3, size[1] // 2)
        left, top = rng.integers(0, size[0] - width), rng.integers(0, size[1] - height)
        found.append(region_of((left, top, left + width, top + height), size=size))
    return numbered(found)


def overlap(first: marks.Box, second: marks.Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


@pytest.mark.parametrize("count", [1, 5, 20, 60])
@pytest.mark.parametrize("size", [SIZE, (100, 75), (1400, 1050)])
def test_labels_never_overlap_and_anchors_lie_in_their_masks(count, size):
    regions = blobs(count)
    placed, unplaced = place(regions, size)
    assert sorted([*(mark.number for mark in placed), *unplaced]) == list(range(1, count + 1))
    assert len(placed) >= min(count, 5)
    for mark in placed:
        left, top, right, bottom = mark.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        x, y = mark.anchor
        assert regions[mark.number - 1].mask_at(size)[y, x]
    assert not [pair for pair in combinations(placed, 2) if overlap(pair[0].box, pair[1].box)]


def test_a_label_without_room_inside_stands_beside_its_region_or_is_left_out():
    big, dots = region_of((0, 0, 200, 150)), [region_of((100 + k, 70, 101 + k, 71)) for k in (0, 2)]
    placed, unplaced = place(numbered([big, *dots]), SIZE)
    assert not unplaced
    for mark, dot in zip(placed[1:], dots, strict=True):
        left, top, right, bottom = mark.box
        x, y = dot.bbox[:2]
        assert mark.anchor == (x, y)
        assert left - 40 <= x <= right + 40
        assert top - 40 <= y <= bottom + 40
    tiny = [Region.of(np.ones((12, 12), bool), (12, 12), 1, 1, Prompt()) for _ in range(3)]
    placed, unplaced = place(numbered(tiny), (12, 12))
    assert ([mark.number for mark in placed], unplaced) == ([1], (2, 3))


def test_a_label_keeps_off_the_smaller_region_inside():
    ring, core = numbered([region_of((20, 20, 180, 140)), region_of((40, 40, 160, 120))])
    (outer, inner), _ = place([ring, core], SIZE)
    assert core.mask[inner.anchor[1], inner.anchor[0]]
    assert not core.mask[outer.anchor[1], outer.anchor[0]]


def test_letters_go_on_after_z():
    assert [text_of(n, "letters") for n in (1, 26, 27, 28, 52, 53, 702, 703)] == [
        "A",
        "Z",
        "AA",
        "AB",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]
    assert text_of(12) == "12"


def test_ink_is_readable_on_every_colour():
    assert marks.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert marks.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # WCAG's well-known grey
    for colour in PALETTE:
        assert marks.contrast(colour, marks.ink_on(colour)) >= 4.5
    assert marks.ink_on((0, 114, 178)) == (255, 255, 255)
    assert marks.ink_on((240, 228, 66)) == (0, 0, 0)


def test_each_layer_draws_what_it_says():
    image = Image.new("RGB", SIZE, (100, 100, 100))
    (region,) = numbered([region_of((50, 40, 150, 110))])
    nothing = {"mask": False, "contour": False, "box": False, "number": False}
    plain = np.asarray(image)
    assert np.array_equal(draw(image, [region], Style(**nothing)).image, plain)
    masked = np.asarray(draw(image, [region], Style(alpha=1, **nothing | {"mask": True})).image)
    assert (masked[region.mask] == PALETTE[0]).all()
    assert (masked[~region.mask] == 100).all()
    half = np.asarray(draw(image, [region], Style(alpha=0.5, **nothing | {"mask": True})).image)
    assert np.abs(half[75, 100].astype(int) - (np.array(PALETTE[0]) + 100) / 2).max() <= 1
    assert np.array_equal(draw(image, [region], Style(alpha=0, **nothing | {"mask": True})).image, plain)
    for layer in ("contour", "box"):
        changed = (np.asarray(draw(image, [region], Style(**nothing | {layer: True})).image) != plain).any(-1)
        assert changed.any()
        rows, columns = np.nonzero(changed)
        assert np.all(
            (np.abs(columns - 50) <= 4)
            | (np.abs(columns - 150) <= 4)
            | (np.abs(rows - 40) <= 4)
            | (np.abs(rows - 110) <= 4)
        )
    overlay = draw(image, [region], Style(**nothing | {"number": True}))
    left, top, right, bottom = overlay.marks[0].box
    changed = (np.asarray(overlay.image) != plain).any(-1)
    assert changed[top:bottom, left:right].any()
    changed[top:bottom, left:right] = False
    assert not changed.any()


def test_small_masks_lie_on_large_ones_and_a_highlight_stands_out():
    image = Image.new("RGB", SIZE)
    outer, inner = numbered([region_of((10, 10, 190, 140)), region_of((60, 50, 140, 100))])
    style = Style(alpha=1, contour=False, number=False)
    drawn = draw(image, [inner, outer], style).image
    assert drawn.getpixel((100, 75)) == PALETTE[1]
    assert drawn.getpixel((20, 75)) == PALETTE[0]
    lit = draw(image, [inner, outer], style, highlight=2).image
    assert lit.getpixel((100, 75)) == PALETTE[1]
    assert sum(lit.getpixel((20, 75))) < sum(PALETTE[0]) / 2
    assert (255, 255, 255) in {lit.getpixel((60 + k, 75)) for k in range(-3, 4)}
    assert image.getpixel((100, 75)) == (0, 0, 0)


def test_marks_have_the_size_of_the_picture_they_are_drawn_on():
    regions = blobs(4)
    for size in ((100, 75), (400, 300)):
        assert draw(Image.new("RGB", size), regions).image.size == size
    assert marks.label_size("8", (2000, 1000))[1] > marks.label_size("8", (400, 200))[1]
    assert marks.label_size("88", SIZE)[0] >= marks.label_size("8", SIZE)[0]


@pytest.mark.parametrize(
    ("settings", "word"), [({"marks": "runes"}, "runes"), ({"alpha": 1.5}, "1.5"), ({"alpha": float("nan")}, "nan")]
)
def test_a_style_checks_itself(settings, word):
    with pytest.raises(BadConfig, match=word):
        Style(**settings)
