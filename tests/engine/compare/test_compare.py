"""Many runs on one task: the plan, what is kept, what happens when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import compare
from engine.cli import main
from engine.compare import Request, Results
from engine.compare.plan import cheapest_first, forecasts, not_quick
from engine.compare.runs import Clock
from engine.errors import BadConfig, BadLabels
from engine.runs.run import Run
from engine.tuning import registry
from engine.tuning.features import Cache
from engine.tuning.outcome import Outcome
from engine.types import Label

ROOT = Path(__file__).resolve().parents[3]
LABELS = tuple(Label(name, name) for name in ("red", "green", "blue"))
REQUEST = Request(("tip_adapter", "linear_probe"), (1, 4), (0, 1))


@pytest.fixture
def go(tiny, task_images, tmp_path):
    """Runs a comparison on the tiny backbone and returns all its events."""

    def run(request: Request = REQUEST, **options):
        options.setdefault("results", Results(tmp_path / "results"))
        return list(compare.compare(request, task_images, LABELS, tiny, **options))

    return run


def rows_of(events):
    return events[-1].comparison.rows


def same(row):
    """What two runs of the same thing have in common."""
    result = row.result.to_json()
    for changing in ("seconds", "forecast_seconds", "peak_memory_bytes", "forecast_memory_bytes"):
        del result[changing]
    return row.key, row.method, row.shots, row.seed, result, {k: v.tolist() for k, v in row.arrays().items()}


def test_rows_for_methods_times_shots_times_seeds(go):
    rows = rows_of(go())
    wanted = {(m, s, d) for m in ("zero_shot_ensemble", *REQUEST.methods) for s in (1, 4) for d in (0, 1)}
    assert len(rows) == len(wanted) == 12
    assert {(row.method, row.shots, row.seed) for row in rows} == wanted
    assert [row.method for row in rows[:4]] == ["zero_shot_ensemble"] * 4
    for row in rows:
        arrays, result = row.arrays(), row.result
        assert arrays["correct"].mean() == pytest.approx(result.accuracy["tuned"], abs=1e-6)
        assert np.array_equal(arrays["predicted"] == arrays["target"], arrays["correct"] == 1)
        assert arrays["probabilities"].shape == (result.verdict.tested, 3)
        assert arrays["probabilities"].astype(float).sum(1) == pytest.approx(1, abs=2e-3)


def test_a_comparison_is_read_back_as_it_was_written(go, tmp_path):
    found = go()[-1].comparison
    written = json.loads(json.dumps(found.to_json()))
    again = compare.Comparison.from_json(written, Results(tmp_path / "results"))
    assert json.loads(json.dumps(again.to_json())) == written
    assert again.request == found.request and again.ranking == found.ranking and again.notes == found.notes
    assert [row.result for row in again.rows] == [row.result for row in found.rows]
    elsewhere = compare.Comparison.from_json(written, Results(tmp_path / "none"))
    assert elsewhere.ranking is None and len(elsewhere.done) == 12


def test_a_row_equals_a_single_run(go, tiny, task_images):
    (row,) = [r for r in rows_of(go()) if (r.method, r.shots, r.seed) == ("linear_probe", 4, 1)]
    spec = compare.make_plan(REQUEST, task_images, LABELS, tiny)
    (job,) = [job for job in spec.jobs if job.key == row.key]
    *_, outcome = Run(job.spec, task_images, tiny, cache=Cache()).run()
    assert outcome.result.to_json()["accuracy"] == row.result.accuracy
    assert outcome.arrays["tuned"].argmax(1)[row.arrays()["tested"]].tolist() == row.arrays()["predicted"].tolist()


def test_all_methods_see_the_same_split(go):
    splits = {}
    for row in rows_of(go()):
        splits.setdefault((row.shots, row.seed), set()).add(tuple(row.arrays()["tested"]))
    assert all(len(tested) == 1 for tested in splits.values())
    assert len({next(iter(tested)) for tested in splits.values()}) == 4


def test_nothing_is_run_twice(go, monkeypatch):
    first = go()
    monkeypatch.setattr(Run, "run", lambda self: pytest.fail("it was run before"))
    again = go()
    assert {e.kind for e in again} == {"planned", "row", "finished"}
    assert all(row.reused for row in rows_of(again)) and not any(row.reused for row in rows_of(first))
    assert sorted(map(same, rows_of(again)), key=str) == sorted(map(same, rows_of(first)), key=str)


@pytest.mark.parametrize(
    "change", [{"preset": "paper"}, {"template_set": "plain"}, {"precision": "bf16"}, {"seeds": (2,)}, {"shots": (2,)}]
)
def test_another_request_has_other_keys(change, tiny, task_images):
    def keys(request, images=task_images, labels=LABELS):
        jobs = compare.make_plan(request, images, labels, tiny).jobs
        return {job.key for job in jobs if job.spec.method == "linear_probe"}

    request = Request(("linear_probe",), (4,), (0,))
    assert keys(request) == keys(request)
    assert not keys(request) & keys(Request(**{**vars(request), **change}))
    assert not keys(request) & keys(request, labels=(Label("red", "ruby"), *LABELS[1:]))
    assert not keys(request) & keys(request, images=task_images[:-1])


def test_damaged_results_are_run_again(go, tmp_path):
    rows = rows_of(go())
    rows[0].file.write_bytes(rows[0].file.read_bytes()[:-40])
    rows[1].file.with_suffix(".json").write_text("{")
    rows[2].file.unlink()
    again = rows_of(go())
    assert {row.key for row in again if not row.reused} == {row.key for row in rows[:3]}


def test_no_flipped_bit_is_more_than_a_result_to_compute_again(go, tiny, task_images, tmp_path):
    rows, random, results = rows_of(go()), np.random.default_rng(0), Results(tmp_path / "results")
    job = next(job for job in compare.make_plan(REQUEST, task_images, LABELS, tiny).jobs if job.key == rows[0].key)
    unreadable = 0
    for path in (rows[0].file, rows[0].file.with_suffix(".json")):
        whole = path.read_bytes()
        for place in random.integers(len(whole), size=400):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << random.integers(8)
            path.write_bytes(bytes(damaged))
            found = results.find(job)
            unreadable += found is None
            if found and path.suffix == ".npz":
                assert all(np.array_equal(found.arrays()[name], rows[0].arrays()[name]) for name in found.arrays())
        path.write_bytes(whole)
    assert unreadable > 400
    assert results.find(job).result == rows[0].result


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "[]", '{"format": {}}', '{"result": 1}'])
def test_a_result_of_another_shape_is_computed_again(content, go):
    rows = rows_of(go())
    rows[0].file.with_suffix(".json").write_text(content)
    assert {row.key for row in rows_of(go()) if not row.reused} == {rows[0].key}


def test_a_failing_run_is_a_row_and_the_others_go_on(go, monkeypatch):
    original = Run.run

    def go_wrong(self):
        if self.spec.method == "tip_adapter" and self.spec.seed == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self.spec.method == "tip_adapter":
            raise RuntimeError("something else")
        yield from original(self)

    monkeypatch.setattr(Run, "run", go_wrong)
    rows = rows_of(go())
    failed = {row.seed: row for row in rows if row.status == "failed"}
    assert len(rows) == 12 and sum(row.status == "done" for row in rows) == 8
    assert "ran out of memory" in failed[0].message and "RuntimeError: something else" in failed[1].message
    assert failed[0].to_json()["error"]["key"] == "compare_no_memory"
    monkeypatch.setattr(Run, "run", original)
    assert sum(not row.reused for row in rows_of(go())) == 4  # a failure is not kept


def test_all_runs_failing_is_an_error(go, monkeypatch):
    monkeypatch.setattr(Run, "run", lambda self: 1 / 0)
    with pytest.raises(BadConfig, match=r"None of the 12 runs.*ZeroDivisionError"):
        go()


def test_stop_keeps_what_is_done(tiny, task_images, tmp_path):
    stop, kept = threading.Event(), 0
    for event in compare.compare(REQUEST, task_images, LABELS, tiny, Results(tmp_path), stop=stop):
        if event.kind == "row" and event.row.method == "linear_probe":
            stop.set()
        kept += event.kind == "row"
    assert event.comparison.stopped and len(event.comparison.rows) == kept < 12
    *_, last = compare.compare(REQUEST, task_images, LABELS, tiny, Results(tmp_path))
    assert sum(row.reused for row in last.comparison.rows) == kept and len(last.comparison.rows) == 12


def test_no_tuner_is_kept(go, monkeypatch):
    tuners, original = [], Run.run

    def watched(self):
        for item in original(self):
            if isinstance(item, Outcome):
                tuners.append(weakref.ref(item.tuner))
            yield item

    monkeypatch.setattr(Run, "run", watched)
    events = go(Request(("lora", "linear_probe"), (1,), (0,)))
    assert len(rows_of(events)) == len(tuners) == 3
    assert not any(ref() for ref in tuners)


def test_groups_of_methods():
    def names(*groups):
        return [spec.id for spec in compare.choose_methods(groups)[0]]

    every = [spec.id for spec in registry.methods()]
    assert names("all") == every
    assert names("linear_probe") == ["zero_shot_ensemble", "linear_probe"]
    heads = {spec.id for spec in registry.methods() if spec.family == "head"}
    assert set(names("head")) == heads | {"zero_shot_ensemble"}
    assert set(names("visual-prompt", "lora")) == {
        "zero_shot_ensemble",
        "visual_prompt",
        "visual_prompt_deep",
        "image_prompt",
        "lora",
    }
    assert {"linear_probe", "prompt_tuning"} <= set(names("quick")) and not {"lora", "full"} & set(names("quick"))


def test_quick_leaves_out_what_is_slow_here(go, monkeypatch):
    monkeypatch.setattr(compare.plan, "QUICK_SECONDS", 0.0)
    rows = rows_of(go(Request(("quick",), (1,), (0,))))
    left_out = {row.method: row.message for row in rows if row.status == "skipped"}
    assert "left out of the quick methods" in left_out["linear_probe"]
    assert {row.method for row in rows if row.status == "done"} == {"zero_shot_ensemble"}


def test_a_method_that_cannot_run_says_why(go, tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "offers", frozenset())
    rows = rows_of(go(Request(("lora", "linear_probe"), (1,), (0,))))
    assert [(row.method, row.status, row.shots) for row in rows] == [
        ("lora", "skipped", None),
        ("zero_shot_ensemble", "done", 1),
        ("linear_probe", "done", 1),
    ]
    assert rows[0].message.startswith("LoRA cannot run on tiny: it needs")


def test_methods_without_the_preset_run_with_their_usual_one(go):
    rows = rows_of(go(Request(("linear_probe",), (1,), (0,), preset="paper")))
    assert [(row.method, row.result.preset) for row in rows] == [
        ("zero_shot_ensemble", "budget"),
        ("linear_probe", "paper"),
    ]


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request(("nonsense",)), BadConfig, "There is no method or group of methods 'nonsense'"),
        (Request(()), BadConfig, "No method is chosen"),
        (
            Request(("quick",), preset="nonsense"),
            BadConfig,
            "There is no preset 'nonsense'. Choose one of: budget, paper",
        ),
        (Request(("quick",), seeds=()), BadConfig, "No seed is chosen"),
        (Request(("quick",), (12,)), BadLabels, "the largest has 12. Choose at most 11"),
        (Request(("quick",), (0,)), BadLabels, "between 1 and 11, not 0"),
    ],
)
def test_requests_that_cannot_be_met(go, request_, error, words):
    with pytest.raises(error, match=words):
        go(request_)


def test_shots_reach_as_far_as_the_images(task_images):
    assert compare.usable_shots((), task_images) == (1, 2, 4, 8)
    assert compare.usable_shots((4, 1, 4), task_images) == (1, 4)


COMMAND = ("compare", "--methods", "tip_adapter,linear_probe", "--shots", "1,2", "--seeds", "0,1", "--json", "--task")


def test_killed_and_started_again(task_folder, tmp_path, monkeypatch, capsys):
    """SIGKILL in the middle; the same command goes on, and its table equals that of an undisturbed run."""
    environment = os.environ | {"CTL_CACHE": str(tmp_path / "a")}
    killed = subprocess.Popen(
        [sys.executable, "-m", "engine", *COMMAND, str(task_folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in killed.stderr:
        if line.startswith("6/"):
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait(60) == -signal.SIGKILL
    tables = []
    for cache in ("a", "b"):
        monkeypatch.setenv("CTL_CACHE", str(tmp_path / cache))
        assert main.main([*COMMAND, str(task_folder)]) == 0
        tables.append(json.loads(capsys.readouterr().out)["runs"])
    assert 6 <= sum(row["reused"] for row in tables[0]) < 12 and not any(row["reused"] for row in tables[1])
    figures = [
        {row["key"]: (row["method"], row["shots"], row["seed"], row["accuracy"], row["p_value"]) for row in table}
        for table in tables
    ]
    assert len(figures[0]) == 12 and figures[0] == figures[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shots", "1,x"), "--shots '1,x' is not a list of whole numbers"),
        (("--seeds", "-1"), "--seeds '-1' is not a list"),
        (("--methods", "nonsense"), "There is no method or group of methods 'nonsense'"),
        (("--shots", "40"), "the largest has 12"),
    ],
)
def test_bad_input_exits_with_2(task_folder, capsys, arguments, words):
    assert main.main(["compare", "--task", str(task_folder), *arguments]) == 2
    out = capsys.readouterr()
    assert not out.out and words in out.err


def test_the_results_not_asked_for_the_longest_are_deleted_first(go, tmp_path):
    folder = tmp_path / "results"
    first = [row.key for row in rows_of(go(Request(("tip_adapter",), (1,), (0, 1))))]
    for age, key in enumerate(reversed(first)):  # the first one is the oldest
        for file in folder.glob(f"*/{key}.*"):
            os.utime(file, (1e9 - age, 1e9 - age))
    results = Results(folder, most_bytes=sum(f.stat().st_size for f in folder.glob("*/*")) - 1)
    assert results.prune(keep=first) == 0  # what is in use stays, however large
    assert results.prune(keep=()) == 1
    left = {file.stem for file in folder.glob("*/*.json")}
    assert left == {file.stem for file in folder.glob("*/*.npz")} == {*first[1:]}

    rows = rows_of(go(Request(("tip_adapter",), (1,), (1,)), results=results))  # asked for: no longer the oldest
    assert {row.key for row in rows} <= left and all(row.reused for row in rows)
    results.most_bytes = 0
    last = rows_of(go(Request(("tip_adapter",), (4,), (0,)), results=results))
    assert {file.stem for file in folder.glob("*/*.json")} == {row.key for row in last}


def test_the_limit_of_kept_results_is_set_by_the_environment(monkeypatch, tmp_path):
    assert Results(tmp_path).most_bytes == 500 * 10**6
    monkeypatch.setenv("CTL_CACHE_MB", "0.5")
    assert Results(tmp_path).most_bytes == 500_000
    monkeypatch.setenv("CTL_CACHE_MB", "much")
    with pytest.raises(BadConfig, match="CTL_CACHE_MB"):
        Results(tmp_path)


def test_too_few_labels_to_hold_back_are_refused_before_anything_is_run(tmp_path, task_folder, capsys, monkeypatch):
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    arguments = ["compare", "--task", str(task_folder), "--methods", "tip_adapter", "--shots", "1", "--seeds", "0"]
    assert main.main([*arguments, "--damage"]) == main.main([*arguments, "--max-loss", "2"]) == 2
    assert "at least 6 labels" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "results").exists()


def test_a_method_without_a_forecast_loses_the_forecast_alone(go, value_reader):
    events = go(Request((value_reader.id, "linear_probe"), (1, 4), (0, 1)))
    comparison = events[-1].comparison
    done = {(row.method, row.shots, row.seed) for row in comparison.rows if row.status == "done"}
    assert done == {
        (m, s, d) for m in ("zero_shot_ensemble", value_reader.id, "linear_probe") for s in (1, 4) for d in (0, 1)
    }
    memory = {standing.method: standing.memory_bytes for standing in comparison.ranking.standings}
    assert memory[value_reader.id] is None and memory["linear_probe"] > 0
    unknown = [text for text in comparison.advice.sentences if "unknown" in text]
    assert len(unknown) == 1 and "Value reader" in unknown[0] and "Linear probe" not in unknown[0]
    assert json.loads(json.dumps(comparison.to_json()))["ranking"]
    left = [event.seconds_left for event in events if event.kind == "started"]
    assert all(seconds is None or np.isfinite(seconds) for seconds in left)


def test_unknown_memory_is_not_within_a_limit(go, value_reader):
    ranking = go(Request((value_reader.id,), (4,), (0,)))[-1].comparison.ranking
    advice = compare.advise(ranking, compare.Constraints(memory_bytes=1 << 40))
    assert [(method, note.key) for method, note in advice.excluded] == [(value_reader.id, "advice_unknown_memory")]
    assert compare.advise(ranking).excluded == ()


def test_a_method_that_fails_in_its_step_is_a_row(go, value_reader, monkeypatch):
    def broken(self, image, text):
        raise ZeroDivisionError("by a norm")

    monkeypatch.setattr(value_reader.tuner(), "head", broken)
    rows = rows_of(go(Request((value_reader.id, "linear_probe"), (4,), (0,))))
    status = {row.method: row.status for row in rows}
    assert status == {"zero_shot_ensemble": "done", "linear_probe": "done", value_reader.id: "failed"}
    (failed,) = (row for row in rows if row.status == "failed")
    assert "ZeroDivisionError: by a norm" in failed.message


def test_quick_keeps_a_method_that_cannot_be_forecast(tiny, task_images, value_reader):
    plan = compare.make_plan(Request(("quick",), (1,), (0,)), task_images, LABELS, tiny)
    assert value_reader.id in plan.quick
    jobs = [job for job in plan.jobs if job.spec.method in (value_reader.id, "linear_probe")]
    ordered = cheapest_first([job for some in forecasts(plan, jobs, tiny) for job in some])
    assert not any(not_quick(plan, job) for job in ordered if job.seconds is None)
    assert [job.spec.method for job in ordered] == ["linear_probe", value_reader.id]
    assert ordered[0].seconds > 0 and ordered[1].seconds is None and ordered[1].memory_bytes is None


def test_the_time_left_follows_what_was_measured():
    seconds = 0.0
    clock = Clock({"a1": ("a", 10.0), "a2": ("a", 10.0), "b": ("b", 20.0), "c": ("c", 0.0)}, lambda: seconds)
    assert clock.left() == 40
    seconds = 5.0
    assert clock.left() == 35  # a run is going on
    clock.ended("a1")
    assert clock.left() == pytest.approx(5 + 20 * 15 / 20)  # its own pace, and that of all drawn towards the forecasts
    seconds = 10.0
    clock.ended("a2")
    seconds = 100.0
    assert clock.left() is None  # longer than expected: unknown
    clock.ended("b")
    clock.ended("c")
    assert clock.left() is None
