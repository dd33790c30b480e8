"""The shorter contract of PEFT's tuners, which share one class: each row is a method of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.errors import BadConfig
from engine.methods.peft_row import divisor
from engine.methods.peft_table import ROWS
from engine.methods.peft_tuners import wavelet_update
from engine.runs import store
from engine.tuning import loop, registry
from engine.tuning.losses import classification
from engine.tuning.predict import predict
from tests.contract.test_contract import built, finished


@pytest.mark.parametrize("method", ROWS)
def test_the_shorter_contract(method, task_images, tiny):
    """Start equals zero-shot, the loss falls, the count is exact, nothing but the declared parameters changes."""
    rate = ROWS[method].lr
    run, setting, tuner = built(task_images, method, tiny, lr=rate)
    everything = range(len(task_images))
    logits = predict(tuner, run.store, everything)
    baseline = tiny.logits(run.store.features(), setting.single)
    same = run.method.starts_at == "zero_shot"
    torch.testing.assert_close(logits, baseline, atol=1e-4 if same else 0.1, rtol=1e-4)
    trained = tuner.trained()
    assert run.method.count(tiny.shape, run.config, 3, 12) == sum(p.numel() for p in trained.values())
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    fixed = {name: p.detach().clone() for name, p in tuner.named_parameters() if name not in trained}
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)

    def loss() -> float:
        with torch.no_grad():
            return classification(tuner.eval()(inputs), setting.targets).item()

    first = loss()
    list(loop.fit(tuner, inputs[None], setting.targets, run.config, 0))
    assert loss() < first - 1e-3
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    assert all(torch.equal(fixed[name], p) for name, p in tuner.named_parameters() if name in fixed)


@pytest.mark.parametrize("method", ROWS)
def test_saved_and_loaded_gives_equal_logits(method, task_images, tiny, tmp_path):
    run, _, _ = built(task_images, method, tiny, epochs=12 if method == "adalora" else 2)
    _, outcome = finished(run)
    assert outcome.result.cost.trainable_parameters == run.forecast().trainable_parameters
    store.save(outcome, tmp_path)
    adapter = store.load(tmp_path, tiny)
    everything = range(len(task_images))
    wanted = predict(outcome.tuner, run.store, everything)
    assert torch.equal(wanted, predict(adapter.tuner, run.store, everything))
    assert (tmp_path / "adapter_config.json").is_file()


@pytest.mark.parametrize("method", ROWS)
def test_peft_alone_loads_what_was_saved(method, task_images, tiny, tmp_path):
    from peft import PeftModel

    run, _, _ = built(task_images, method, tiny, epochs=2)
    _, outcome = finished(run)
    store.save(outcome, tmp_path)
    loaded = PeftModel.from_pretrained(tiny.twin().model, str(tmp_path)).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = outcome.tuner.tuned.encode_image(pixels)
        found = tiny.replace_model(loaded.base_model.model).encode_image(pixels)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [row.id for row in ROWS.values() if row.keeps])
def test_what_was_taken_from_the_weights_is_read_back(method, task_images, tiny, tmp_path):
    """A machine that takes other signs or another order from the same weights still loads the same adapter."""
    run, _, _ = built(task_images, method, tiny, epochs=2)
    _, outcome = finished(run)
    store.save(outcome, tmp_path)
    kept = outcome.tuner.saved().keys() - outcome.tuner.trained().keys()
    assert kept
    elsewhere = store.load(tmp_path, tiny).tuner
    for name in kept:
        elsewhere.get_buffer(name).neg_()
    store.fill_in(elsewhere, dict(outcome.tuner.saved()), method)
    everything = range(len(task_images))
    assert torch.equal(predict(outcome.tuner, run.store, everything), predict(elsewhere, run.store, everything))


@pytest.mark.parametrize("sizes", [(12, 8), (7, 6), (6, 5)])
def test_wavelets_are_those_of_peft(sizes):
    import peft
    from peft.tuners.waveft.layer import WaveFTLayer

    model = peft.get_peft_model(
        nn.ModuleDict({"a": nn.Linear(*sizes)}), peft.WaveFTConfig(n_frequency=20, target_modules=["a"])
    )
    layer = next(module for module in model.modules() if isinstance(module, WaveFTLayer))
    nn.init.normal_(layer.waveft_spectrum["default"])
    assert torch.equal(wavelet_update(layer, "default"), layer.get_delta_weight("default"))


def test_osf_stays_orthogonal_to_the_strong_directions(task_images, tiny):
    run, setting, tuner = built(task_images, "osf", tiny, kept=0.5)
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
    list(loop.fit(tuner, inputs[None], setting.targets, run.config, 0))
    loss, _ = tuner.objective(inputs, setting.targets)
    loss.backward()
    name = tiny.linear_names("vision", ["q"])[0]
    strong = torch.linalg.svd(tiny.model.get_submodule(name).weight).U[:, :24]  # of 48 directions
    gradient = tuner.tuned.model.get_submodule(name).osf_svd_params["default"]["U_low"].grad
    assert gradient.norm() > 0
    torch.testing.assert_close(strong.T @ gradient, torch.zeros(24, 24), atol=1e-5 * float(gradient.norm()), rtol=0)


def test_adalora_takes_ranks_away(task_images, tiny):
    run, setting, tuner = built(task_images, "adalora", tiny, epochs=20, r=6, target_r=2)
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
    list(loop.fit(tuner, inputs[None], setting.targets, run.config, 0))
    ranks = [p for name, p in tuner.trained().items() if "lora_E" in name]
    assert sum(int(p.count_nonzero()) for p in ranks) == 2 * len(ranks)
    with torch.no_grad():
        logits = tuner(inputs)
    loss, _ = tuner.objective(inputs, setting.targets)
    assert loss > classification(logits, setting.targets)  # the factors' distance to orthogonal ones


@pytest.mark.parametrize("method", ROWS)
def test_settings_for_other_layers(method, tiny):
    """MLP layers of one tower's last block; block sizes follow from what divides the widths."""
    spec = registry.get(method)
    config = spec.configure(settings={"targets": "out,fc1,fc2", "towers": "vision", "last_blocks": 1})
    assert registry.obstacle(spec, tiny, config) is None
    assert 0 < spec.count(tiny.shape, config, 3, 12) < 3 * 48 * 96 + 256 * 3 * 96
    with pytest.raises(BadConfig, match="targets"):
        spec.configure(settings={"targets": "z"})


def test_divisors():
    assert divisor(64, [192, 160]) == 32
    assert divisor(64, [768, 512]) == 64
    assert divisor(5, [48, 32]) == 4
