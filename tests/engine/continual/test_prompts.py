"""Pools, components, image prompts and generated prompts, each by its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.backbones.base import PIXELS
from engine.continual import strategy
from engine.continual.results import Selection, StrategyResult
from engine.continual.run import StreamRun
from engine.errors import BadConfig
from tests.engine.continual.conftest import make_stream

FAST = {"epochs": 2}


def test_each_image_takes_the_prompts_of_the_nearest_keys(learned):
    learner, images = learned("l2p", **FAST)
    query, keys = learner.context.store.features(images), learner.learner.keys.detach()
    by_hand = (F.normalize(query) @ F.normalize(keys).T).argsort(1, descending=True)[:, :5]
    assert learner.choices(images).tolist() == by_hand.tolist()
    tokens = learner.learner.prompts_for(torch.zeros(len(images), 5, 48), query)
    assert tokens.shape == (len(images), 25, 48)
    torch.testing.assert_close(tokens[0, 5:10], learner.learner.prompts[by_hand[0, 1]])


def test_counts(learned):
    P, D = 24, 48
    head = 3 * (P + 1)
    assert learned("l2p", **FAST)[0].trained == 10 * 5 * D + 10 * P + head
    assert learned("sequential_prompt", head="text", **FAST)[0].trained == 5 * D
    assert learned("coda_prompt", **FAST)[0].trained == 6 * (5 * D + 2 * P) + head
    assert learned("image_prompt_pool", **FAST)[0].trained == 3 * (5 * D + P) + head
    assert learned("image_prompt_pool", form="patches", patches=4, **FAST)[0].trained == 3 * (4 * 3 * 64 + P) + head


def test_other_labels_do_not_compete_where_it_is_masked(learned):
    """Rows of old labels stay where they are, and move where they compete."""
    first = learned("l2p", steps=1, epochs=1)[0].learner.weight.shape
    assert first == (3, 24)
    for masked in (True, False):
        learner, _ = learned("l2p", masked=masked, **FAST)
        start = float(learner.context.backbone.scale) * learner.context.text
        moved = (learner.learner.weight - start).abs().sum(1)
        assert bool(moved[0] == 0) == masked  # one label a step: alone it has nothing to learn


def test_old_components_are_frozen(tiny, task_images):
    run = StreamRun("coda_prompt", make_stream(task_images), task_images, tiny, FAST)
    seen = []
    for item in run.run():
        if isinstance(item, StrategyResult):
            seen.append(run.learner.learner.components.detach().clone())
    assert [len(rows) for rows in seen] == [2, 4, 6]
    assert torch.equal(seen[2][:4], seen[1]) and torch.equal(seen[1][:2], seen[0])
    assert not torch.equal(seen[2][4:6], seen[2][2:4])


def test_new_components_and_the_head_are_trained(learned):
    still, _ = learned("coda_prompt", steps=1, epochs=1, lr=1e-8)
    trained, _ = learned("coda_prompt", steps=1, **FAST)
    for name in ("components", "keys", "attention", "weight"):
        before, after = (getattr(learner.learner, name) for learner in (still, trained))
        assert (after - before).abs().max() > 1e-4, name


@pytest.mark.parametrize("form", ["patches", "reshaped"])
def test_prompts_begin_as_images_of_their_labels(form, tiny, task_images):
    settings = {"form": form, "patches": 4, "lr": 1e-8, "epochs": 1}
    stream = make_stream(task_images)
    run = StreamRun("image_prompt_pool", stream, task_images, tiny, settings)
    result = [item for item in run.run() if isinstance(item, StrategyResult)][-1]
    chosen, learner = result.selection, run.learner.learner
    assert chosen.began_as == ("red", "green", "blue") and len(chosen.pictures) == len(chosen.starts) == 3
    assert chosen.counts.shape == (3, 3) and chosen.counts.sum() == 3 * sum(chosen.images)  # top 5 of 3
    if form == "patches":  # the picture is the image, shrunk
        image = run.store.fresh(PIXELS, [stream.steps[0].train[0]])
        small = F.interpolate(image, (16, 16), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(learner.start[0, 1], small[:, :8, 8:])
        assert np.abs(chosen.pictures[0].astype(int) - chosen.starts[0].astype(int)).max() <= 1
    first = run.store.features([stream.steps[0].train[0]])[0]
    torch.testing.assert_close(learner.keys[0].detach(), first, atol=1e-4, rtol=1e-3)


def test_own_choice_tells_which_label_takes_a_prompt(tiny, task_images):
    run = StreamRun("image_prompt_pool", make_stream(task_images), task_images, tiny, {"top": 1, **FAST})
    result = [item for item in run.run() if isinstance(item, StrategyResult)][-1]
    told = result.selection.own_choice(result.labels)
    shares = result.selection.counts / np.array(result.selection.images)[:, None]
    assert [row[1] for row in told] == ["red", "green", "blue"]
    assert all(top == shares[:, m].max() and own == shares[m, m] for m, _, _, own, top in told)


def test_a_tie_is_no_other_labels_choice():
    tied = Selection(np.array([[4, 1], [4, 3]]), (4, 4), 0.0, 1.0, 0.0, ("b", "a"))
    assert tied.own_choice(("a", "b")) == [(0, "b", "b", 1.0, 1.0), (1, "a", "b", 0.25, 0.75)]


@pytest.mark.parametrize("source", ["image", "feature"])
@pytest.mark.parametrize("joined", [False, True])
def test_generated_prompts_differ_between_images(source, joined, learned):
    learner, images = learned("generated_prompt", source=source, joined=joined, **FAST)
    x, query = learner._values(images)
    prompts = learner.learner.prompts_for(x, query)
    assert prompts.shape[1] == 5 + 25 * joined
    assert not torch.allclose(prompts[0, :5], prompts[-1, :5]) and (learner.origins().size > 0) == joined


def test_prompts_join_before_any_block_and_not_after_the_last(learned, tiny, task_images):
    learner, images = learned("l2p", block=2, **FAST)
    assert learner.learner.stage == 2 and learner.scores(images).shape == (len(images), 3)
    with pytest.raises(BadConfig, match="block = 3 is not allowed; it must be between 0 and 2"):
        StreamRun("l2p", make_stream(task_images), task_images, tiny, {"block": 3})


def test_a_backbone_without_tokens_is_refused(task_images, tmp_path):
    from tests import families

    kinds = [families.make(kind, tmp_path / kind) for kind in families.KINDS]
    without = [backbone for backbone in kinds if not backbone.vision.has_tokens]
    assert without
    with pytest.raises(BadConfig, match="needs vision tokens"):
        StreamRun("l2p", make_stream(task_images), task_images, without[0])


def test_every_record_is_complete(every_strategy):
    spec = strategy.get(every_strategy)
    assert spec.failures and spec.sentence.endswith(".") and spec.config.method == spec.id
