"""The bounded store: what it keeps, what leaves it, and many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.lru import LruStore


def test_the_least_recently_used_leaves_and_is_returned():
    store = LruStore(2)
    assert store.put("a", 1) == store.put("b", 2) == []
    assert store.get("a") == 1
    assert store.put("c", 3) == [("b", 2)]
    assert store.get("b") is None
    assert store.items() == [("a", 1), ("c", 3)]
    assert store.items() == [("a", 1), ("c", 3)], "looking at them is no use of them"


def test_values_that_weigh_make_room_by_weight():
    store = LruStore(10, len)
    assert store.put(1, "xxxx") == store.put(2, "xxxx") == []
    assert store.put(3, "xxxxxx") == [(1, "xxxx")]
    assert (len(store), store.weight) == (2, 10)
    assert store.put(4, "x" * 10) == [(2, "xxxx"), (3, "xxxxxx")]


def test_a_value_too_heavy_leaves_alone():
    store = LruStore(3, len)
    store.put(1, "xx")
    assert store.put(2, "xxxx") == [(2, "xxxx")]
    assert store.items() == [(1, "xx")]


def test_one_key_weighs_once():
    store = LruStore(5, len)
    store.put(1, "xxx")
    assert store.put(1, "xxxx") == []
    assert (store.items(), store.weight) == ([(1, "xxxx")], 4)
    assert (store.pop(1), store.pop(1), store.weight) == ("xxxx", None, 0)


def test_clear_returns_everything():
    store = LruStore(3)
    store.put(1, "a")
    store.put(2, "b")
    assert store.clear() == [(1, "a"), (2, "b")]
    assert (len(store), store.weight, store.clear()) == (0, 0, [])


def test_threads_lose_nothing():
    store = LruStore(50, int)
    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(lambda k: store.put(k, 1 + k % 3), range(2000)))
    gone = [key for leaving in left for key, _ in leaving]
    there = [key for key, _ in store.items()]
    assert sorted(gone + there) == list(range(2000))
    assert store.weight == sum(1 + key % 3 for key in there) <= 50
