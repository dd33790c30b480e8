"""Forecasts: what is followed without being computed equals what is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import psutil
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from engine.backbones import catalog, entries
from engine.backbones.base import FEATURES, PIXELS, POOLED
from engine.backbones.skeleton import CONFIGS, meta_backbone
from engine.costs import forecast, op_counter, trace
from engine.data import episode
from engine.errors import BackboneUnavailable, OutOfMemory, Untraceable
from engine.runs.run import Run
from engine.tuning import adapter_files, registry
from engine.tuning.sources import NamedSources
from engine.tuning.tuner import TunerContext
from engine.types import Label, RunSpec
from tests.tiny import make_tiny

METHODS = list(registry.methods())
TRAINED = [spec for spec in METHODS if spec.tuner().trains]
NAMES = [f"class {k}" for k in range(10)]
MIB = 1 << 20


def configured(spec, **settings):
    """The budget preset with those of the settings that the method has."""
    names = spec.config.__dataclass_fields__
    return spec.configure(settings={name: value for name, value in settings.items() if name in names})


def followed(spec, backbone, support=40, **settings):
    """The method's step on a backbone."""
    return trace.trace_step(spec, configured(spec, **settings), backbone, NAMES, support)


def real_tuner(spec, backbone, support, config):
    """The method on the real backbone."""
    text = torch.nn.functional.normalize(torch.randn(len(NAMES), backbone.shape.embedding), dim=-1)
    images = torch.nn.functional.normalize(torch.randn(support, backbone.shape.embedding), dim=-1)
    setting = TunerContext(
        backbone,
        tuple(Label(name, name) for name in NAMES),
        ("a photo of a {}.",),
        text,
        text,
        images,
        torch.arange(support) % len(NAMES),
    )
    return spec.tuner()(config, setting)


@pytest.fixture(scope="module")
def deep():
    """A tiny backbone whose vision tower is deep enough for temporaries to be few beside what is kept."""
    return make_tiny(num_hidden_layers=8)


@pytest.mark.parametrize("spec", [s for s in TRAINED if s.recomputes.towers], ids=lambda spec: spec.id)
def test_activations_equal_the_tensors_that_a_real_step_saves(spec, deep):
    support, config = 32, configured(spec, batch_size=32)
    step = followed(spec, deep, support, batch_size=32)
    tuner = real_tuner(spec, deep, support, config).train()
    x = torch.randn(32, *row_shape(tuner, deep))
    frozen = [*tuner.buffers(), *deep.model.parameters()]
    there = {t.untyped_storage().data_ptr() for t in [*tuner.parameters(), *frozen, x]}
    saved: dict[int, int] = {}
    held = []

    def pack(tensor):
        held.append(tensor)  # alive, so that no address is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            saved[storage.data_ptr()] = op_counter.rounded(storage.nbytes())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = tuner.objective(x, torch.zeros(32, dtype=torch.long))
    kept = sum(saved.values())
    assert loss.requires_grad
    assert step.train.kept == pytest.approx(kept, rel=0.05, abs=8 * op_counter.BLOCK)
    # The peak holds besides: gradients and optimizer state (counted apart) and the temporaries of one block.
    beside = step.train.peak - step.optimizer - kept
    assert beside >= -0.05 * kept
    if spec.id != "conditional_prompt":  # which keeps almost nothing and computes its texts again, one image at a time
        assert beside <= step.gradients + 0.25 * kept


@pytest.mark.parametrize("spec", TRAINED, ids=lambda spec: spec.id)
def test_fake_and_real_tensors_live_and_die_alike(spec, tiny):
    support, config = 32, configured(spec, batch_size=16)
    tuner = real_tuner(spec, tiny, support, config)
    x = torch.randn(support if tuner.full_batch else 16, *row_shape(tuner, tiny))
    known = [*tuner.parameters(), *tuner.buffers(), *tiny.model.parameters()]
    real, gradients, state = trace.gradient_step(tuner, x, config, known, "cpu", steps=2)
    fake = followed(spec, tiny, support, batch_size=16)
    assert fake.train.peak == pytest.approx(real.peak, rel=0.03)
    assert fake.train.flops == pytest.approx(real.flops / 2, rel=0.005 if spec.id == "osf" else 0)
    assert fake.train.operations == pytest.approx(real.operations / 2, rel=0.15)  # the first makes the state, too
    assert fake.optimizer == state
    if spec.id != "osf":  # whose hooks put projected gradients in the place of those that were counted
        assert fake.gradients == gradients


def row_shape(tuner, backbone):
    """Shape of one image's value at the tuner's stage."""
    shape = backbone.shape
    if tuner.stage == PIXELS:
        return 3, shape.image_size, shape.image_size
    if tuner.stage == POOLED:
        return (shape.vision_pooled,)
    return (shape.embedding,) if tuner.stage == FEATURES else (shape.vision_tokens, shape.vision_width)


@pytest.mark.parametrize("spec", TRAINED, ids=lambda spec: spec.id)
def test_one_step_says_what_two_would(spec, tiny):
    config = configured(spec, batch_size=16)
    one, two = (trace.trace_step(spec, config, tiny, NAMES, 40, steps=n) for n in (1, 2))
    assert one.train.peak == pytest.approx(two.train.peak, rel=0.01)
    assert (one.gradients, one.optimizer) == (two.gradients, two.optimizer)
    assert two.train.flops == 2 * one.train.flops


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.id)
def test_gradients_are_as_large_as_what_is_declared(spec, tiny):
    step, declared = followed(spec, tiny), spec.count(tiny.shape, configured(spec), len(NAMES), 40)
    several = 512 * 400  # every storage is rounded up
    assert 4 * declared <= step.gradients <= 4 * declared + several
    assert forecast.forecast(spec, configured(spec), tiny, NAMES, 40, 80).trainable_parameters == declared
    assert (step.train.operations > 0) == spec.tuner().trains


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.id)
def test_following_leaves_the_backbone_alone(spec, tiny):
    before = {name: (p, p._version, p.requires_grad) for name, p in tiny.model.named_parameters()}
    sums = {name: p.detach().double().sum().item() for name, p in tiny.model.named_parameters()}
    followed(spec, tiny, support=33)
    assert list(dict(tiny.model.named_parameters())) == list(before)
    for name, parameter in tiny.model.named_parameters():
        same, version, gradient = before[name]
        assert parameter is same
        assert (parameter._version, parameter.requires_grad) == (version, gradient)
        assert parameter.grad is None
        assert parameter.detach().double().sum().item() == sums[name]


def test_following_copies_no_weights(pocket):
    from engine.backbones.hf_clip import HFClip

    config = pocket.model.config.__class__(
        text_config={"vocab_size": 400_000, "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4},
        vision_config={
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
    )
    from transformers import CLIPModel

    model = HFClip(CLIPModel(config), pocket.tokenizer, pocket.processor, "wide", "0")  # 410 MB of embeddings
    followed(registry.get("lora"), pocket)  # what is imported once
    before = psutil.Process().memory_info().rss
    step = followed(registry.get("full"), model)
    assert step.weights > 2 * 400_000_000
    assert psutil.Process().memory_info().rss - before < 100_000_000


@pytest.mark.parametrize("spec", [s for s in TRAINED if s.recomputes.towers], ids=lambda spec: spec.id)
def test_memory_grows_with_batch_and_labels(spec, tiny):
    def total(labels, batch):
        config = configured(spec, batch_size=batch)
        return forecast.forecast(spec, config, tiny, labels, 64, 128, device="cpu").total_bytes

    small = total(3, 8)
    assert total(30, 8) > small
    if "vision" in spec.recomputes.towers:
        assert total(3, 64) > small


def test_paper_and_budget_share_a_step_that_is_the_same(tiny):
    spec = registry.get("visual_prompt")
    first = trace.trace_step(spec, spec.configure(), tiny, NAMES, 40)
    assert (
        trace.trace_step(spec, spec.configure(settings={"epochs": 7, "lr": 0.5, "views": 9}), tiny, NAMES, 40) is first
    )
    assert trace.trace_step(spec, spec.configure(settings={"tokens": 9}), tiny, NAMES, 40) is not first


def test_full_fine_tuning_is_forecast_dearest(pocket):
    costs = {spec.id: forecast.forecast(spec, spec.configure(), pocket, 10, 80, 500) for spec in registry.methods()}
    assert max(costs, key=lambda m: costs[m].trainable_parameters) == "full"
    assert max(costs, key=lambda m: costs[m].total_bytes) == "full"
    assert costs["full"].total_bytes > costs["lora"].total_bytes > costs["linear_probe"].total_bytes
    assert costs["lora"].seconds > costs["linear_probe"].seconds > 0
    for cost in costs.values():
        assert list(cost.parts) == list(forecast.PARTS)
        assert cost.total_bytes == sum(cost.parts.values())
        assert cost.seconds == pytest.approx(sum(cost.seconds_by_part.values()))


def test_a_teachers_backbone_is_counted(tiny):
    """Its weights, which stay loaded, its moment of encoding, and the seconds of showing it every view."""
    spec, large = registry.get("distill"), "openai/clip-vit-base-patch32"

    def needs(**settings):
        return forecast.forecast(spec, spec.configure(settings=settings), tiny, NAMES, 40, 80, device="cpu")

    alone, taught = needs(teacher="zero_shot"), needs(teacher=large)
    weights = taught.parts["weights"] - alone.parts["weights"]
    assert 0 <= weights - 4 * 151_277_313 < 200_000  # buffers, and storages rounded up
    assert taught.parts["activations"] > alone.parts["activations"]
    assert taught.memory_bytes - alone.memory_bytes > weights
    one, four = (
        needs(teacher=large, views=views).seconds - needs(teacher="zero_shot", views=views).seconds for views in (1, 4)
    )
    assert 3 * one < four < 5 * one
    own, unknown = needs(teacher=tiny.id), needs(teacher="no/such-backbone")
    assert own.parts == unknown.parts == alone.parts


def test_the_backbone_of_an_adapter_that_teaches(tmp_path):
    config = registry.get("distill").configure(settings={"teacher": "mine"})
    recipe = {
        name: kind(["x"]) if kind is list else kind("x") if kind is str else kind()
        for name, kind in adapter_files.FIELDS.items()
    }
    recipe |= {
        "schema": adapter_files.SCHEMA,
        "backbone": "openai/clip-vit-base-patch16",
        "seed": 1,
        "templates": ["{}"],
        "labels": [{"name": "a", "prompt": "a"}],
    }
    (tmp_path / adapter_files.RECIPE).write_text(json.dumps(recipe))
    known = NamedSources(adapters={"mine": tmp_path}, files=False)
    assert config.extra_backbones(known) == ("openai/clip-vit-base-patch16",)
    assert config.extra_backbones(NamedSources(files=False)) == ("mine",)  # then it can only be a backbone
    (tmp_path / adapter_files.RECIPE).write_text("{")
    assert config.extra_backbones(known) == ()


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.id)
def test_seconds_grow_with_the_work(spec, tiny):
    config = spec.configure()
    small = forecast.forecast(spec, config, tiny, 3, 12, 30)
    large = forecast.forecast(spec, config, tiny, 30, 480, 600, folds=5)
    cached = forecast.forecast(spec, config, tiny, 3, 12, 30, cached_images=30)
    assert large.seconds > small.seconds > cached.seconds > 0
    assert small.total_parameters == tiny.total_parameters()
    assert (small.steps > 0) == spec.tuner().trains


def test_vit_b32_needs_what_was_measured_on_its_real_sizes():
    backbone, needed = meta_backbone("openai/clip-vit-base-patch32"), {}
    for method in ("lora", "full"):
        spec = registry.get(method)
        step = followed(spec, backbone, 80, batch_size=32)
        needed[method] = (step.weights + step.train.peak) / MIB
        if method == "full":
            needed[method] -= step.backbone / MIB  # the original stays beside the tuned copy; not in that figure
    assert needed["lora"] == pytest.approx(1508, rel=0.1)
    assert needed["full"] == pytest.approx(3175, rel=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_needs_fewer_activations(precision, tiny):
    spec = registry.get("lora")
    full, half = (
        forecast.forecast(spec, spec.configure(), tiny, 10, 80, 160, precision=p) for p in ("fp32", precision)
    )
    assert half.parts["activations"] < full.parts["activations"]
    with pytest.raises(ValueError, match="int3"):
        forecast.forecast(spec, spec.configure(), tiny, 10, 80, 160, precision="int3")


def test_on_cuda_the_libraries_take_workspace_too(tiny):
    spec = registry.get("full")
    here, there = (forecast.forecast(spec, spec.configure(), tiny, 3, 12, 30, device=d) for d in ("cpu", "cuda"))
    assert here.parts["workspace"] == 0
    assert there.parts["workspace"] in (forecast.CUBLAS, forecast.CUBLAS_HOPPER)
    assert there.memory_bytes == there.total_bytes
    assert here.memory_bytes > here.total_bytes  # the whole process


def test_outlines_have_the_catalogues_sizes():
    by_id = {entry.id: entry for entry in entries.ENTRIES}
    for id in set(CONFIGS) & set(by_id):
        shape = meta_backbone(id).shape
        assert round(shape.parameters / 1e6, 1) == by_id[id].parameters
        assert shape.image_size == by_id[id].image_size


def test_an_outline_of_a_folder_reads_its_config(tmp_path):
    assert meta_backbone(str(entries.POCKET_FOLDER)).shape == catalog.load("pocket", "cpu").shape
    with pytest.raises(BackboneUnavailable, match=r"neither config\.json"):
        meta_backbone(str(tmp_path))


def needing(size):
    """A forecast of this many bytes."""
    return forecast.Forecast(1, 1, size, 1.0, 1, {"weights": size // 2, "activations": size - size // 2}, {}, "fp32")


def test_fits_compares_with_every_place():
    assert all(forecast.fits(needing(6 << 30)).values())
    middle = forecast.fits(needing(20 << 30))
    assert middle == {
        "8 GB": False,
        "16 GB": False,
        "24 GB": True,
        "48 GB": True,
        "80 GB": True,
        "ZeroGPU": True,
        "CPU Basic": False,
    }
    assert forecast.fits(needing(8 << 30))["8 GB"] is False  # the driver takes some of it
    assert not any(forecast.fits(needing(100 << 30)).values())


@pytest.mark.parametrize(
    ("room", "batch", "needed", "smallest", "largest"),
    [
        (100, 32, 90, 10, 32),
        (100, 33, 330, 10, 8),
        (100, 32, 320, 10, 8),
        (9, 32, 320, 10, None),
        (10, 1, 10, 10, 1),
        (9, 1, 10, 10, None),
        (10, 64, 640, 10, 1),
    ],
)
def test_largest_batch_that_fits(room, batch, needed, smallest, largest):
    assert forecast.largest_that_fits(room, batch, needed, smallest) == largest


def test_a_line_between_batch_sizes_is_no_promise_too_much(tiny):
    spec = registry.get("lora")

    def needed(batch):
        return forecast.forecast(spec, replace(spec.configure(), batch_size=batch), tiny, 10, 64, 64).total_bytes

    largest, smallest = needed(64), needed(1)
    for batch in (2, 8, 32):
        line = smallest + (batch - 1) / 63 * (largest - smallest)
        assert needed(batch) <= line + 512 * 600  # every storage is rounded up
        assert needed(batch) == pytest.approx(line, rel=0.15)


@pytest.mark.parametrize(("share", "key"), [(2.0, None), (0.6, "too_large_batch"), (0.01, "too_large")])
def test_what_does_not_fit_here_is_refused_with_what_would(share, key, tiny, task_images, monkeypatch):
    labels = tuple(Label(name, name) for name in ("red", "green", "blue"))
    chosen = episode.build(labels, [image.label for image in task_images], 8)
    run = Run(RunSpec("tiny", "visual_prompt", chosen), task_images, tiny)
    monkeypatch.setattr(forecast, "used_bytes", lambda device: 0)
    monkeypatch.setattr(forecast, "expected", lambda parts, *rest: sum(parts.values()))
    smallest, needed = run.forecast(1).memory_bytes, run.forecast().memory_bytes
    room = needed * share if share > 1 else smallest + share * (needed - smallest) if share > 0.1 else smallest * share
    monkeypatch.setattr(forecast, "free_bytes", lambda device: int(room))
    if key is None:
        run._check_room(run.forecast())
        return
    with pytest.raises(OutOfMemory) as caught:
        next(iter(run.run()))
    assert caught.value.key == key
    if key == "too_large_batch":
        batch = caught.value.values["batch"]
        assert run.forecast(batch).memory_bytes <= room < needed


def test_a_step_that_reads_a_value_has_no_forecast(value_reader, tiny):
    with pytest.raises(Untraceable, match="Value reader needs is unknown"):
        forecast.forecast(value_reader, value_reader.configure(), tiny, 3, 12, 30)
    known = forecast.forecast(registry.get("linear_probe"), value_reader.configure(), tiny, 3, 12, 30)
    assert known.total_bytes > 0  # nothing is left behind that a later forecast stumbles over


def test_room_is_checked_without_the_smallest_batch(monkeypatch):
    monkeypatch.setattr(forecast, "used_bytes", lambda device: 0)
    monkeypatch.setattr(forecast, "free_bytes", lambda device: 1 << 20)

    def of_batch(size: int):
        raise Untraceable("forecast_unknown", method="x", reason="y")

    with pytest.raises(OutOfMemory) as caught:
        forecast.check_room(needing(1 << 30), of_batch, 32, ("x", "tiny"), "cpu")
    assert caught.value.key == "too_large"


def test_a_run_goes_on_without_a_forecast(value_reader, tiny, task_images):
    labels = tuple(Label(name, name) for name in ("red", "green", "blue"))
    built = episode.build(labels, [image.label for image in task_images], 4, 0)
    spec = RunSpec("tiny", value_reader.id, built, settings=(("epochs", 5),))
    *_, outcome = Run(spec, task_images, tiny).run()
    assert outcome.result.cost.forecast_memory_bytes is None and outcome.result.cost.forecast_seconds is None
    found = outcome.result.to_json()
    assert found["forecast_parts"] == {} and found["trainable_parameters"] == 3 * 25 and 1 < len(found["curve"]) <= 5
