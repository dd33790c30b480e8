"""L-BFGS: the convex head's right answer, found to tolerance with any number of labels, beside scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from torch.nn.functional import cross_entropy, normalize

from engine.methods import linear_probe, prolip
from engine.tuning import lbfgs, loop, registry
from engine.tuning.tuner import TunerContext
from engine.types import Label


def features(labels: int, shots: int, size: int, noise: float = 0.9, seed: int = 0):
    """Normalised features ``(N, P)`` around one direction a label and a common one, as CLIP's are; classes; directions
    that stand for texts, which know the labels only roughly."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(labels, size, generator=generator) + 2 * torch.randn(1, size, generator=generator)
    targets = torch.arange(labels).repeat(shots)
    x = normalize(centres[targets] + noise * torch.randn(len(targets), size, generator=generator), dim=-1)
    text = normalize(centres + 1.5 * torch.randn(labels, size, generator=generator), dim=-1)
    return x, targets, text


def tuned(backbone, x, targets, text, method: str = "linear_probe", stage=None, **settings):
    """The method, trained on features that stand for those of images."""
    spec = registry.get(method)
    config = spec.configure(settings=settings)
    labels = tuple(Label(f"{k}", f"{k}") for k in range(len(text)))
    context = TunerContext(backbone, labels, ("{}",), text, text, x, targets)
    tuner = spec.tuner()(config, context)

    class Store:
        def stage(self, *_):
            return stage

    list(tuner.prepare(Store(), range(len(x))))
    curve = list(loop.fit(tuner, (x if stage is None else stage)[None], targets, config, 0))
    return tuner.eval().finished(), curve


@pytest.mark.parametrize("labels", [5, 20, 100, 200])
def test_the_answer_is_scikit_learns(labels, tiny):
    x, targets, text = features(labels, 4, tiny.shape.embedding)
    strength = 1 / (10 * len(x))
    tuner, curve = tuned(tiny, x, targets, 0 * text, penalty=strength, init="text")
    model = LogisticRegression(C=10, max_iter=5000, tol=1e-8).fit(x.double().numpy(), targets.numpy())
    theirs = torch.from_numpy(model.coef_).float()

    def objective(weight, bias):
        return cross_entropy(x @ weight.T + bias, targets) + strength / 2 * weight.square().sum()

    best = objective(theirs, torch.from_numpy(model.intercept_).float()).item()
    assert tuner.converged and len(curve) < 300
    assert objective(tuner.weight, tuner.bias).item() == pytest.approx(best, abs=1e-4)
    assert curve[-1][2] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(("labels", "shots"), [(5, 8), (20, 8), (40, 4)])
def test_choosing_by_folds_is_no_worse_than_scikit_learns(labels, shots, tiny):
    ours, theirs = [], []
    for seed in range(3):
        x, targets, text = features(labels, shots + 20, tiny.shape.embedding, seed=seed)
        train = torch.arange(len(x)) < labels * shots
        tuner, _ = tuned(tiny, x[train], targets[train], text)
        model = LogisticRegressionCV(cv=min(5, shots), max_iter=1000).fit(x[train].numpy(), targets[train].numpy())
        ours.append((tuner(x[~train]).argmax(1) == targets[~train]).float().mean().item())
        theirs.append(model.score(x[~train].numpy(), targets[~train].numpy()))
    assert sum(ours) / 3 >= sum(theirs) / 3 - 0.005


def test_texts_that_know_the_labels_are_kept_and_others_are_not(tiny):
    x, targets, _ = features(10, 4, tiny.shape.embedding, noise=3.0)
    centres = normalize(torch.stack([x[targets == k].mean(0) for k in range(10)]), dim=-1)
    good, _ = tuned(tiny, x, targets, centres)
    shuffled, _ = tuned(tiny, x, targets, centres.roll(1, 0))
    assert good.chosen["text_share"] > 0 == shuffled.chosen["text_share"]


def test_too_few_steps_are_said(tiny):
    x, targets, text = features(10, 4, tiny.shape.embedding)
    tuner, curve = tuned(tiny, x, targets, text, epochs=2, penalty=1e-5, init="text")
    assert tuner.converged is False and len(curve) <= 2


@pytest.mark.parametrize("method", ["linear_probe", "prolip"])
def test_one_image_a_label_leaves_nothing_to_choose(method, tiny):
    x, targets, text = features(5, 1, tiny.shape.embedding)
    stage = torch.randn(5, tiny.vision.projected) if method == "prolip" else None
    tuner, curve = tuned(tiny, x, targets, text, method, stage)
    assert tuner.chosen == {} and curve[-1][2] < curve[0][2]


def test_prolip_converges_with_many_labels(tiny):
    targets = torch.arange(40).repeat(4)
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(40, tiny.vision.projected, generator=generator)[targets]
    pooled = pooled + 0.3 * torch.randn(pooled.shape, generator=generator)
    text = normalize(torch.randn(40, tiny.shape.embedding, generator=generator), dim=-1)
    x = normalize(tiny.vision.project(pooled), dim=-1)
    tuner, curve = tuned(tiny, x, targets, text, "prolip", pooled, penalty=0.01)
    assert tuner.converged and curve[-1][3] > curve[0][3]
    loss, _ = tuner.objective(pooled, targets)
    (gradient,) = torch.autograd.grad(loss, tuner.weight)
    assert gradient.abs().max() < 1e-3


def test_folds_spread_every_class():
    targets = torch.tensor([0] * 7 + [1] * 5 + [2])
    trains = lbfgs.assign_folds(targets, repeats=2)
    assert trains.shape == (13, 10)
    assert torch.equal(trains[:, :5].sum(1), torch.full((13,), 4.0))  # out of one fold of a round
    for label, images in ((0, 7), (1, 5)):
        held_out = (trains[:, :5] == 0)[targets == label].sum(0)
        assert held_out.sum() == images and held_out.max() - held_out.min() <= 1
    assert lbfgs.assign_folds(torch.arange(4)) is None


def test_weaker_penalties_are_not_tried_once_they_do_not_help(tiny):
    x, targets, text = features(5, 4, tiny.shape.embedding, noise=0.1)
    weight = text[None, None].repeat(1, 4, 1, 1).requires_grad_()
    scores = list(
        lbfgs.score_strengths(
            (weight,),
            lambda: torch.einsum("np,sfkp->nsfk", x, weight) * 20,
            lambda: (weight - text).square().sum(),
            targets,
            lbfgs.assign_folds(targets),
            [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6],
        )
    )
    assert len(scores) < 7 and scores[0].shape == (1, 2)


def test_best_looks_at_neighbours():
    lonely = [torch.tensor([[right, 1.0]]) for right in (0.5, 0.8, 0.5, 0.7, 0.75, 0.7)]
    assert lbfgs.best(lonely) == (4, 0)


def test_strengths_go_from_strong_to_weak():
    for strengths in (linear_probe.STRENGTHS, prolip.STRENGTHS):
        assert list(strengths) == sorted(strengths, reverse=True)
