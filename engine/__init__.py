"""The library behind CLIP Tuning Lab; a notebook imports its functions from here."""

import os
from typing import TYPE_CHECKING

# Before torch loads OpenMP: threads that wait by spinning hold up the backward pass's own threads on few cores
# (full fine-tuning of Pocket CLIP on two cores: 58 s of training spinning, 9 s sleeping).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before huggingface_hub: its own transport cannot be stopped from outside, plain HTTP can.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

if TYPE_CHECKING:
    from engine.front_door import compare as compare
    from engine.front_door import export_adapter as export_adapter
    from engine.front_door import load_adapter as load_adapter
    from engine.front_door import load_backbone as load_backbone
    from engine.front_door import predict as predict
    from engine.front_door import read_task as read_task
    from engine.front_door import tune as tune
    from engine.front_door import zero_shot as zero_shot

__all__ = ["compare", "export_adapter", "load_adapter", "load_backbone", "predict", "read_task", "tune", "zero_shot"]


def __getattr__(name: str) -> object:
    """Import the front door when one of its functions is asked for: ``import engine`` alone loads no torch."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "compare":  # the package of that name, which can be called
        return importlib.import_module("engine.compare")
    return getattr(importlib.import_module("engine.front_door"), name)
