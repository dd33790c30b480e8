"""Which folders are classes, which a split, and which neither: read from the names of the files alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.data.files import natural

Dirs = tuple[str, ...]

SPLIT = re.compile(
    r"(?:seg[ _-])?(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev)|"
    r"(?P<test>test|testing|eval|evaluation))"
    r"(?:[ _-]?(?:set|data|images|imgs|img|pics|photos))?(?:[ _-]?\d{4})?",
    re.IGNORECASE,
)
"""Names of folders, and of values in a table, that say what trains and what tests."""
_HOLDERS = frozenset(
    {
        "images",
        "image",
        "imgs",
        "img",
        "photos",
        "photo",
        "pics",
        "pictures",
        "picture",
        "jpg",
        "jpeg",
        "jpegs",
        "png",
        "jpegimages",
        "data",
        "dataset",
        "raw",
        "frames",
        "files",
        "original",
        "originals",
        "samples",
        "full",
        "사진",
        "이미지",
    }
)
"""Folders that only hold pictures."""
_UNSORTED = frozenset(
    {
        "unsorted",
        "unlabelled",
        "unlabeled",
        "to label",
        "todo",
        "inbox",
        "pool",
        "미분류",
        "분류 전",
    }
)
_CAMERAS = frozenset(
    {
        "img",
        "image",
        "images",
        "dsc",
        "dscn",
        "dscf",
        "pxl",
        "mvimg",
        "photo",
        "pic",
        "picture",
        "p",
        "frame",
        "scan",
        "screenshot",
        "screen shot",
        "whatsapp image",
        "kakaotalk",
        "kakaotalk photo",
        "vid",
        "file",
        "im",
        "foto",
        "사진",
        "스크린샷",
        "untitled",
        "capture",
        "webcam",
        "download",
        "unnamed",
        "sam",
        "gopr",
        "dji",
        "cimg",
        "sdc",
        "train",
        "test",
        "val",
    }
)
"""Starts of file names that cameras and programs give."""


@dataclass(frozen=True)
class Placed:
    """What a file's place says of it."""

    label: str | None = None
    split: str | None = None
    """``train``, ``val`` or ``test``."""


@dataclass(frozen=True)
class Reading:
    """What the folders of one upload mean."""

    files: tuple[Placed, ...]
    """In the order of the names."""
    odd: frozenset[str] = frozenset()
    """Folders that were taken as no class: those between a class and its files, holders, unsorted ones."""
    outer: frozenset[str] = frozenset()
    """Where both an outer and an inner folder could be the class: the outer ones, which were not taken."""


def split_of(name: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` where a folder's name or a value says so."""
    found = SPLIT.fullmatch(name.strip())
    return found.lastgroup if found else None


def same(name: str) -> str:
    """Return a label's name without what people write differently: capitals, underscores, hyphens, double spaces."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


def read_folders(names: Sequence[str], zipped: bool = False, alone: bool = True) -> Reading:
    """Find each file's label and split.

    Args:
        names: paths of the files inside the folder or zip, with slashes.
        zipped: whether it is a zip, whose only folder holds the whole (made of the folder "photos").
        alone: False where other zips hold other folders: somebody packed each class by itself.
    """
    dirs: list[Dirs] = [tuple(part.strip() for part in name.split("/")[:-1]) for name in names]
    dirs = _without_wrapper(dirs, zipped and alone)
    splits, dirs = _without_splits(dirs)
    tree = _Tree(dirs)
    labels = [tree.label(path) for path in dirs]
    return Reading(tuple(map(Placed, labels, splits)), frozenset(tree.odd), tree.outer(labels))


def _without_wrapper(dirs: list[Dirs], only_one: bool) -> list[Dirs]:
    """Leave out top folders that hold everything else."""
    if len(set(dirs)) == 1:  # all files lie in one folder
        chain = _no_holders(dirs[0])
        if len(chain) == 1 and (only_one or chain != dirs[0]) and not split_of(chain[0]):
            chain = ()
        return [chain if not dirs[0] or not split_of(dirs[0][0]) else dirs[0]] * len(dirs)
    while dirs and all(dirs) and len({path[0] for path in dirs}) == 1 and not split_of(dirs[0][0]):
        dirs = [path[1:] for path in dirs]
    return dirs


def _no_holders(path: Dirs) -> Dirs:
    while path and same(path[-1]) in _HOLDERS:
        path = path[:-1]
    return path


def _without_splits(dirs: list[Dirs]) -> tuple[list[str | None], list[Dirs]]:
    """Take a level of split names out: all of the top folders, or all folders below each class."""
    tops = {path[0] for path in dirs if path}
    if tops and all(split_of(top) for top in tops):
        splits = [split_of(path[0]) if path else None for path in dirs]
        rest = [path[1:] for path in dirs]
        rest = [path[1:] if path and split_of(path[0]) else path for path in rest]  # seg_train/seg_train/CLASS
        return splits, rest
    below = {path[1] for path in dirs if len(path) > 1}
    if below and all(len(path) > 1 for path in dirs) and all(split_of(name) for name in below):
        return [split_of(path[1]) for path in dirs], [(path[0], *path[2:]) for path in dirs]
    return [None] * len(dirs), dirs


class _Tree:
    """Folders below the top, with those that are no classes folded into what is above them."""

    def __init__(self, dirs: Iterable[Dirs]):
        self.direct, self.children = set(dirs), defaultdict(set)
        for path in self.direct:
            for depth in range(1, len(path) + 1):
                self.children[path[: depth - 1]].add(path[:depth])
        self.odd: set[str] = set()
        self.folded: set[Dirs] = set()
        """Folders whose sub-folders are no classes."""
        for path in sorted(self.children, key=len, reverse=True):
            if path and self._folds(path):
                self.folded.add(path)
                self.odd |= {child[-1] for child in self.children[path]}
        self._leave_out_at_the_top()

    def _folds(self, path: Dirs) -> bool:
        """Whether a folder is a class although it has folders of its own."""
        if any(child in self.children and child not in self.folded for child in self.children[path]):
            return False
        if path in self.direct:
            return True
        if all(same(child[-1]) in _HOLDERS for child in self.children[path]):
            return True
        beside = [child[-1] for near in self.children[path[:-1]] for child in self.children.get(near, ())]
        shared = len(set(beside)) < len(beside)
        return all(re.search(r"\d", name) for name in beside) and (shared or len(set(map(_stem, beside))) == 1)

    def _leave_out_at_the_top(self) -> None:
        tops = {path[0] for path in self.children[()]}
        classes = {top for top in tops if same(top) not in _HOLDERS | _UNSORTED}
        self.left_out = tops - classes if len(classes) >= 2 or not classes else tops & _sorted_out(tops)
        if len(tops) > 1 and not classes:
            self.left_out = {top for top in tops if same(top) in _UNSORTED}  # photos/ and pictures/ may be classes
        self.odd |= self.left_out

    def label(self, path: Dirs) -> str | None:
        """Return the class of a folder's files."""
        if not path or (path[0] in self.left_out and (len(path) == 1 or path[:1] in self.folded)):
            return None
        for depth in range(1, len(path) + 1):
            if path[:depth] in self.folded:
                return path[depth - 1] or None
        return path[-1] or None

    def outer(self, labels: Sequence[str | None]) -> frozenset[str]:
        """Return the top folders that are no labels, where the same inner folders lie in several of them."""
        inner: dict[str, set[str]] = defaultdict(set)
        for path in self.direct:
            label = self.label(path)
            if len(path) > 1 and label and label != path[0]:
                inner[label].add(path[0])
        shared = [tops for tops in inner.values() if len(tops) > 1]
        return frozenset().union(*shared) if shared else frozenset()


def _sorted_out(tops: set[str]) -> set[str]:
    return {top for top in tops if same(top) in _UNSORTED}


def _stem(name: str) -> str:
    """A name without numbers: ``session`` of session_0, nothing of 2021-05-01."""
    return re.sub(r"[\d\W_]+", "", name.casefold())


def labels_of_zips(titles: Sequence[str]) -> list[str | None]:
    """Names of zips without folders as labels; none where they are parts of one set (photos-001, photos-002)."""
    if len(titles) < 2 or len({_stem(title) for title in titles}) < len(titles):
        return [None] * len(titles)
    return [title.strip() or None for title in titles]


def labels_in_names(names: Sequence[str]) -> dict[str, str] | None:
    """Label of each file where the names say it (``dress_0.jpg``, ``dress (2).jpg``), else None.

    At least two labels of two files each, for all files, and no name that a camera gives.
    """
    found = {}
    for name in names:
        stem = name.split("/")[-1].rpartition(".")[0]
        match = re.fullmatch(r"(.*?[^\W\d_].*?)[\s_.\-]*[(\[]?\d+[)\]]?", stem)
        label = match[1].strip(" _-.([") if match else ""
        if len(label) < 2 or same(label) in _CAMERAS or re.search(r"\d{3}", label):
            return None
        found[name] = label
    counts = Counter(map(same, found.values()))
    return found if len(counts) >= 2 and min(counts.values()) >= 2 else None


def one_spelling(labels: Iterable[str | None], known: Iterable[str] = ()) -> dict[str, str]:
    """Label -> how it is written from now on, where several differ only in capitals, underscores or hyphens.

    The spelling in ``known`` counts first, then the more frequent one, then the first.
    """
    counts = Counter(label for label in labels if label)
    groups: Mapping[str, dict[str, int]] = defaultdict(dict)
    for label in known:
        groups[same(label)][label] = 1 << 60
    for label, count in counts.items():
        groups[same(label)].setdefault(label, count)
    return {
        label: best
        for spellings in groups.values()
        for best in [max(spellings, key=spellings.__getitem__)]
        for label in spellings
        if label != best and label in counts
    }


def numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are whole numbers, which say nothing to a text tower."""
    found = set(labels)
    return len(found) > 1 and all(label.isdecimal() for label in found)


def in_order(labels: Iterable[str | None]) -> Iterator[str]:
    """Yield each label once, in natural order."""
    yield from sorted({label for label in labels if label}, key=natural)
