"""What a run would need that is only planned: no photos are there, and the backbone's weights need not be either."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from engine.backbones import catalog
from engine.backbones.skeleton import meta_backbone
from engine.costs.forecast import PLACES, fits, forecast, largest_that_fits
from engine.data.episode import MAX_SHOTS
from engine.devices import device_of
from engine.errors import BadConfig, Untraceable, messages
from engine.tuning import registry
from engine.tuning.sources import NamedSources

BOUNDS = {"labels": (2, 5_000), "shots": (1, MAX_SHOTS), "images": (1, 10**9), "batch": (1, 10**5)}
"""What can be forecast."""

MOST_SUPPORT = 200_000
"""Training images: 40 a label of the most labels."""

messages(
    bad_range="--{name} must be from {low:,} to {high:,}.",
    many_to_forecast="--labels times --shots are {count:,} training images; a forecast takes {limit:,} at most.",
)


def plan(
    method: str,
    backbone: str = catalog.POCKET,
    labels: int = 10,
    shots: int = 8,
    images: int | None = None,
    *,
    batch: int | None = None,
    preset: str = "budget",
    precision: str = "auto",
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Forecast parameters, memory by part and seconds of a run, as plain data.

    Args:
        method: id of a method.
        labels: number of labels, at least 2.
        shots: training images a label, at least 1.
        images: all images; twice the training images by default.
        batch: images a step; the preset's by default.
        precision: of the step: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: whose memory; ``cuda`` where there is one by default.
        settings: fields of the method's config.

    Raises:
        BadConfig: a count is outside ``BOUNDS``, or the method or a setting does not exist.
        BackboneUnavailable: the sizes of the backbone are not known here.
        Untraceable: a step of the method cannot be followed without values.
    """
    for name, count, (low, high) in zip(BOUNDS, (labels, shots, images, batch), BOUNDS.values(), strict=True):
        if count is not None and not low <= count <= high:
            raise BadConfig("bad_range", name=name, low=low, high=high)
    if labels * shots > MOST_SUPPORT:
        raise BadConfig("many_to_forecast", count=labels * shots, limit=MOST_SUPPORT)
    spec, values = registry.get(method), dict(settings or {})
    trained = "batch_size" in {field.name for field in fields(spec.config)}
    if batch is not None and trained:
        values["batch_size"] = batch
    config: Any = spec.configure(preset, values, shots)
    device, model, support = device or device_of(), meta_backbone(backbone), labels * shots

    def of(config: Any) -> Any:
        total = images or 2 * support
        return forecast(spec, config, model, labels, support, total, 1, precision, 0, device, NamedSources())

    needed = of(config)
    room, largest = fits(needed), {}
    if trained and not all(room.values()):
        most = min(config.batch_size, support)
        with suppress(Untraceable):  # a batch of one image may be followed less well
            smallest = of(replace(config, batch_size=1)).total_bytes
            for place in (place for place, good in room.items() if not good):
                largest[place] = largest_that_fits(PLACES[place], most, needed.total_bytes, smallest)
    return {
        "backbone": model.id,
        "method": spec.id,
        "preset": preset,
        "config": config.to_dict(),
        "labels": labels,
        "support": support,
        "precision": needed.precision,
        "device": device,
        "trainable_parameters": needed.trainable_parameters,
        "total_parameters": needed.total_parameters,
        "memory": dict(needed.parts),
        "total_bytes": needed.total_bytes,
        "memory_bytes": needed.memory_bytes,
        "steps": needed.steps,
        "seconds": dict(needed.seconds_by_part),
        "fits": room,
        "largest_batch": largest,
    }
