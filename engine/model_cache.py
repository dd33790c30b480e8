"""Models that are loaded once and shared by everybody."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

from engine.lru import LruStore

T = TypeVar("T")
Key = tuple[str, str]
"""Id and device."""


class Shared(Generic[T]):
    """The last ``keep`` models, by id and device; only those who ask for the same one wait for each other."""

    def __init__(self, keep: int = 2):
        self._models: LruStore[Key, T] = LruStore(keep)
        self._lock = threading.Lock()
        self._loading: defaultdict[Key, threading.Lock] = defaultdict(threading.Lock)

    def __len__(self) -> int:
        return len(self._models)

    def has(self, id: str) -> bool:
        """Return whether :meth:`get` returns this model at once, on some device."""
        return any(name == id for (name, _), _ in self._models.items())

    def get(self, key: Key, load: Callable[[str, str], T]) -> T:
        """The model, from ``load(id, device)`` where it is not here. What ``load`` raises changes nothing here."""
        with self._lock:
            own = self._loading[key]
        with own:
            found = self._models.get(key)
            if found is None:
                found = load(*key)
                self._models.put(key, found)
            return found

    def values(self) -> list[T]:
        """Return the models that are here; none of them counts as used."""
        return [model for _, model in self._models.items()]

    def clear(self) -> None:
        """Let all of them go."""
        self._models.clear()
