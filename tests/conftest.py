"""Shared small things: a tiny random backbone, coloured images, a task folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CTL_CACHE", os.path.join(tempfile.gettempdir(), "clip-tuning-lab-tests"))
os.environ["CTL_CACHE"] += os.environ.get("PYTEST_XDIST_WORKER", "")  # workers have one each

from pathlib import Path

import pytest
from torch import Tensor

from engine.backbones import catalog, hf_clip
from engine.backbones.base import Backbone
from engine.data import uploads
from engine.data.images import ImageFile
from engine.errors import MESSAGES
from engine.methods.linear_probe import LinearProbe
from engine.tuning import registry
from engine.tuning.registry import MethodSpec
from tests import families
from tests.tiny import COLOURS, make_tiny, picture


@pytest.fixture(scope="session")
def tiny() -> hf_clip.HFClip:
    """The tiny backbone; no test may change it."""
    return make_tiny()


@pytest.fixture(scope="session", params=families.KINDS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny backbone of every family but the first (:func:`tiny`); no test may change it."""
    return families.make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def pocket() -> hf_clip.HFClip:
    """The bundled backbone."""
    return catalog.load("pocket", "cpu")


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each of three colours, in one folder a colour."""
    root = tmp_path_factory.mktemp("task")
    for k, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir()
        for i in range(12):
            picture(colour, 100 * k + i).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def task_images(task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageFile, ...]:
    """The task's images, read by the ordinary way in."""
    return uploads.collect([task_folder], tmp_path_factory.mktemp("work")).images


class ValueReader(LinearProbe):
    """A linear probe that reads the value of a tensor in every step, as tensors without values do not allow."""

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        logits = super().head(image, text)
        return logits / 2 if logits.norm() > 1e6 else logits


@pytest.fixture
def value_reader() -> Iterator[MethodSpec]:
    """A method whose step reads a value, known for the length of a test."""
    spec = replace(registry.get("linear_probe"), id="value_reader", name="Value reader", tuner=lambda: ValueReader)
    yield registry.register(spec)
    del registry._METHODS[spec.id], MESSAGES[spec.title.key]
