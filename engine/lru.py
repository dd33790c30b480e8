"""A bounded store: values by key, the least recently used ones make room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruStore(Generic[K, V]):
    """Values by key, within a limit; those that were not used for longest make room. Safe for threads.

    What has to leave is returned and not only dropped, as it may go somewhere else (to disk) or have to be ended (a
    visitor's run), and a caller does that without holding the store's lock.

    Args:
        limit: the most that all values may weigh.
        weigh: a value's weight, asked for once, when it is put; 1 by default, so that ``limit`` is a number of values.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int] = lambda value: 1):
        self.limit, self.weight = limit, 0
        self._weigh, self._lock = weigh, threading.Lock()
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """Return the value, which has now been used, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: K, value: V) -> list[tuple[K, V]]:
        """Keep a value in place of one of the same key; return what had to leave, the least recently used first. A
        value that is heavier than the limit leaves alone and at once."""
        size = self._weigh(value)
        leaving: list[tuple[K, V]] = []
        with self._lock:
            self._take(key)
            if size > self.limit:
                return [(key, value)]
            self._values[key] = (value, size)
            self.weight += size
            while self.weight > self.limit:
                oldest, (unused, freed) = self._values.popitem(last=False)
                self.weight -= freed
                leaving.append((oldest, unused))
        return leaving

    def pop(self, key: K) -> V | None:
        """Take a value out; None where there is none."""
        with self._lock:
            return self._take(key)

    def items(self) -> list[tuple[K, V]]:
        """Return keys and values, the least recently used first; none of them counts as used."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._values.items()]

    def clear(self) -> list[tuple[K, V]]:
        """Take all out and return them."""
        with self._lock:
            found = [(key, value) for key, (value, _) in self._values.items()]
            self._values.clear()
            self.weight = 0
        return found

    def _take(self, key: K) -> V | None:
        value, size = self._values.pop(key, (None, 0))
        self.weight -= size
        return value
