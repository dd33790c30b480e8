"""Counts what a piece of work needs: storages, floating-point operations, bytes written."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 512
"""Bytes to which CUDA's allocator rounds every storage up."""


@dataclass(frozen=True)
class OpCost:
    """A piece of work: what it needs beside what was there, and what it does."""

    peak: int = 0
    """Most bytes alive at once."""
    kept: int = 0
    """Bytes alive when the backward pass begins: what the forward pass keeps for it."""
    flops: float = 0.0
    """Of matrix products, attention and convolutions; a multiply-add is two."""
    written: float = 0.0
    """Bytes that the other operations write."""
    operations: int = 0
    """Dispatched operations, views left out."""


def rounded(size: int) -> int:
    """Return bytes that a storage of this size takes."""
    return -(-size // BLOCK) * BLOCK


class OpCounter(TorchDispatchMode):
    """Counts storages and operations while it is open; works on fake and on real tensors.

    Args:
        known: tensors that were there before and do not count.
    """

    def __init__(self, known: Sequence[Tensor] = ()):
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.alive = self.peak = self.kept = self.operations = 0
        self.flops = self.written = 0.0
        self._formulas = flop_registry
        self._known = list(known)  # held, so that no other storage gets the same address
        self._seen = {t.untyped_storage()._cdata for t in self._known}
        self._backward = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The first operation inside an autograd node ends the forward pass: what lives now is what it keeps for later.
        if not self._backward and torch._C._current_autograd_node() is not None:
            self._backward, self.kept = True, self.alive
        out = function(*args, **(kwargs or {}))
        outputs = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        # Storages and not tensors: views share one, and memory is taken and given back by storage.
        fresh = [self._add(t.untyped_storage()) for t in outputs]
        if not any(fresh) and not function._schema.is_mutable:
            return out  # a view or a question
        self.operations += 1
        formula = self._formulas.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        else:
            self.written += sum(t.nbytes for t in outputs)
        return out

    def _add(self, storage: torch.UntypedStorage) -> bool:
        """Count a storage; False where it was there before."""
        key = storage._cdata
        if key in self._seen:
            return False
        size = rounded(storage.nbytes())
        self._seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        # Freed when Python drops it, as the allocator does; not at exit, when nobody counts any more.
        weakref.finalize(storage, self._drop, key, size).atexit = False
        return True

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size

    def work(self) -> OpCost:
        """Return what was counted."""
        return OpCost(self.peak, self.kept, self.flops, self.written, self.operations)
