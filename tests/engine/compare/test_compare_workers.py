"""Runs in other processes give the same table, and a worker that dies takes nothing with it."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from engine import compare
from engine.cli import main
from engine.compare import InProcess, Request, Results
from engine.compare.workers import Pool, SerializedContext, _PoolRun, perform
from engine.tuning.features import Cache, FeatureStore
from engine.types import Label

LABELS = tuple(Label(name, name) for name in ("red", "green", "blue"))
REQUEST = Request(("tip_adapter", "linear_probe"), (1, 2), (0,))


@pytest.fixture
def bench(pocket, task_images):
    return compare.executors.RunContext(task_images, pocket, Cache())


def table(rows):
    """What every executor must agree on."""
    return {(r.key, r.method, r.shots, r.seed): (r.status, r.arrays()["predicted"].tolist()) for r in rows}


def go(executor, pocket, task_images, folder, seen=lambda event: None):
    for event in compare.compare(REQUEST, task_images, LABELS, pocket, Results(folder), executor):
        seen(event)
    return event.comparison.rows


@pytest.fixture(scope="module")
def expected(pocket, task_images, tmp_path_factory):
    return table(go(InProcess(), pocket, task_images, tmp_path_factory.mktemp("here")))


def kill_one(name: str) -> bool:
    """SIGKILL a process that this one started, by a part of its command line."""
    for process in psutil.Process().children(recursive=True):
        try:
            found = any(name in part for part in process.cmdline())
        except psutil.Error:
            continue
        if found:
            process.kill()
            return True
    return False


def test_pool_equals_in_process_though_a_worker_is_killed(pocket, task_images, tmp_path, expected):
    killed = []

    def kill(event):
        if event.kind == "row" and not killed:
            killed.append(kill_one("spawn_main"))

    rows = go(Pool(2), pocket, task_images, tmp_path, kill)
    assert killed == [True]
    assert table(rows) == expected and len(rows) == 6
    assert not [p for p in psutil.Process().children(recursive=True) if any("spawn_main" in c for c in p.cmdline())]


def test_ray_equals_in_process_though_a_worker_is_killed(pocket, task_images, tmp_path, expected):
    pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
    from engine.compare.on_ray import OnRay

    killed = []

    def kill(event):
        if event.kind in ("started", "row") and not any(killed) and event.done:
            killed.append(kill_one("ray::work"))

    rows = go(OnRay(workers=2), pocket, task_images, tmp_path, kill)
    assert any(killed)
    assert table(rows) == expected and len(rows) == 6


def test_without_ray_a_sentence(task_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main.main(["compare", "--task", str(task_folder), "--executor", "ray"]) == 2
    assert "pip install -r requirements-ray.txt" in capsys.readouterr().err


def test_a_parcel_brings_images_and_features(bench, tmp_path):
    parcel = SerializedContext.of(bench, with_files=True)
    opened = parcel.open()
    assert all(a.path != b.path for a, b in zip(opened.images, bench.images, strict=True))
    assert [Path(i.path).read_bytes() for i in opened.images] == [Path(i.path).read_bytes() for i in bench.images]
    store = FeatureStore(opened.backbone, opened.images, opened.cache)
    assert store.cached() == len(bench.images)
    assert torch.equal(store.features(), torch.from_numpy(np.asarray(parcel.features)))


def test_a_worker_with_other_weights_says_so(bench, task_images, pocket):
    job = compare.make_plan(REQUEST, task_images, LABELS, pocket).jobs[0]
    parcel = replace(SerializedContext.of(bench, with_files=False), weight_hash="other")
    note = perform(job, "other", lambda: parcel, None)
    assert note.key == "compare_worker_weights" and dict(note.values)["wanted"] == "other"


@pytest.fixture
def crew(bench, pocket, task_images):
    jobs = [replace(job, memory_bytes=1) for job in compare.make_plan(REQUEST, task_images, LABELS, pocket).jobs]
    return _PoolRun(2, bench, jobs, threading.Event())


def test_jobs_wait_for_memory(crew):
    crew.jobs = iter([replace(job, memory_bytes=400 << 20) for job in crew.jobs])
    crew.room = 2 * (400 << 20) + crew.process  # for one and a half
    (first,) = _start(crew)
    assert not list(_start(crew))
    crew.running.clear()
    (second,) = _start(crew)
    assert first.key != second.key
    crew.running.clear()
    crew.room *= 2
    assert len(list(_start(crew))) == 2


def test_a_job_of_unknown_memory_is_alone(crew):
    crew.jobs = iter([replace(job, memory_bytes=None) for job in crew.jobs])
    (first,) = _start(crew)
    assert not list(_start(crew))
    crew.running.clear()
    (second,) = _start(crew)
    assert first.key != second.key


def _start(crew):
    for job in crew._next_jobs():
        crew.running[Future()] = job
        yield job


def test_the_job_that_kills_its_worker_is_found(crew):
    first, second = _start(crew)
    assert not list(crew._lost())
    assert list(_start(crew)) == [first]  # alone
    (turn,) = crew._lost()
    assert turn.job == first and turn.ended.key == "compare_worker_died"
    assert list(_start(crew)) == [second]
