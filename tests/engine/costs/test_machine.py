"""Costs as they are measured, and the machine's speed."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from engine.costs import machine, meters
from engine.costs.op_counter import OpCost


def test_meter_sees_memory_that_is_given_back():
    with meters.MemoryMeter("cpu") as meter:
        start = meter.peak
        block = np.ones(40_000_000, np.float64)  # 320 MB
        import time

        time.sleep(0.1)
        del block
    assert meter.kind == "process"
    assert meter.peak - start > 250_000_000


def test_stopwatch_adds_parts():
    watch = meters.Stopwatch()
    for _ in range(2):
        with watch.part("train"):
            pass
    assert set(watch.seconds) == {"features", "train", "evaluate"}
    assert watch.seconds["train"] > 0
    with pytest.raises(ValueError, match="x"), watch.part("train"):
        raise ValueError("x")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty cache folder, and no speed in this process's memory."""
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    machine.kept_speed.cache_clear()
    yield tmp_path / "cache" / "speed.json"
    machine.kept_speed.cache_clear()


def test_speed_is_measured_once_and_kept(fresh_cache, monkeypatch):
    first = machine.speed("cpu")
    assert 1e8 < first.flops < 1e14
    assert 1e7 < first.written < 1e13
    assert 0.01 < first.half < 100
    assert 1e-8 < first.operation < 1e-2
    assert 0 <= first.step < 0.1
    assert 1e-5 < first.image < 1
    kept = json.loads(fresh_cache.read_text())
    assert list(kept) == [machine.machine("cpu")]
    assert torch.__version__ in machine.machine("cpu")
    machine.kept_speed.cache_clear()
    monkeypatch.setattr(machine, "measure", lambda device: pytest.fail("measured again"))
    assert machine.speed("cpu") == first


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"KEY": {"flops": 1}}', '{"KEY": 3}'])
def test_a_damaged_speed_file_is_measured_again(fresh_cache, monkeypatch, damaged):
    speed = machine.Speed(1e9, 2, 1e9, 1e-6, 1e-4, 1e-3)
    monkeypatch.setattr(machine, "measure", lambda device: speed)
    fresh_cache.parent.mkdir()
    fresh_cache.write_text(damaged.replace("KEY", machine.machine("cpu")))
    assert machine.speed("cpu") == speed
    assert json.loads(fresh_cache.read_text())[machine.machine("cpu")]["flops"] == 1e9


def test_who_asks_while_it_is_measured_waits(fresh_cache, monkeypatch):
    speed, asked = machine.Speed(1e9, 2, 1e9, 1e-6, 1e-4, 1e-3), []
    both = threading.Barrier(2)

    def measure(device):
        asked.append(device)
        both.wait(20)
        return speed

    monkeypatch.setattr(machine, "measure", measure)
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(machine.speed, "cpu") for _ in range(3)]
        both.wait(20)
        assert [one.result(20) for one in found] == [speed] * 3
    assert asked == ["cpu"]


def test_a_cache_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "file"))
    speed = machine.Speed(1e9, 4, 2e9, 1e-6, 1e-4, 1e-3)
    monkeypatch.setattr(machine, "measure", lambda device: speed)
    machine.kept_speed.cache_clear()
    assert machine.speed("cpu") == speed
    machine.kept_speed.cache_clear()
    work = OpCost(flops=1e9, written=2e9, operations=1_000_000)
    assert speed.seconds(work) == pytest.approx(3)
    assert speed.seconds(work, "bf16") == pytest.approx(2.25)
