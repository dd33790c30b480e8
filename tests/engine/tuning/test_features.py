"""What is kept is kept once, within its limit, and equals what would be computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.backbones.base import FEATURES, PIXELS
from engine.tuning.features import Cache, FeatureStore, Views, text_features
from engine.tuning.outcome import Stopped
from tests.tiny import TRUNK, make_tiny


def count_calls(backbone, monkeypatch):
    calls = []
    real = type(backbone.vision).embed
    monkeypatch.setattr(type(backbone.vision), "embed", lambda self, x: (calls.append(len(x)), real(self, x))[1])
    return calls


def test_second_pass_computes_nothing(tiny, task_images, monkeypatch):
    calls, cache = count_calls(tiny, monkeypatch), Cache()
    first = FeatureStore(tiny, task_images, cache).features()
    assert sum(calls) == len(task_images)
    again = FeatureStore(tiny, tuple(reversed(task_images)), cache).features()
    assert sum(calls) == len(task_images)
    assert torch.equal(first, again.flip(0))


def test_a_trunk_runs_once_an_image_whatever_is_asked_of_it(task_images, monkeypatch):
    backbone = make_tiny(**TRUNK)
    calls, real = [], type(backbone.vision).run_stem
    monkeypatch.setattr(type(backbone.vision), "run_stem", lambda self, x: (calls.append(len(x)), real(self, x))[1])
    store = FeatureStore(backbone, task_images, Cache(), batch=10)
    features = store.features()
    assert sum(calls) == len(task_images)
    tokens = store.stage(0, range(12))
    assert torch.equal(tokens, store.fresh(0, range(12)).half().float())
    last = store.fresh(FEATURES, range(len(task_images)))
    assert sum(calls) == len(task_images)
    torch.testing.assert_close(last, features, atol=1e-6, rtol=0)
    pixels = backbone.normalise(backbone.load_pixels([store._read(i, 0, Views()) for i in range(len(task_images))]))
    with torch.no_grad():
        torch.testing.assert_close(features, backbone.encode_image(pixels), atol=1e-5, rtol=0)


def test_rows_do_not_depend_on_the_batch(tiny, task_images):
    small, large = (FeatureStore(tiny, task_images, Cache(), batch=b).features() for b in (3, 64))
    torch.testing.assert_close(small, large, atol=1e-6, rtol=0)


def test_cache_is_bounded_and_forgets_the_oldest():
    cache = Cache(limit=100, disk_limit=0)
    for k in range(10):
        cache.put((k,), torch.zeros(5))  # 20 bytes each
    assert cache.bytes <= 100
    assert cache.get((0,)) is None
    assert cache.get((9,)) is not None
    cache.put(("huge",), torch.zeros(1000))
    assert cache.get(("huge",)) is None
    cache.clear()
    assert cache.bytes == 0


def test_what_leaves_memory_goes_to_disk_within_its_limit():
    cache = Cache(limit=100, disk_limit=100)
    for k in range(12):
        cache.put((k,), torch.full((5,), float(k)))  # 20 bytes each: 5 in memory, 5 on disk
    found = [k for k in range(12) if cache.get((k,)) is not None]
    assert found == list(range(2, 12))
    for k in found:
        assert torch.equal(cache.get((k,)), torch.full((5,), float(k)))
    folder = Path(cache._disk._folder.name)
    assert len(list(folder.iterdir())) == 5
    cache.clear()
    assert list(folder.iterdir()) == []
    assert cache.get((7,)) is None


def test_an_emptied_folder_only_costs_time():
    cache = Cache(limit=0)
    cache.put(("a",), torch.ones(5))
    for file in Path(cache._disk._folder.name).iterdir():
        file.unlink()
    assert cache.get(("a",)) is None
    cache.put(("a",), torch.ones(5))
    assert torch.equal(cache.get(("a",)), torch.ones(5))


@pytest.mark.parametrize("stage", [PIXELS, 0, 2, FEATURES])
@pytest.mark.parametrize(("memory", "disk"), [(0, 0), (0, 1 << 30), (3000, 1 << 30)])
def test_rows_are_the_same_from_anywhere(tiny, task_images, stage, memory, disk):
    kept = FeatureStore(tiny, task_images, Cache())
    elsewhere = FeatureStore(tiny, task_images, Cache(memory, disk))
    expected = kept.stage(stage)
    for store in (elsewhere, elsewhere, kept):  # computed, read back, from memory
        found = store.stage(stage)
        assert found.dtype == expected.dtype == torch.float32
        assert torch.equal(found, expected)


def test_half_precision_tokens_lead_to_the_same_features(tiny, task_images):
    store = FeatureStore(tiny, task_images, Cache())
    from_tokens = tiny.vision.advance(store.stage(1), 1, FEATURES)
    torch.testing.assert_close(from_tokens, store.features(), atol=5e-4, rtol=0)


def test_other_weights_have_other_rows(tiny, task_images):
    from tests.tiny import make_tiny

    cache, other = Cache(), make_tiny(seed=3)
    assert not torch.equal(
        FeatureStore(tiny, task_images, cache).features(), FeatureStore(other, task_images, cache).features()
    )


def test_stop_is_seen_between_batches(tiny, task_images):
    seen = []

    def check() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        FeatureStore(tiny, task_images, Cache(), check=check, batch=4).features()
    assert len(seen) == 2


def test_prefetch_reports_and_fills(tiny, task_images):
    store = FeatureStore(tiny, task_images, Cache(), batch=10)
    assert list(store.prefetch(FEATURES, range(36))) == [(10, 36), (20, 36), (30, 36), (36, 36)]
    assert list(store.prefetch(FEATURES, range(36))) == []


def test_views_are_crops_of_the_same_picture(tiny, task_images):
    store, views = FeatureStore(tiny, task_images, Cache()), Views(4, 0.5)
    rows = [store.stage(PIXELS, [0], view=k, views=views) for k in range(4)]
    assert torch.equal(rows[0], store.stage(PIXELS, [0]))
    assert len({row.sum().item() for row in rows}) == 4


def test_text_features_are_kept_and_normalised(tiny):
    cache = Cache()
    first = text_features(tiny, ["cat", "dog"], ["a photo of a {}.", "{}"], cache)
    assert text_features(tiny, ["cat", "dog"], ["a photo of a {}.", "{}"], cache) is first
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2))
    assert not torch.equal(first, text_features(tiny, ["cat", "dog"], ["{}"], cache))
