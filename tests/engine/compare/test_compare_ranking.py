"""Ranking and advice on rows whose truth is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from engine.compare import Constraints, Row, advise, rank
from engine.compare.advice import recommend
from engine.compare.expected import expected_gains
from engine.compare.resample import BootstrapSamples, CorrectnessTable, exact_sign_test, holm
from engine.types import RunResult

MB = 10**6
COSTS = {  # method: parameters, bytes of memory, seconds, bytes of the file
    "zero_shot_ensemble": (0, 20 * MB, 0.01, 40),
    "linear_probe": (2_570, 21 * MB, 0.4, 10_000),
    "clip_adapter": (30_000, 22 * MB, 0.6, 120_000),
    "lora": (100_000, 90 * MB, 24.0, 400_000),
    "full": (4_900_000, 300 * MB, 40.0, 20 * MB),
}


@pytest.fixture
def make(tmp_path):
    """Rows from the images that are right: {method: {(shots, seed): (N,) shares}}; NaN = not tested."""
    numbers = itertools.count()

    def rows(right, damage=None):
        found = []
        for method, cells in right.items():
            parameters, memory, seconds, size = COSTS[method]
            for (shots, seed), shares in cells.items():
                shares, file = np.asarray(shares, float), tmp_path / f"{next(numbers)}.npz"
                tested = np.flatnonzero(~np.isnan(shares))
                np.savez(file, tested=tested, correct=shares[tested].astype(np.float32))
                result = RunResult.from_json(
                    {
                        "backbone": "tiny",
                        "method": method,
                        "config": {},
                        "seed": seed,
                        "labels": [],
                        "trainable_parameters": parameters,
                        "peak_memory_bytes": 10**9,
                        "memory_kind": "process",
                        "forecast_parts": {"weights": memory},
                        "adapter_bytes": size,
                        "seconds": {"features": 0.0, "train": seconds, "evaluate": 0.0},
                    }
                )
                loss = (damage or {}).get(method)
                found.append(Row(str(file), method, shots, seed, "done", result, loss, file=file))
        return found

    return rows


def drawn(accuracy, images=400, seeds=3, shots=4, start=0):
    """Independent right answers with a true accuracy."""
    return {(shots, seed): np.random.default_rng([start, seed]).random(images) < accuracy for seed in range(seeds)}


def shared(gain, images=400, seeds=3, shots=4, base=0.5):
    """Right on the first images; a method with a gain is right on more of them, for every seed."""
    count = round((base + gain) * images)
    return {(shots, seed): np.arange(images) < count for seed in range(seeds)}


def test_holm_equals_the_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_groups_are_those_that_differ(make):
    right = {
        "zero_shot_ensemble": shared(-0.2),
        "linear_probe": shared(0.2),
        "clip_adapter": shared(0.195),
        "lora": shared(0.2025),
        "full": shared(-0.2),
    }
    ranking = rank(make(right))
    assert [(s.method, s.group) for s in ranking.standings] == [
        ("lora", 1),
        ("linear_probe", 1),
        ("clip_adapter", 1),
        ("zero_shot_ensemble", 2),
        ("full", 2),
    ]
    assert [s.rank for s in ranking.standings] == [1, 2, 3, 4, 5]
    words = {s.method: s.word for s in ranking.standings}
    assert words == {
        "lora": "better",
        "linear_probe": "better",
        "clip_adapter": "better",
        "full": "close",
        "zero_shot_ensemble": "baseline",
    }
    lora = ranking.standings[0]
    assert lora.over_zero_shot.value == pytest.approx(0.4025)
    assert lora.over_zero_shot.low < 0.4025 < lora.over_zero_shot.high
    assert ranking.tested == 400 and ranking.seeds == (0, 1, 2)


def test_equal_methods_are_rarely_told_apart(make):
    """20 comparisons of three methods with the same true accuracy: at most a few false alarms (5 % each)."""
    alarms = 0
    for start in range(20):
        right = {
            name: drawn(0.6, images=120, start=10 * start + k)
            for k, name in enumerate(("linear_probe", "clip_adapter", "lora"))
        }
        alarms += max(s.group for s in rank(make(right)).standings) > 1
    assert alarms <= 3


def test_a_lead_that_hangs_on_one_seed_is_none(make):
    """Ahead by far with one draw of the training images, and behind with the two others."""
    base = {(4, seed): np.arange(300) < 150 for seed in range(3)}
    moody = {(4, 0): np.arange(300) < 240, (4, 1): np.arange(300) < 140, (4, 2): np.arange(300) < 140}
    ranking = rank(make({"linear_probe": base, "lora": moody}))
    assert ranking.standings[0].method == "lora" and ranking.standings[1].group == 1
    steady = {(4, seed): np.arange(300) < 173 for seed in range(3)}  # the same mean
    assert rank(make({"linear_probe": base, "lora": steady})).standings[1].group == 2


def test_one_seed_is_mcnemar(make):
    before, after = np.zeros(60), np.zeros(60)
    before[:20], after[3:34] = 1, 1  # 3 lost, 14 gained
    ranking = rank(make({"linear_probe": {(4, 0): before}, "lora": {(4, 0): after}}))
    assert ranking.pairs["lora", "linear_probe"].p == pytest.approx(binomtest(3, 17, 0.5).pvalue)
    assert ranking.pairs["linear_probe", "lora"].value == pytest.approx(-11 / 60)


def test_sign_flips_equal_every_flip():
    gaps = np.array([0.5, 1.0, -0.5, 1.0, 0.5, 0.0, 1.0], np.float32)
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=len(gaps))]
    exact = np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-6)
    resampled = BootstrapSamples(CorrectnessTable(("a",), (1,), (0,), np.ones((1, 1, 1, 7), np.float32)))
    assert exact_sign_test(gaps) is None
    assert resampled._sign_flips(gaps[None])[0] == pytest.approx(exact, abs=0.02)


def test_interval_covers_the_truth(make):
    """Images drawn anew: 95 % intervals hold the true accuracy nearly always."""
    held = 0
    for start in range(40):
        (standing,) = rank(make({"lora": drawn(0.7, images=100, seeds=2, start=start)})).standings
        held += standing.accuracy.low <= 0.7 <= standing.accuracy.high
    assert held >= 36


def test_no_false_certainty_where_all_is_right(make):
    (standing,) = rank(make({"lora": shared(0.5, images=20)})).standings
    assert standing.accuracy.value == 1 and standing.accuracy.low < 0.9


def test_ranked_at_the_largest_common_shots(make):
    right = {
        "linear_probe": {**shared(0.1, shots=1), **shared(0.2, shots=2), **shared(0.3, shots=4)},
        "lora": {**shared(0.1, shots=1), **shared(0.2, shots=2)},
    }
    rows = make(right)
    assert rank(rows).shots == 2 and rank(rows).missing == ()
    at_four = rank(rows, 4)
    assert at_four.missing == ("lora",) and [s.method for s in at_four.standings] == ["linear_probe"]
    with pytest.raises(ValueError, match="no run with 8 shots"):
        rank(rows, 8)


def test_a_missing_cell_costs_its_method_and_not_the_table(make):
    two = {**shared(0.1, shots=4), **shared(0.2, shots=8)}
    right = {"zero_shot_ensemble": two, "linear_probe": two, "clip_adapter": two, "lora": shared(0.1, shots=4)}
    ranking = rank(make(right))
    assert ranking.shots == 8 and ranking.missing == ("lora",)
    assert "training images a label: 8, draws: 3" in advise(ranking).sentences[0]


def test_images_that_only_some_seeds_test(make):
    cells = {(4, 0): [1, 1, np.nan, 0], (4, 1): [np.nan, 1, 0, np.nan]}
    ranking = rank(make({"lora": cells}))
    assert ranking.standings[0].accuracy.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert ranking.tested == 4


def test_doubling_is_the_slope_over_log_shots(make):
    right = {(shots, seed): np.arange(500) < 250 + 40 * k for k, shots in enumerate((1, 2, 4, 8)) for seed in range(2)}
    curve = rank(make({"lora": right})).curve("lora")
    assert curve.doubling.value == pytest.approx(0.08)
    assert 0.05 < curve.doubling.low < 0.08 < curve.doubling.high < 0.12
    assert [x.value for x in curve.accuracy] == pytest.approx([0.5, 0.58, 0.66, 0.74])


@pytest.fixture
def ranking(make):
    """LoRA a little above the linear probe, full tuning clearly above both, zero-shot below."""
    right = {"zero_shot_ensemble": shared(-0.2), "linear_probe": shared(0.0), "lora": shared(0.01), "full": shared(0.2)}
    return rank(make(right, damage={"full": 0.11, "lora": 0.01, "linear_probe": 0.0}))


def keys(advice):
    return [note.key for note in advice.notes]


def test_advice_moves_with_the_limits(ranking):
    free = advise(ranking)
    assert (free.method, free.best, keys(free)) == (
        "full",
        "full",
        ["advice_take", "advice_worth", "advice_alone", "advice_no_curve"],
    )

    light = advise(ranking, Constraints(parameters=200_000))
    assert (light.method, light.best) == ("linear_probe", "lora")
    assert keys(light) == [
        "advice_take",
        "advice_cheaper",
        "advice_tied_within",
        "advice_beyond",
        "advice_over_parameters",
        "advice_no_curve",
    ]
    assert light.sentences[1] == (
        "LoRA is 1.0 points above Linear probe on these images, of which 1.0 are likely to last, and takes 24.0 s "
        "against 0.4 s: take Linear probe."
    )
    assert "trains 4,900,000 parameters; your limit is 200,000" in light.sentences[4]
    assert [method for method, _ in light.excluded] == ["full"]

    for limit in (
        {"memory_bytes": 200 * MB},
        {"seconds": 30.0},
        {"adapter_bytes": MB},
        {"loss": 0.05},
        {"parameters": 10_000},
    ):
        assert advise(ranking, Constraints(**limit)).method == "linear_probe"
    assert advise(ranking, Constraints(parameters=100)).method == "zero_shot_ensemble"


def test_of_equally_accurate_methods_the_one_with_fewest_parameters_is_taken(make):
    right = {"zero_shot_ensemble": shared(-0.2), "linear_probe": shared(0.0), "clip_adapter": shared(0.0)}
    assert recommend(rank(make(right))).method == "linear_probe"


def test_seconds_do_not_outvote_a_likely_gain(make):
    """Seven points of one draw on 60 images, too close to call, against five seconds."""
    random = np.random.default_rng(1)
    first = random.random(60) < 0.6
    better = first.copy()
    better[np.flatnonzero(~first)[:6]] = True
    better[np.flatnonzero(first)[:2]] = False
    ranking = rank(
        make(
            {
                "zero_shot_ensemble": {(4, 0): np.zeros(60)},
                "linear_probe": {(4, 0): first},
                "clip_adapter": {(4, 0): better},
            }
        )
    )
    probe, adapter = (ranking.standing(name) for name in ("linear_probe", "clip_adapter"))
    assert probe.group == adapter.group
    slow = replace(ranking, standings=(replace(adapter, usual_seconds=5.4), replace(probe, usual_seconds=0.4)))
    assert recommend(slow).method == "clip_adapter"


@pytest.mark.parametrize(
    ("gain", "images", "method", "key"),
    [
        (0.3, 20, "linear_probe", "advice_likely"),
        (-0.07, 15, "zero_shot_ensemble", "advice_cannot_tell"),
        (0.0, 4000, "zero_shot_ensemble", "advice_zero_shot"),
    ],
)
def test_cannot_tell_is_not_is_enough(make, gain, images, method, key):
    before = np.arange(images) < images // 2
    after = before.copy()
    after[images // 2 : images // 2 + round((gain + 0.1) * images)] = True
    after[: round(0.1 * images)] = False
    order = np.random.default_rng(2).permutation(images)
    cells = {"zero_shot_ensemble": {(1, 0): before[order]}, "linear_probe": {(1, 0): after[order]}}
    advice = advise(rank(make(cells)))
    assert (advice.method, keys(advice)[0]) == (method, key)


def test_interval_and_p_value_say_the_same(make):
    random = np.random.default_rng(0)
    for _ in range(30):
        right = {
            name: drawn(0.5 + random.normal() / 8, images=60, seeds=2, start=random.integers(99)) for name in COSTS
        }
        for standing in rank(make(right)).standings:
            found = standing.over_zero_shot
            if standing.word != "baseline":
                assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize("images", [10, 40, 4000])
def test_few_images_are_drawn_towards_what_tuning_usually_brings(make, images):
    """Half right before; ten points more, or ten less, after tuning."""
    gains = {}
    for seen in (0.1, -0.1):
        before, after = (np.arange(images) < images * share for share in (0.5, 0.5 + seen))
        order = np.random.default_rng(0).permutation(images)
        cells = {"zero_shot_ensemble": {(4, 0): before[order]}, "linear_probe": {(4, 0): after[order]}}
        found = expected_gains(rank(make(cells)))
        gains[seen] = found["linear_probe"]
        assert found["zero_shot_ensemble"] == 0
    assert -0.1 < gains[-0.1] < 0.05 < gains[0.1] < 0.1  # the usual gain is a tenth of the errors: five points
    if images == 4000:
        assert gains[0.1] == pytest.approx(0.1, abs=0.003) and gains[-0.1] == pytest.approx(-0.1, abs=0.003)


def test_a_lead_over_other_methods_lasts_the_more_the_surer_it_is(make):
    leads = []
    for images in (20, 2000):
        cells = {
            name: {(4, 0): np.random.default_rng(0).permutation(np.arange(images) < images * share)}
            for name, share in (("zero_shot_ensemble", 0.3), ("linear_probe", 0.6), ("clip_adapter", 0.7))
        }
        gains = expected_gains(rank(make(cells)))
        leads.append(gains["clip_adapter"] - gains["linear_probe"])
    assert 0 < leads[0] < 0.05 and 0.07 < leads[1] < 0.1


def test_advice_where_nothing_fits(ranking):
    advice = advise(ranking, Constraints(memory_bytes=10 * MB, seconds=0.001))
    assert advice.method is None and not advice.ranking.standings
    assert keys(advice) == ["advice_nothing_fits", "advice_over_seconds", "advice_over_memory"]
    assert advice.sentences[0] == "No method fits your limits. Zero-shot, prompt ensemble comes nearest."
    assert advice.sentences[2].endswith("needs 20 MB of memory; your limit is 10 MB.")


def test_zero_shot_is_enough(make):
    advice = advise(rank(make({"zero_shot_ensemble": shared(0.0), "lora": shared(0.005), "full": shared(-0.3)})))
    assert advice.method == "zero_shot_ensemble" and advice.best == "lora"
    assert keys(advice) == ["advice_zero_shot", "advice_highest", "advice_no_curve"]
    assert advice.to_json()["reasons"][0]["sentence"].startswith("Zero-shot is enough: on these 400 test images")


def growing(start, step):
    return {
        (shots, seed): np.arange(400) < 400 * (start + step * k)
        for k, shots in enumerate((1, 2, 4))
        for seed in range(3)
    }


@pytest.mark.parametrize(
    ("probe", "full", "key"),
    [
        (growing(0.4, 0.15), growing(0.45, 0.15), "advice_more_photos"),
        (growing(0.4, 0.03), growing(0.8, 0.03), "advice_other_method"),
        (growing(0.5, 0.0), growing(0.5, 0.001), "advice_flat"),
    ],
)
def test_photos_or_method(make, probe, full, key):
    ranking = rank(make({"zero_shot_ensemble": growing(0.1, 0), "linear_probe": probe, "full": full}))
    advice = advise(ranking, Constraints(parameters=10_000))
    assert advice.method == "linear_probe" and keys(advice)[-1] == key
    assert dict(advice.notes[-1].values)["more"] == 8


def test_of_equally_quick_methods_the_most_accurate(make):
    right = {"zero_shot_ensemble": shared(-0.3), "linear_probe": shared(0.0), "clip_adapter": shared(0.005)}
    assert advise(rank(make(right))).method == "clip_adapter"


def test_within_regroups_and_runs_nothing(ranking, monkeypatch):
    monkeypatch.setattr(BootstrapSamples, "__init__", lambda *_: pytest.fail("nothing is resampled"))
    kept = ranking.within(["lora", "linear_probe", "zero_shot_ensemble"])
    assert [(s.method, s.group) for s in kept.standings] == [
        ("lora", 1),
        ("linear_probe", 1),
        ("zero_shot_ensemble", 2),
    ]
    assert replace(kept, standings=()) == replace(ranking, standings=())
