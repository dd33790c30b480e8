"""open_clip's towers against the library's own forward; preprocessing; folding; splitting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.backbones import openclip
from engine.backbones.base import (
    CAPABILITIES,
    FEATURES,
    LINEAR_KINDS,
    PIXELS,
    POOLED,
    TEXT_TOKENS,
    VISION_TOKENS,
)
from engine.backbones.split_attention import SplitAttention, split_block, splittable
from engine.tuning.features import Cache, FeatureStore
from tests.families import OPEN_CLIP, make_open_clip, open_clip_transform
from tests.tiny import picture

TEXTS = ["a photo of a cat.", "dog", "a very long sentence about nothing " * 20, "Fire   truck!"]


@pytest.fixture(scope="module", params=OPEN_CLIP)
def pair(request, tmp_path_factory):
    return make_open_clip(request.param, tmp_path_factory.mktemp(request.param))


def pictures(backbone):
    images = [picture((60 * k, 50, 250 - 70 * k), k, 90).resize((90, 60 + 10 * k)) for k in range(3)]
    return images, backbone.normalise(backbone.load_pixels(images))


def test_towers_equal_the_library(pair):
    backbone, own = pair
    _, pixels = pictures(backbone)
    with torch.no_grad():
        image, text = own.encode_image(pixels, normalize=True), own.encode_text(backbone.tokenizer(TEXTS), True)
        ours = backbone.encode_image(pixels), backbone.encode_text(backbone.tokenize(TEXTS))
        assert image.std(0).max() > 1e-2 and text.std(0).max() > 1e-2, "the random model tells nothing apart"
        torch.testing.assert_close(ours[0], image, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours[1], text, atol=1e-5, rtol=0)
        logits, _ = own.get_logits(pixels, backbone.tokenizer(TEXTS))
        torch.testing.assert_close(backbone.logits(*ours), logits, atol=2e-4, rtol=1e-5)


def test_unfolded_and_folded_are_equal(pair):
    backbone, own = pair
    _, pixels = pictures(backbone)
    trained = backbone.twin(share=False)
    assert (backbone.folded is not backbone.model) == any(hasattr(m, "reparameterize") for m in own.visual.modules())
    assert sum(p.numel() for p in trained.model.parameters()) == sum(p.numel() for p in own.parameters())
    assert backbone.shape.parameters == sum(p.numel() for p in own.parameters())
    with torch.no_grad():
        wanted = own.encode_image(pixels, normalize=True)
        torch.testing.assert_close(trained.encode_image(pixels), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.twin().encode_image(pixels), wanted, atol=1e-5, rtol=0)


def test_any_stage_leads_to_the_same_features(pair):
    backbone, _ = pair
    _, pixels = pictures(backbone)
    with torch.no_grad():
        whole = backbone.vision.advance(pixels, PIXELS, FEATURES)
        for stage in (*range(len(backbone.vision.blocks) + 1), POOLED):
            part = backbone.vision.advance(pixels, PIXELS, stage)
            torch.testing.assert_close(backbone.vision.advance(part, stage, FEATURES), whole, atol=1e-6, rtol=1e-5)


def test_what_is_encoded_with_channels_last_is_kept_in_the_usual_order(pair, task_images):
    backbone, _ = pair
    store = FeatureStore(backbone, task_images[:3], Cache())
    pixels = store.fresh(PIXELS, range(3))
    for stage in (0, len(backbone.vision.blocks), FEATURES):
        found = store.fresh(stage, range(3))
        assert found.is_contiguous()
        with torch.no_grad():
            torch.testing.assert_close(found, backbone.vision.advance(pixels, PIXELS, stage), atol=1e-4, rtol=1e-4)
    last = backbone.vision.memory_format == torch.channels_last
    assert last == (not backbone.vision.has_tokens)


def test_shape_says_the_sizes(pair):
    backbone, _ = pair
    _, pixels = pictures(backbone)
    shape = backbone.shape
    assert shape.embedding == 24 and shape.context == 20
    assert shape.vision_layers == len(backbone.vision.blocks)
    if backbone.vision.has_tokens:
        assert backbone.vision.embed(pixels).shape == (3, shape.vision_tokens, shape.vision_width)
    for tower in ("vision", "text"):
        for kind in LINEAR_KINDS:
            names = backbone.linear_names(tower, [kind], 1)
            layers = [backbone.model.get_submodule(name) for name in names]
            sizes = [(layer.weight.shape[1], layer.weight.shape[0]) for layer in layers]
            assert shape.linears(tower, [kind], 1) == sizes


def test_texts_are_cut_where_the_tower_allows_it(pair):
    backbone, own = pair
    holder = openclip.text_holder(own)[0]
    ids = backbone.tokenize(["cat"], reserve=4)
    assert ids.shape[1] == (16 if holder.attn_mask is None else 3)
    long = backbone.tokenize([TEXTS[2]], reserve=4)
    assert long.shape[1] == 16
    assert backbone.end_of(long).item() == 15
    assert backbone.count_tokens(TEXTS[2]) > 20
    assert backbone.words_end(ids).item() == backbone.count_tokens("cat") - 1


def test_what_each_offers(tmp_path):
    offers = {kind: make_open_clip(kind, tmp_path)[0].offers for kind in ("vit", "mobileclip", "resnet")}
    assert offers["vit"] == set(CAPABILITIES)
    assert VISION_TOKENS not in offers["mobileclip"] and TEXT_TOKENS in offers["mobileclip"]
    assert VISION_TOKENS not in offers["resnet"]


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_the_checkpoint_s(mode, interpolation, tmp_path):
    backbone, _ = make_open_clip("vit", tmp_path)
    settings = {"resize_mode": mode, "interpolation": interpolation, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    backbone.transform = open_clip_transform(**settings)
    images = [picture((90, 150, 30), 1, 70).resize((70, 50)), picture((10, 20, 200), 2, 20)]
    pixels = backbone.load_pixels(images)
    assert pixels.dtype == torch.uint8
    wanted = torch.stack([backbone.transform(image) for image in images])
    # the library resizes the 8-bit picture too, so nothing is rounded twice
    torch.testing.assert_close(backbone.normalise(pixels), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_split_attention_equals_multihead_attention(bias):
    torch.manual_seed(0)
    joint = nn.MultiheadAttention(24, 3, batch_first=True, bias=bias).eval()
    x, mask = torch.randn(2, 7, 24), torch.full((7, 7), float("-inf")).triu(1)
    assert splittable(joint)
    split = SplitAttention(joint)
    assert sum(p.numel() for p in split.parameters()) == sum(p.numel() for p in joint.parameters())
    each = mask + torch.randn(2 * 3, 1, 7)  # a mask for every text and head
    for attn_mask in (None, mask, each):
        wanted = joint(x, x, x, need_weights=False, attn_mask=attn_mask)[0]
        torch.testing.assert_close(split(x, x, x, attn_mask=attn_mask)[0], wanted, atol=1e-6, rtol=0)
    assert not splittable(nn.MultiheadAttention(24, 3))  # not batch first: left as it is


def test_split_projection_equals_eva_attention():
    from timm.models.eva import EvaAttention

    torch.manual_seed(0)
    attention = EvaAttention(24, 2, qkv_bias=True, qk_norm=False, scale_norm=False).eval()
    nn.init.normal_(attention.q_bias)
    nn.init.normal_(attention.v_bias)
    x, rope = torch.randn(2, 5, 24), torch.randn(4, 24)
    wanted = attention(x, rope=rope)
    split_block(attention)
    torch.testing.assert_close(attention(x, rope=rope), wanted, atol=1e-6, rtol=0)
    assert isinstance(attention.qkv.q, nn.Linear)


def test_prompts_join_every_tower_with_tokens(pair):
    """Prompts change the features and get gradients; where patches are averaged they are left out of the mean."""
    backbone, _ = pair
    if not backbone.vision.has_tokens:
        return
    _, pixels = pictures(backbone)
    prompts = nn.Parameter(0.5 * torch.randn(2, backbone.shape.vision_width))
    start = backbone.vision.prefix

    def insert(k, hidden):
        joined = [hidden[:, :start], prompts.expand(3, -1, -1), hidden[:, start:]]
        return torch.cat(joined, dim=1) if k == 0 else hidden

    with torch.no_grad():
        plain = backbone.encode_image(pixels)
    changed = backbone.vision.advance(pixels, PIXELS, FEATURES, insert)
    assert (changed - plain).abs().max() > 1e-3
    changed.sum().backward()
    assert prompts.grad.abs().min() > 0
    if getattr(backbone.vision.visual, "pool_type", "") == "avg":
        hidden = backbone.vision.advance(pixels, PIXELS, len(backbone.vision.blocks))
        longer = torch.cat([hidden[:, :1], 9 * torch.ones(3, 2, 24), hidden[:, 1:]], dim=1)
        torch.testing.assert_close(backbone.vision.pool(longer), backbone.vision.pool(hidden))


def test_prompts_do_not_turn_in_rotary_attention(tmp_path):
    from timm.layers import apply_rot_embed_cat

    tower = make_open_clip("eva", tmp_path)[0].vision
    angles = tower._rotation(2)
    assert torch.equal(angles[2:], tower._rotation(0))
    x = torch.randn(1, 1, 2, angles.shape[1] // 2)
    torch.testing.assert_close(apply_rot_embed_cat(x, angles[:2]), x)
