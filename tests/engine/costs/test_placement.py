"""Where methods train: found by following the gradient graph, so every method is checked by its declared count."""

from __future__ import annotations

import pytest

from engine.backbones.base import FEATURES, PIXELS, POOLED
from engine.costs.placement import (
    ATTENTION,
    HEAD,
    IMAGE,
    LOGITS,
    MLP,
    NORM,
    PARTS,
    TOKENS,
    Location,
    places,
    tower_diagram,
)
from engine.errors import BadConfig, Untraceable
from engine.tuning import registry
from tests import families

METHODS = [spec.id for spec in registry.methods()]
FITTING = {"context_prompt": {"context": "a photo of a"}}
"""Settings that fit the short context of tiny text towers."""


@pytest.fixture(scope="module", params=("clip", "siglip", "vit", "mobileclip"))
def backbone(request, tiny, tmp_path_factory):
    if request.param == "clip":
        return tiny
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "siglip":
        return families.make_siglip(folder)
    return families.make_open_clip(request.param, folder)[0]


def of(method: str, backbone, **settings):
    spec = registry.get(method)
    return tower_diagram(spec, spec.configure(settings=FITTING.get(method, {}) | settings), backbone, 3, 12)


@pytest.mark.parametrize("method", METHODS)
def test_places_sum_to_the_declared_count(method, backbone):
    spec = registry.get(method)
    config = spec.configure(settings=FITTING.get(method))
    if registry.obstacle(spec, backbone, config):
        with pytest.raises(BadConfig):
            places(spec, backbone, config, 3, 12)
        return
    found = places(spec, backbone, config, 3, 12)
    assert sum(place.count for place in found) == spec.count(backbone.shape, config, 3, 12)
    for location in (location for place in found for location in place.locations):
        assert location.part in PARTS
        steps = (
            (PIXELS, *range(len(getattr(backbone, location.tower).blocks)), POOLED, FEATURES)
            if location.tower
            else (0,)
        )
        assert location.step in steps
    assert all(place.locations for place in found)


def locations(found) -> dict[tuple[Location, ...], int]:
    return {place.locations: place.count for place in found.places}


def test_heads_and_projection(tiny):
    assert locations(of("linear_probe", tiny)) == {(Location(HEAD, 0, LOGITS),): 3 * 25}
    assert locations(of("clip_adapter", tiny)) == {(Location(HEAD, 0, IMAGE),): 2 * 24 * 6}
    assert locations(of("prolip", tiny)) == {(Location("vision", FEATURES, ""),): 48 * 24}
    assert of("linear_probe", tiny).runs == frozenset()
    assert of("tip_adapter", tiny).places == of("zero_shot", tiny).places == ()


def test_tokens_before_one_block_or_each(tiny):
    assert locations(of("visual_prompt", tiny)) == {(Location("vision", 0, TOKENS),): 5 * 48}
    deep = locations(of("visual_prompt_deep", tiny))
    assert deep == {(Location("vision", k, TOKENS),): 5 * 48 for k in range(3)}
    assert locations(of("prompt_tuning", tiny)) == {(Location("text", 0, TOKENS),): 4 * 32}


def test_a_shared_network_acts_in_the_attention_of_every_block(tiny):
    found = of("prefix_tuning", tiny)
    assert [place.locations for place in found.shared] == [tuple(Location("text", k, ATTENTION) for k in range(3))]
    bare = of("prefix_tuning", tiny, encoder="false", towers="vision")
    assert [place.locations for place in bare.shared] == [tuple(Location("vision", k, ATTENTION) for k in range(3))]
    bank = of("vblora", tiny).shared
    assert len(bank) == 1 and bank[0].count == 64 * 16
    assert {(s.tower, s.step) for s in bank[0].locations} == {(t, k) for t in ("vision", "text") for k in range(3)}


def test_layers_of_blocks(tiny):
    found = of("lora", tiny, r=2, targets="q,fc1", last_blocks=1)
    assert found.at("vision", 2) == {"q": 2 * (48 + 48), "fc1": 2 * (48 + 96)}
    assert found.at("text", 2) == {"q": 2 * (32 + 32), "fc1": 2 * (32 + 64)}
    assert found.at("vision", 1) == {}
    assert of("adapter", tiny).at("vision", 0) == {MLP: 2 * 48 * 64 + 64 + 48}
    assert of("norm_tuning", tiny).at("text", 1) == {NORM: 2 * 2 * 32}


def test_what_each_step_runs(tiny):
    assert of("lora", tiny, last_blocks=1).runs == {
        (tower, step) for tower in ("vision", "text") for step in (2, POOLED, FEATURES)
    }
    assert {tower for tower, _ in of("prompt_tuning", tiny).runs} == {"text"}
    assert {tower for tower, _ in of("adapter", tiny).runs} == {"vision"}
    whole = of("full", tiny).runs
    assert whole == {(t, s) for t in ("vision", "text") for s in (PIXELS, 0, 1, 2, POOLED, FEATURES)}


def test_looking_leaves_the_backbone_alone(tiny):
    before = dict(vars(tiny.vision)), dict(vars(tiny.text))
    of("full", tiny)
    assert (vars(tiny.vision), vars(tiny.text)) == before
    assert not any(p.requires_grad for p in tiny.model.parameters())


def test_a_step_that_reads_a_value_is_not_drawn(value_reader, tiny):
    with pytest.raises(Untraceable, match="Where Value reader trains cannot be drawn"):
        tower_diagram(value_reader, value_reader.configure(), tiny, 3, 12)
