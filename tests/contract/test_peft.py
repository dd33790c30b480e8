"""The shorter contract of PEFT's tuners, which share one class: each row is a method of its own."""

from __future__ import annotations

import pytest
import torch
from test_contract import built, finished

from engine import registry, store, train
from engine.errors import BadConfig
from engine.losses import classification
from engine.methods.peft_table import ROWS, divisor


@pytest.mark.parametrize("method", ROWS)
def test_the_shorter_contract(method, task_images, tiny):
    """Start equals zero-shot, the loss falls, the count is exact, nothing but the declared parameters changes."""
    rate = ROWS[method].lr
    run, setting, tuner = built(task_images, method, tiny, lr=rate)
    everything = range(len(task_images))
    logits = train.predict(tuner, run.store, everything)
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
    list(train.fit(tuner, inputs[None], setting.targets, run.config, 0))
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
    wanted = train.predict(outcome.tuner, run.store, everything)
    assert torch.equal(wanted, train.predict(adapter.tuner, run.store, everything))
    assert (tmp_path / "adapter_config.json").is_file()


def test_dora_loads_in_peft_alone(task_images, tiny, tmp_path):
    from peft import PeftModel

    run, _, _ = built(task_images, "dora", tiny, epochs=2)
    _, outcome = finished(run)
    store.save(outcome, tmp_path)
    loaded = PeftModel.from_pretrained(tiny.twin().model, str(tmp_path)).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = outcome.tuner.tuned.encode_image(pixels)
        found = tiny.replace_model(loaded.base_model.model).encode_image(pixels)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_adalora_takes_ranks_away(task_images, tiny):
    run, setting, tuner = built(task_images, "adalora", tiny, epochs=20, r=6, target_r=2)
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
    list(train.fit(tuner, inputs[None], setting.targets, run.config, 0))
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
    assert registry.why_not(spec, tiny, config) is None
    assert 0 < spec.count(tiny.shape, config, 3, 12) < 3 * 48 * 96 + 256 * 3 * 96
    with pytest.raises(BadConfig, match="targets"):
        spec.configure(settings={"targets": "z"})


def test_divisors():
    assert divisor(64, [192, 160]) == 32
    assert divisor(64, [768, 512]) == 64
    assert divisor(5, [48, 32]) == 4
