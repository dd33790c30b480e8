"""Equations of the training-free and closed-form heads against a few independent lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize, one_hot

from engine.backbones.base import FEATURES, POOLED
from engine.methods import ape, gda, lp_plus_plus
from engine.metrics import leaving
from engine.tuning import blend, loop, registry
from engine.tuning.tuner import TunerContext
from engine.types import Label

LABELS = (Label("cat", "cat"), Label("fire truck", "fire truck"), Label("x", "x"))


def setting_of(backbone, shots: int = 4, spread: float = 0.3, useful_text: bool = False) -> TunerContext:
    """Three clusters of images, with texts that know them or not."""
    torch.manual_seed(3)
    centres = normalize(torch.randn(3, 24), dim=-1)
    targets = torch.arange(3).repeat(shots)
    support = normalize(centres[targets] + spread * torch.randn(len(targets), 24) / 24**0.5, dim=-1)
    text = centres if useful_text else normalize(torch.randn(3, 24), dim=-1)
    return TunerContext(backbone, LABELS, ("{}",), text, text, support, targets)


def build(method: str, setting: TunerContext, **settings):
    spec = registry.get(method)
    return spec.tuner()(spec.configure("budget", settings), setting).eval()


def test_gda_logits(tiny):
    setting = setting_of(tiny)
    x, y = setting.support.double().numpy(), setting.targets.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    covariance = np.cov((x - means[y]).T)  # its rows sum to zero, so numpy's centring changes nothing
    inverse = 24 * np.linalg.inv((len(x) - 1) * covariance + np.trace(covariance) * np.eye(24))
    weight, bias = means @ inverse, -np.einsum("kp,pq,kq->k", means, inverse, means) / 2
    f = normalize(torch.randn(5, 24), dim=-1)
    expected = tiny.logits(f, setting.ensemble) + 0.7 * torch.tensor(f.double().numpy() @ weight.T + bias).float()
    torch.testing.assert_close(build("gda", setting, alpha=0.7)(f), expected, atol=1e-3, rtol=1e-3)


def test_gda_is_the_log_posterior_of_gaussians(tiny):
    """Differences of f W^T + b between labels are those of half the squared Mahalanobis distance."""
    setting = setting_of(tiny)
    x, y = setting.support.double(), setting.targets
    weight, bias = gda.fit(x, y, 3)
    means = torch.stack([x[y == k].mean(0) for k in range(3)])
    scatter = (x - means[y]).T @ (x - means[y])
    inverse = 24 * torch.linalg.inv(scatter + scatter.trace() / (len(x) - 1) * torch.eye(24).double())
    f = normalize(torch.randn(6, 24), dim=-1).double()
    away = f[:, None] - means  # (6, 3, P)
    half = torch.einsum("nkp,pq,nkq->nk", away, inverse, away) / 2
    scores = f @ weight.T + bias
    torch.testing.assert_close(scores - scores[:, :1], half[:, :1] - half)


def test_gda_chooses_zero_shot_where_it_knows_the_labels_and_the_images_where_not(tiny):
    assert build("gda", setting_of(tiny, useful_text=True)).chosen["alpha"] == 0
    tuner = build("gda", setting := setting_of(tiny))
    assert tuner.chosen["alpha"] > 0
    right, zero = (
        (logits.argmax(1) == setting.targets).sum()
        for logits in (tuner(setting.support), tiny.logits(setting.support, setting.ensemble))
    )
    assert right > zero


def test_one_image_a_label_stays_at_zero_shot(tiny):
    setting = setting_of(tiny, shots=1)
    tuner = build("gda", setting)
    assert tuner.chosen == {"alpha": 0.0}
    torch.testing.assert_close(tuner(setting.support), tiny.logits(setting.support, setting.ensemble))
    assert leaving.sentence(tuner.chosen, 3, 3).key == "nothing_to_choose_by"


def test_a_label_without_images_never_wins_by_the_gaussians_alone(tiny):
    setting = setting_of(tiny, shots=8)
    kept = setting.targets < 2
    weight, bias = gda.fit(setting.support[kept], setting.targets[kept], 3)
    scores = setting.support @ weight.T + bias
    assert (scores[:, 2] < scores[:, :2].max(1).values).all()


@pytest.mark.parametrize("shots", [2, 3, 8])
def test_a_labels_only_image_is_never_left_out(shots):
    targets = torch.cat([torch.arange(3).repeat(shots), torch.tensor([3])])
    out = blend.deal_out(targets)
    assert out is not None and not out[-1].any() and out[:-1].any(1).all() and out.any(0).all()
    for fold in out.T:  # most images stay
        assert len(targets[~fold].unique()) == 4
    assert blend.deal_out(torch.arange(4)) is None


def test_the_smallest_within_one_standard_error():
    """20 images: the first candidate is three behind the best, the second one image behind, which is no evidence."""
    right = torch.ones(20, 1, 3)
    right[:3, 0, 0] = 0
    right[5, 0, 1] = 0
    everything = torch.ones(20, 1, dtype=torch.bool)
    assert blend.smallest_as_good(right, everything) == 1
    short = torch.tensor([1.0] * 3 + [0.0] * 17)
    assert short.mean() > short.std() / 20**0.5  # why the first is not enough
    assert blend.smallest_as_good(torch.ones(20, 1, 3), everything) == 0


def test_taskres_texts(tiny):
    setting = setting_of(tiny)
    tuner = build("taskres", setting, alpha=0.25)
    with torch.no_grad():
        tuner.residual.normal_()
    f = normalize(torch.randn(5, 24), dim=-1)
    expected = tiny.logits(f, normalize(setting.ensemble + 0.25 * tuner.residual, dim=-1))
    torch.testing.assert_close(tuner(f), expected)


def test_clap_holds_labels_that_zero_shot_knows(tiny):
    setting = setting_of(tiny)
    tuner = build("clap", setting)
    with torch.no_grad():
        tuner.weight.add_(torch.randn(3, 24))
    p = tiny.logits(setting.support, setting.ensemble).softmax(1)
    lambdas = [p[setting.targets == k, k].mean() for k in range(3)]
    penalty = sum(lam * (w - t).pow(2).sum() for lam, w, t in zip(lambdas, tuner.weight, setting.ensemble, strict=True))
    loss, logits = tuner.objective(setting.support, setting.targets)
    scores = tiny.logits(setting.support, normalize(tuner.weight, dim=-1))
    torch.testing.assert_close(logits, scores)
    torch.testing.assert_close(loss, cross_entropy(scores, setting.targets) + penalty / 3)


def test_clap_takes_a_label_without_images(tiny):
    setting = setting_of(tiny)
    kept = setting.targets < 2
    part = replace(setting, support=setting.support[kept], targets=setting.targets[kept])
    assert build("clap", part).lambdas[2] == 1


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_texts_are_samples_of_the_cross_modal_probe(tiny, share):
    setting = setting_of(tiny)
    tuner = build("cross_modal", setting, text_share=share)
    with torch.no_grad():
        tuner.weight.add_(torch.randn(3, 24))
    loss, _ = tuner.objective(setting.support, setting.targets)
    images = cross_entropy(tiny.logits(setting.support, tuner.weight), setting.targets)
    texts = torch.cat([setting.single, setting.ensemble])
    of_texts = cross_entropy(tiny.logits(texts, tuner.weight), torch.tensor([0, 1, 2, 0, 1, 2]))
    torch.testing.assert_close(loss, (1 - share) * images + share * of_texts)


def test_lp_plus_plus_logits_and_steps(tiny):
    """A step is the gradient over the bound of its block's curvature, which the true Hessian never exceeds."""
    setting = setting_of(tiny)
    tuner = build("lp_plus_plus", setting, epochs=1, lr=1)
    x, y, text = setting.support, setting.targets, setting.ensemble
    weight, alpha = tuner.weight.detach().clone(), tuner.alpha.detach().clone()
    torch.testing.assert_close(weight, torch.stack([x[y == k].mean(0) for k in range(3)]))

    def loss(weight, alpha):
        return cross_entropy(x @ weight.T + alpha * (x @ text.T), y)

    torch.testing.assert_close(tuner(x), x @ weight.T + alpha * (x @ text.T))
    of_weight, of_alpha = torch.func.grad(loss, (0, 1))(weight, alpha)
    in_weight, in_alpha = lp_plus_plus.bounds(x, text)
    list(loop.fit(tuner, x[None], y, tuner.config, 0))
    torch.testing.assert_close(tuner.weight.detach(), weight - of_weight / in_weight)
    torch.testing.assert_close(tuner.alpha.detach(), alpha - of_alpha / in_alpha)
    hessian = torch.func.hessian(lambda w: loss(w.view(3, 24), alpha))(weight.flatten())
    assert torch.linalg.eigvalsh(hessian).max() <= in_weight * 1.0001
    scaled = torch.func.hessian(lambda a: loss(weight, a))(alpha) / (in_alpha[:, None] * in_alpha).sqrt()
    assert torch.linalg.eigvalsh(scaled).max() <= 1.0001


def test_ape_logits_and_channels(tiny):
    setting = setting_of(tiny)
    tuner = build("ape", setting, channels=7, alpha=1.5, beta=4, gamma=0.3)
    text = setting.ensemble
    criterion = torch.tensor(
        [
            0.7 * sum(text[i, p] * text[j, p] for i in range(3) for j in range(3) if i != j) / 6
            - 0.3 * ((text[:, p] - text[:, p].mean()) ** 2).mean()
            for p in range(24)
        ]
    )
    kept = criterion.argsort()[:7]
    assert set(ape.refine(text, 7, 0.7).tolist()) == set(kept.tolist())
    f = normalize(torch.randn(5, 24), dim=-1)
    keys, images, texts = (normalize(t[:, kept], dim=-1) for t in (setting.support, f, text))
    p = (tiny.scale * keys @ texts.T).softmax(1)
    divergence = -p[torch.arange(12), setting.targets].log()  # of the one-hot label from p
    values = one_hot(setting.targets, 3) * torch.exp(-0.3 * divergence)[:, None]
    expected = tiny.logits(f, text) + 1.5 * torch.exp(-4 * (1 - images @ keys.T)) @ values
    torch.testing.assert_close(tuner(f), expected)


@pytest.mark.parametrize("method", ["linear_probe", "prolip", "clip_adapter", "tip_adapter", "taskres", "ape"])
def test_a_blended_head_is_the_mix_of_its_logits_and_zero_shots(method, tiny):
    setting = setting_of(tiny)
    tuner = build(method, setting)
    x = torch.randn(5, 48) if tuner.stage == POOLED else normalize(torch.randn(5, 24), dim=-1)
    f = tiny.vision.advance(x, tuner.stage, FEATURES)
    with torch.no_grad():
        for p in tuner.trained().values():
            p.add_(0.1 * torch.randn_like(p))
        alone, zero = tuner(x), tiny.logits(f, setting.ensemble)
        tuner.chosen["blend"] = 0.3
        torch.testing.assert_close(tuner(x), 0.3 * alone + 0.7 * zero)
        tuner.chosen["blend"] = 0.0
        torch.testing.assert_close(tuner(x), zero)


def test_the_largest_share_within_half_a_standard_error():
    """Four images twice each: the last share is as good as the best but for chance, unless it is worse throughout."""
    image = torch.arange(4).repeat(2)
    noise = torch.tensor([0.4, -0.4, 0.4, -0.3]).repeat(2)
    loss = torch.stack([torch.ones(8), torch.zeros(8), noise, torch.full((8,), 0.2)], dim=1)
    assert blend.largest_as_good(loss, image) == 2
    assert blend.largest_as_good(loss[:, :2], image) == 1
    assert blend.largest_as_good(loss[:, [1, 0]], image) == 0


def test_shares_are_judged_at_their_best_temperature():
    torch.manual_seed(0)
    zero, targets = torch.randn(40, 3), torch.arange(40) % 3
    tuned = zero + 2 * one_hot(targets, 3)
    plain, hot = (blend.losses(zero, scale * tuned, targets)[:, -1].mean() for scale in (1.0, 2.0))
    torch.testing.assert_close(plain, hot, atol=0.02, rtol=0)
    for share, found in zip(blend.SHARES, blend.losses(zero, tuned, targets).T, strict=True):
        mixed = (1 - share) * zero + share * tuned
        lowest = min(cross_entropy(t * mixed, targets) for t in blend.TEMPERATURES)
        torch.testing.assert_close(found.mean(), lowest)


@pytest.mark.parametrize("method", ["linear_probe", "cross_modal"])
def test_the_share_follows_what_zero_shot_knows(method, tiny):
    """All of zero-shot where the images are noise beside texts that know them; all of the head where texts do not."""
    shares = []
    for useful in (True, False):
        setting = setting_of(tiny, shots=6, spread=2.0 if useful else 0.3, useful_text=useful)
        if useful:
            noise = normalize(torch.randn(18, 24), dim=-1)
            setting = replace(setting, support=normalize(0.4 * setting.ensemble[setting.targets] + noise, dim=-1))
        tuner = build(method, setting)
        config = tuner.config
        list(loop.fit(tuner, setting.support[None], setting.targets, config, 0))
        tuner = tuner.eval().finished()
        progress = list(blend.choose(tuner, config, setting, setting.support, 0))
        assert progress[-1] == (len(progress), len(progress))
        shares.append(tuner.chosen["blend"])
    assert shares[0] < 0.6 < shares[1]


def test_one_image_a_label_takes_half(tiny):
    setting = setting_of(tiny, shots=1)
    tuner = build("tip_adapter", setting)
    assert not list(blend.choose(tuner, tuner.config, setting, setting.support, 0))
    assert tuner.chosen["blend"] == 0.5
