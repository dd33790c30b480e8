"""Each loss against a few independent lines, and what sets it apart from the obvious wrong one."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from engine.costs.trace import trace_step
from engine.errors import BadConfig
from engine.tuning import registry
from engine.tuning.losses import LOSSES, classification, contrastive, sigmoid, starting_bias
from engine.tuning.tuner import TowerConfig, TunerContext
from engine.types import Label

LABELS = (Label("cat", "cat"), Label("dog", "dog"), Label("x", "x"), Label("y", "y"))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(6, 4)`` and classes, of which 0 and 2 come more than once and 3 not at all."""
    torch.manual_seed(0)
    return 3 * torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 2, 0, 1, 2, 0])


def setting_on(backbone, shots: int = 3) -> TunerContext:
    torch.manual_seed(1)
    size = backbone.shape.embedding
    text, support = (normalize(torch.randn(n, size), dim=-1) for n in (4, 4 * shots))
    return TunerContext(backbone, LABELS, ("a photo of a {}.",), text, text, support, torch.arange(4).repeat(shots))


def by_loops(logits: np.ndarray, classes: list[int]) -> float:
    """InfoNCE over pairs (image i, text of image j), both ways, positives beside the negatives only."""

    def one_way(pairs: np.ndarray) -> float:
        rows = []
        for i, own in enumerate(classes):
            negatives = sum(exp(pairs[i, j]) for j, other in enumerate(classes) if other != own)
            positives = [j for j, other in enumerate(classes) if other == own]
            rows.append(np.mean([-log(exp(pairs[i, j]) / (exp(pairs[i, j]) + negatives)) for j in positives]))
        return float(np.mean(rows))

    pairs = np.array([[logits[i, classes[j]] for j in range(len(classes))] for i in range(len(classes))])
    return (one_way(pairs) + one_way(pairs.T)) / 2


def naive(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """CLIP's pseudocode as it stands: image i belongs to text i and to no other."""
    pairs, own = logits[:, targets], torch.arange(len(targets))
    return (cross_entropy(pairs, own) + cross_entropy(pairs.T, own)) / 2


def test_classification(batch):
    logits, targets = batch
    rows = [-log(exp(row[k]) / sum(map(exp, row))) for row, k in zip(logits.tolist(), targets.tolist(), strict=True)]
    assert classification(logits, targets).item() == pytest.approx(np.mean(rows))


def test_contrastive_with_shared_texts(batch):
    logits, targets = batch
    assert contrastive(logits, targets).item() == pytest.approx(by_loops(logits.numpy(), targets.tolist()), rel=1e-5)


def test_contrastive_of_different_classes_is_clips_own_loss():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(4, 5), torch.tensor([3, 0, 4, 1])
    torch.testing.assert_close(contrastive(logits, targets), naive(logits, targets))


def test_labels_by_position_are_wrong_where_images_share_a_text():
    """They cannot reach zero, and they push an image away from its own text if another of its class is farther."""
    targets = torch.tensor([0, 0, 1, 1])
    perfect = torch.tensor([[30.0, -30.0], [30.0, -30.0], [-30.0, 30.0], [-30.0, 30.0]])
    assert naive(perfect, targets).item() == pytest.approx(log(2))
    assert contrastive(perfect, targets).item() == pytest.approx(0, abs=1e-6)
    pushed = {}
    for loss in (naive, contrastive):
        logits = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 3.0]], requires_grad=True)
        loss(logits, targets).backward()
        pushed[loss] = logits.grad[0, 0].item()  # the first image is nearer to its text than its sister
    assert pushed[naive] > 0.01
    assert pushed[contrastive] < 0


def test_a_batch_without_negatives_teaches_nothing():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = contrastive(logits, torch.tensor([2, 2, 2]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 4))


def test_sigmoid(batch):
    logits, targets = batch
    total = 0.0
    for row, own in zip(logits.tolist(), targets.tolist(), strict=True):
        for k, logit in enumerate(row):
            total -= log(1 / (1 + exp(-logit if k == own else logit)))
    assert sigmoid(logits, targets).item() == pytest.approx(total / len(logits), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, batch):
    logits, targets = batch
    loss, size = LOSSES[name], 1e-2
    logits.requires_grad_(True)
    loss(logits, targets).backward()
    for i, k in [(0, 0), (1, 1), (4, 2), (5, 3)]:
        step = torch.zeros_like(logits)
        step[i, k] = size
        with torch.no_grad():
            slope = (loss(logits + step, targets) - loss(logits - step, targets)) / (2 * size)
        assert logits.grad[i, k].item() == pytest.approx(slope.item(), abs=2e-4)


def test_half_precision_logits_are_summed_in_full():
    logits, targets = torch.tensor([[60.0, 59.0], [58.0, 60.0]]).bfloat16(), torch.tensor([0, 1])
    for name in ("contrastive", "sigmoid"):
        assert LOSSES[name](logits, targets) == LOSSES[name](logits.float(), targets)


def test_siglip_keeps_its_bias_and_others_start_at_the_share_of_positives(tiny, tmp_path):
    from tests.families import make_siglip

    f, targets = normalize(torch.randn(5, 24), dim=-1), torch.tensor([0, 1, 2, 3, 0])
    siglip = make_siglip(tmp_path)
    for backbone in (siglip, tiny):
        setting = setting_on(backbone)
        prompt = registry.get("prompt_tuning")
        tuner = prompt.tuner()(prompt.configure(settings={"loss": "sigmoid"}), setting)
        text = tuner.text_features().detach()
        if backbone is siglip:
            assert tuner.added_bias == 0
            logits = siglip.model.logit_scale.exp() * f @ text.T + siglip.model.logit_bias
        else:
            zero_shot = tiny.model.logit_scale.exp() * setting.support @ setting.ensemble.T
            assert (zero_shot + tuner.added_bias).mean().item() == pytest.approx(-log(3), abs=1e-5)
            logits = tiny.model.logit_scale.exp() * f @ text.T + tuner.added_bias
        z = torch.full((5, 4), -1.0).index_put((torch.arange(5), targets), torch.ones(5))
        expected = torch.log1p(torch.exp(-z * logits)).sum() / 5
        torch.testing.assert_close(tuner.objective(f, targets)[0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(tuner.objective(f, targets)[1], tuner(f))  # the bias is the loss's own


def test_starting_bias():
    assert starting_bias(torch.full((5, 10), 25.0)) == pytest.approx(-25 - log(9))
    assert starting_bias(torch.zeros(3, 1)) == 0


def test_one_image_has_nothing_to_be_told_apart_from():
    with pytest.raises(BadConfig, match=r"loss = contrastive and batch_size = 1"):
        registry.get("lora").configure(settings={"loss": "contrastive", "batch_size": 1})


def test_the_choice_is_offered_where_a_tower_is_trained():
    offered = {spec.id for spec in registry.methods() if issubclass(spec.config, TowerConfig)}
    towers = {spec.id for spec in registry.methods() if spec.family in ("weights", "visual prompt")}
    assert offered == towers - {"distill"} | {"prompt_tuning", "p_tuning", "prefix_tuning"}
    with pytest.raises(BadConfig, match="has no setting 'loss'"):
        registry.get("linear_probe").configure(settings={"loss": "sigmoid"})


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_with_each_loss_is_followed(loss, tiny):
    spec = registry.get("lora")
    config = spec.configure(settings={"loss": loss, "batch_size": 8})
    step = trace_step(spec, config, tiny, ["cat", "dog", "red square"], 12)
    assert step.train.peak > 0 and step.train.flops > 0
