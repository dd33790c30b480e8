"""Models that are loaded once and shared by everybody."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[str, str]
"""Id and device."""


class Shared(Generic[T]):
    """The last ``keep`` models, by id and device; only those who ask for the same one wait for each other."""

    def __init__(self, keep: int = 2):
        self.keep = keep
        self._models: OrderedDict[Key, T] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: defaultdict[Key, threading.Lock] = defaultdict(threading.Lock)

    def __len__(self) -> int:
        return len(self._models)

    def has(self, id: str) -> bool:
        """Return whether :meth:`get` returns this model at once, on some device."""
        with self._lock:
            return any(name == id for name, _ in self._models)

    def get(self, key: Key, load: Callable[[str, str], T]) -> T:
        """The model, from ``load(id, device)`` where it is not here. What ``load`` raises changes nothing here."""
        with self._lock:
            own = self._loading[key]
        with own:
            with self._lock:
                found = self._models.get(key)
            found = found or load(*key)
            with self._lock:
                self._models[key] = found
                self._models.move_to_end(key)
                while len(self._models) > self.keep:
                    self._models.popitem(last=False)
            return found

    def clear(self) -> None:
        """Let all of them go."""
        with self._lock:
            self._models.clear()
