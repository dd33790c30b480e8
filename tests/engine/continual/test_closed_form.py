"""Closed forms: steps do not matter, and a few lines give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("name", ["zero_shot", "prototypes", "gaussian", "ranpac", "rail"])
def test_steps_give_what_one_step_gives(name, learned):
    steps, images = learned(name, 3)
    once, _ = learned(name, 1)
    assert steps.seen == once.seen == [0, 1, 2]
    torch.testing.assert_close(steps.scores(images), once.scores(images), atol=1e-5, rtol=1e-5)


def test_prototypes_are_means(learned):
    learner, images = learned("prototypes")
    stream_images = learner.context.store.features().numpy()
    train = [i for i in range(len(stream_images)) if i not in images]
    labels = [learner.context.store.images[i].label for i in train]
    means = np.stack(
        [
            stream_images[[i for i, label in zip(train, labels, strict=True) if label == name]].mean(0)
            for name in ("red", "green", "blue")
        ]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = float(learner.context.backbone.scale) * stream_images[images] @ means.T
    np.testing.assert_allclose(learner.scores(images).detach().numpy(), expected, atol=1e-4)


def test_ranpac_is_ridge_on_random_features(learned):
    sklearn = pytest.importorskip("sklearn.linear_model")
    learner, images = learned("ranpac", width=50, ridge=0.2)
    features = learner.context.store.features().double().numpy()
    hidden = np.maximum(features @ learner.projection.numpy(), 0)
    train = [i for i in range(len(features)) if i not in images]
    targets = np.array([("red", "green", "blue").index(learner.context.store.images[i].label) for i in train])
    penalty = 0.2 * np.trace(hidden[train].T @ hidden[train]) / 50
    model = sklearn.Ridge(alpha=penalty, fit_intercept=False).fit(hidden[train], np.eye(3)[targets])
    np.testing.assert_allclose(learner.scores(images).numpy(), model.predict(hidden[images]), atol=1e-6)


def test_gaussian_is_linear_discriminant_analysis(learned):
    """Without shrinkage but with many images scikit-learn's LDA ranks the labels alike: differences of scores agree."""
    learner, images = learned("gaussian", shrinkage=0.3)
    features = learner.context.store.features().double().numpy()
    train = [i for i in range(len(features)) if i not in images]
    targets = np.array([("red", "green", "blue").index(learner.context.store.images[i].label) for i in train])
    means = np.stack([features[train][targets == k].mean(0) for k in range(3)])
    centred = features[train] - means[targets]
    covariance = centred.T @ centred / (len(train) - 3)
    size = features.shape[1]
    inverse = np.linalg.inv(0.7 * covariance + 0.3 * max(np.trace(covariance) / size, 1e-6) * np.eye(size))
    x = features[images]
    far = np.stack([np.einsum("np,pq,nq->n", x - m, inverse, x - m) for m in means], 1)  # Mahalanobis, squared
    scores = learner.scores(images).numpy()
    np.testing.assert_allclose(scores - scores[:, :1], -0.5 * (far - far[:, :1]), rtol=1e-5, atol=1e-4)


def test_rail_leaves_labels_it_never_learned_to_zero_shot(learned):
    learner, images = learned("rail")
    learner.seen = learner.seen[:2]
    learner.sums, learner.counts, learner._solved = learner.sums[:2], learner.counts[:2], None
    zero_shot = learner.text_scores(images).argmax(1)
    named = learner.open_probabilities(images).argmax(1)
    assert bool((named[zero_shot == 2] == 2).all()) and bool((named[zero_shot != 2] != 2).all())
