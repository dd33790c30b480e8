"""The device thread: one run at a time, stopped at once, memory back."""

from __future__ import annotations

import shutil
import threading
import time
from functools import partial

import psutil
import pytest

from demo import tasks
from demo.job_queue import Device, Job
from demo.screens.tune import service as tuning
from demo.workspace import Workspaces
from engine.types import Progress


def finish(job):
    return [(kind, item) for kind, item in job.listen(0.02) if kind not in ("idle", "waiting")]


def test_jobs_wait_for_each_other():
    device, gate, order = Device(), threading.Event(), []

    def slow():
        yield 1
        gate.wait(5)
        order.append("slow")

    def quick():
        order.append("quick")
        yield 2

    first, second = device.submit(slow, threading.Event()), device.submit(quick, threading.Event())
    kinds = [kind for kind, _ in zip((k for k, _ in second.listen(0.02)), range(3), strict=False)]
    assert set(kinds) == {"waiting"}
    gate.set()
    assert finish(first)[-1][0] == "done" and finish(second) == [("item", 2), ("done", None)]
    assert order == ["slow", "quick"]


def test_short_work_comes_before_long_and_long_work_is_not_starved(monkeypatch):
    device, gate, order, now = Device(), threading.Event(), [], [100.0]

    def work(name):
        def do():
            if name == "first":
                gate.wait(5)
            order.append(name)
            return iter(())

        return do

    running = device.submit(work("first"), threading.Event(), 30)
    assert running.started.wait(5)
    monkeypatch.setattr("demo.job_queue.time.monotonic", lambda: now[0])
    long = device.submit(work("long"), threading.Event(), 300)  # due at 400
    head = device.submit(work("head"), threading.Event(), 1)  # due at 101
    stopped = threading.Event()
    gone = device.submit(work("gone"), stopped, 0)
    stopped.set()
    now[0] = 350.0
    late = device.submit(work("late"), threading.Event(), 60)  # due at 410: after the long one, which waits since 100
    assert device.place(head)[0] == 1 and device.place(long)[0] == 2 and device.place(late)[0] == 3
    assert device.place(late)[1] >= 301
    gate.set()
    monkeypatch.undo()
    assert all(job.finished.wait(5) for job in (long, head, late, gone))
    assert order == ["first", "head", "long", "late"]


def test_stop_frees_the_listener_before_the_step_ends():
    device, stop, gate = Device(), threading.Event(), threading.Event()

    def work():
        yield 1
        gate.wait(10)
        yield 2

    job = device.submit(work, stop)
    listening = job.listen(0.02)
    assert next(listening)[0] in ("item", "waiting")
    stop.set()
    started = time.perf_counter()
    assert [kind for kind, _ in listening][-1] == "stopped"
    assert time.perf_counter() - started < 1
    gate.set()
    assert job.finished.wait(5)
    other = device.submit(lambda: iter([3]), threading.Event())
    assert finish(other) == [("item", 3), ("done", None)]


def test_an_error_reaches_the_listener_and_the_thread_lives_on():
    device = Device()

    def bad():
        yield 1
        raise ValueError("no")

    kind, error = finish(device.submit(bad, threading.Event()))[-1]
    assert kind == "error" and isinstance(error, ValueError)
    assert finish(device.submit(lambda: iter([1]), threading.Event()))[-1][0] == "done"


def test_a_job_of_its_own_need_not_wait_for_the_device():
    gate, told = threading.Event(), []

    def work():
        for done in range(100):
            job.report(done)  # as a callback does
        gate.wait(5)
        yield "end"

    job = Job(work)
    assert job.latest is None
    job.start("test")
    for latest in job.watch(0.01):
        told.append(latest)
        gate.set()
    assert told[0] == 99 and job.latest == "end" and job.finished.wait(5)


def test_watching_raises_what_went_wrong_and_ends_with_a_stop():
    def bad():
        raise ValueError("no")

    wrong, endless = Job(bad), Job(lambda: iter(int, 1))
    wrong.start("test")
    with pytest.raises(ValueError, match="no"):
        list(wrong.watch(0.01))
    endless.start("test")
    for _ in endless.watch(0.01):
        endless.stop.set()
    assert endless.finished.wait(5)


@pytest.mark.timeout(600)
def test_ten_stopped_runs_of_full_give_their_memory_back(tmp_path, task_folder):
    workspace = Workspaces(tmp_path / "root").open()
    tasks.add_files(workspace, [shutil.make_archive(str(tmp_path / "task"), "zip", task_folder)])
    workspace.method, workspace.shots, workspace.settings = "full", 8, {"epochs": 2000, "batch_size": 16}
    device, process, waits = Device(), psutil.Process(), []

    def round_trip():
        stop = threading.Event()
        job = device.submit(partial(tuning.tune, workspace, stop), stop)
        steps = 0
        for kind, item in job.listen():
            steps += kind == "item" and isinstance(item, Progress) and item.stage == "train"
            if steps == 3:
                started = time.perf_counter()
                stop.set()
        waits.append(time.perf_counter() - started)
        assert kind == "stopped" and job.finished.wait(60)
        time.sleep(0.1)
        return process.memory_info().rss

    round_trip()
    round_trip()  # the first rounds load libraries and fill thread pools
    before = process.memory_info().rss
    for _ in range(10):
        after = round_trip()
    print(f"grown by {(after - before) / 2**20:.1f} MB, stopped after at most {max(waits):.2f} s")
    assert max(waits) < 2
    assert after - before < 60 * 2**20
    assert workspace.shown is None and workspace.runs == []
