"""Each method's equations against a few independent lines."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from engine.backbones.base import FEATURES, POOLED
from engine.data.images import read_image
from engine.errors import BadConfig
from engine.methods.prompt_tuning import place
from engine.methods.tip_adapter import leave_one_out
from engine.tuning import loop, registry
from engine.tuning.features import Cache, FeatureStore
from engine.tuning.tuner import TunerContext
from engine.types import Label

LABELS = (Label("cat", "cat"), Label("fire truck", "fire truck"), Label("x", "x"))


@pytest.fixture
def setting(tiny) -> TunerContext:
    torch.manual_seed(1)
    support = normalize(torch.randn(12, 24), dim=-1)
    prompts = [label.prompt for label in LABELS]
    sentences = ("a photo of a {}.", "{}")
    return TunerContext(
        tiny,
        LABELS,
        sentences,
        tiny.text_features(prompts, sentences[:1]),
        tiny.text_features(prompts, sentences),
        support,
        torch.arange(3).repeat(4),
    )


def build(method: str, setting: TunerContext, **settings):
    spec = registry.get(method)
    return spec.tuner()(spec.configure("budget", settings), setting).eval()


def test_tip_adapter_logits(tiny, setting):
    tuner = build("tip_adapter", setting, alpha=1.5, beta=4)
    f = normalize(torch.randn(5, 24), dim=-1)
    cache = torch.exp(-4 * (1 - f @ setting.support.T)) @ one_hot(setting.targets, 3).float()
    expected = tiny.model.logit_scale.exp() * f @ setting.ensemble.T + 1.5 * cache
    torch.testing.assert_close(tuner(f), expected)


def test_tip_adapter_f_starts_as_tip_adapter(setting):
    f = normalize(torch.randn(5, 24), dim=-1)
    torch.testing.assert_close(build("tip_adapter_f", setting)(f), build("tip_adapter", setting)(f))


def test_alpha_and_beta_see_the_support_only():
    torch.manual_seed(0)
    targets = torch.arange(2).repeat(10)
    values = one_hot(targets, 2).float()
    clustered = normalize(torch.eye(2)[targets] + 0.05 * torch.randn(20, 2), dim=-1)
    useless_text = torch.zeros(20, 2)
    assert leave_one_out(useless_text, clustered, targets, values)["alpha"] > 0
    perfect_text, noise = 10 * values, normalize(torch.randn(20, 2), dim=-1)
    assert leave_one_out(perfect_text, noise, targets, values)["alpha"] == 0
    one_shot = leave_one_out(useless_text[:2], clustered[:2], targets[:2], values[:2])
    assert one_shot == {"alpha": 1.0, "beta": 5.5}


def test_clip_adapter_mix(setting):
    tuner = build("clip_adapter", setting, ratio=0.3)
    f = normalize(torch.randn(5, 24), dim=-1)
    hidden = torch.relu(f @ tuner.down.weight.T)
    expected = normalize(0.3 * torch.relu(hidden @ tuner.up.weight.T) + 0.7 * f, dim=-1)
    torch.testing.assert_close(tuner.image_features(f), expected)
    torch.testing.assert_close(build("clip_adapter", setting, ratio=0).image_features(f), f)


def test_linear_probe_start(tiny, setting):
    f = normalize(torch.randn(5, 24), dim=-1)
    torch.testing.assert_close(build("linear_probe", setting)(f), tiny.logits(f, setting.ensemble))
    noise = build("linear_probe", setting, init="noise")
    assert noise(f).abs().max() < 0.5


@pytest.mark.parametrize("where", ["end", "middle", "front"])
def test_prompt_tokens_stand_where_they_should(tiny, where):
    ids = tiny.tokenize(["fire truck."])
    words, end = ids[0].tolist(), int(tiny.end_of(ids)[0])
    tokens = ids[..., None].float()  # the id itself as a one-dimensional embedding
    context = -torch.arange(1.0, 5)[None, :, None]  # -1 -2 -3 -4
    row = place(context, tokens, tiny.end_of(ids), where)[0, :, 0].int().tolist()
    start, name, stop = words[:1], words[1 : end - 1], words[end - 1 :]
    order = {
        "end": [*start, -1, -2, -3, -4, *name, *stop],
        "front": [*start, *name, -1, -2, -3, -4, *stop],
        "middle": [*start, -1, -2, *name, -3, -4, *stop],
    }
    assert row == order[where]


def test_prompts_of_real_words_are_the_sentence(tiny, setting):
    for per_class in (False, True):
        tuner = build("prompt_tuning", setting, per_class=per_class)
        torch.testing.assert_close(tuner.text_features(), setting.single, atol=1e-6, rtol=0)
        assert tuner.context.shape == ((3, 4, 32) if per_class else (4, 32))


def test_prompt_tuning_takes_long_labels(tiny, setting):
    long = (Label("a", "thing " * 100), Label("b", "b"), Label("c", "c"))
    tuner = build("prompt_tuning", TunerContext(**{**vars(setting), "labels": long}), tokens=16)
    assert torch.isfinite(tuner.text_features()).all()


def test_more_prompts_than_the_context_holds_are_refused(tiny, setting):
    spec = registry.get("prompt_tuning")
    most = tiny.shape.context - 8
    assert registry.obstacle(spec, tiny, spec.configure(settings={"tokens": most})) is None
    assert torch.isfinite(build("prompt_tuning", setting, tokens=most).text_features()).all()
    refused = registry.obstacle(spec, tiny, spec.configure(settings={"tokens": most + 1}))
    assert refused is not None and f"between 1 and {most}" in str(refused)


@pytest.mark.parametrize("method", ["visual_prompt", "visual_prompt_deep"])
def test_visual_prompt_positions(tiny, setting, method):
    tuner = build(method, setting, tokens=2)
    with torch.no_grad():
        tuner.prompts.fill_(7)
    hidden = torch.arange(5.0)[None, :, None].expand(1, 5, 48)  # class token 0, patches 1 to 4
    first = tuner.insert(0, hidden)[0, :, 0].tolist()
    assert first == [0, 7, 7, 1, 2, 3, 4]
    later = tuner.insert(1, tuner.insert(0, hidden) + 10)[0, :, 0].tolist()
    assert later == ([10, 7, 7, 11, 12, 13, 14] if method.endswith("deep") else [10, 17, 17, 11, 12, 13, 14])


def test_visual_prompt_against_a_plain_forward(tiny, setting):
    tuner = build("visual_prompt", setting, tokens=2)
    tokens = torch.randn(3, 5, 48)
    hidden = torch.cat([tokens[:, :1], tuner.prompts.expand(3, -1, -1), tokens[:, 1:]], dim=1)
    for block in tiny.model.vision_model.encoder.layers:
        hidden = block(hidden, None)
    pooled = tiny.model.vision_model.post_layernorm(hidden[:, 0])
    torch.testing.assert_close(tuner.image_features(tokens), normalize(tiny.model.visual_projection(pooled), dim=-1))


def test_image_prompt_against_a_plain_forward(tiny, setting):
    tuner, tower = build("image_prompt", setting, tokens=3), tiny.model.vision_model
    parts, tokens = tower.embeddings, torch.randn(2, 5, 48)
    flat = parts.patch_embedding.weight.flatten(1)  # (D, 3 p p)
    prompts = torch.stack([flat @ patch.flatten() for patch in tuner.pixels])
    prompts = tower.pre_layrnorm(prompts + parts.position_embedding.weight[1:].mean(0))
    hidden = torch.cat([tokens[:, :1], prompts.expand(2, -1, -1), tokens[:, 1:]], dim=1)
    for block in tower.encoder.layers:
        hidden = block(hidden, None)
    expected = normalize(tiny.model.visual_projection(tower.post_layernorm(hidden[:, 0])), dim=-1)
    torch.testing.assert_close(tuner.image_features(tokens), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_border_is_added_to_the_pixels(tiny, setting):
    tuner, pixels = build("image_prompt", setting, form="border", border=3), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(tuner.image_features(pixels), tiny.encode_image(pixels))
    tuner.pixels.copy_(torch.randn_like(tuner.pixels))
    framed, flat = pixels.clone(), iter(tuner.pixels.T)
    for y in range(16):
        for x in range(16):
            if min(x, y, 15 - x, 15 - y) < 3:
                framed[:, :, y, x] += next(flat)
    assert next(flat, None) is None
    torch.testing.assert_close(tuner.image_features(pixels), tiny.encode_image(framed), atol=1e-5, rtol=1e-4)


def test_a_border_wider_than_the_image_is_refused(tiny):
    spec = registry.get("image_prompt")
    wide, widest = (spec.configure(settings={"form": "border", "border": b}) for b in (8, 7))
    assert registry.obstacle(spec, tiny, widest) is None
    assert "between 0 and 7" in str(registry.obstacle(spec, tiny, wide))


def alike(first, second) -> bool:
    """Whether two pictures differ by rounding at most: the start is kept in half precision."""
    return bool((abs(first.astype(int) - second.astype(int)) <= 1).all())


@pytest.mark.parametrize(("tokens", "size"), [(4, (16, 16)), (5, (16, 24))])
def test_patches_start_from_a_training_image(tiny, setting, task_images, tokens, size):
    """The picture before training is the training image that the seed chose, shrunk; after, it is what was trained."""
    store = FeatureStore(tiny, task_images, Cache())
    seen = []
    for seed in (1, 1, 2):
        tuner = build("image_prompt", TunerContext(**{**vars(setting), "seed": seed}), tokens=tokens)
        assert list(tuner.prepare(store, [3, 14, 30])) == [(1, 1)]
        (part,) = tuner.learned()
        assert part.before.shape == (*size, 3) and alike(part.before, part.after)
        seen.append(part.before)
    assert (seen[0] == seen[1]).all() and (seen[0] != seen[2]).any()
    if tokens == 4:  # as large as the image itself, so nothing was shrunk
        pictures = tiny.load_pixels([read_image(task_images[i].path) for i in (3, 14, 30)]).permute(0, 2, 3, 1)
        assert any(alike(seen[0], picture.numpy()) for picture in pictures)
    with torch.no_grad():
        tuner.pixels[0] = 100
    (part,) = tuner.learned()
    assert (part.after[:8, :8] == 255).all() and (part.before == seen[2]).all()
    assert alike(part.after[8:, :8], part.before[8:, :8])


def test_a_border_is_shown_on_grey(setting):
    (part,) = build("image_prompt", setting, form="border", border=2, init="noise").learned()
    assert part.after.shape == (16, 16, 3) and (part.after[2:-2, 2:-2] == 128).all()
    assert part.after[:2].std() > 30
    (still,) = build("image_prompt", setting, form="border", border=2).learned()
    assert (still.after == 128).all()


@pytest.mark.parametrize(("towers", "last", "stage"), [("both", 0, 0), ("vision", 1, 2), ("text", 2, FEATURES)])
def test_lora_stage_and_targets(tiny, setting, towers, last, stage):
    tuner = build("lora", setting, towers=towers, last_blocks=last)
    assert tuner.stage == stage
    names = [name for name in tuner.trained() if "lora_A" in name]
    blocks = last or 3
    assert len(names) == 2 * blocks * (2 if towers == "both" else 1)
    assert all(("text_model" in n) == (towers == "text") or towers == "both" for n in names)


def test_wise_ft_ends(tiny, setting):
    tuner = build("full", setting)
    with torch.no_grad():
        for p in tuner.model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    start, end, half = (tuner.mixed(share) for share in (0, 1, 0.5))
    for name, p in tiny.model.named_parameters():
        torch.testing.assert_close(start.model.get_parameter(name), p, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(end.model.get_parameter(name), tuner.model.get_parameter(name))
        middle = (p + tuner.model.get_parameter(name)) / 2
        torch.testing.assert_close(half.model.get_parameter(name), middle, atol=1e-6, rtol=1e-5)


def test_warm_up_and_cosine():
    settings = {"epochs": 10, "lr": 1e-2, "warmup_epochs": 1, "warmup": "constant"}
    config = registry.get("prompt_tuning").configure("budget", settings)
    optimizer = loop.make_optimizer([torch.nn.Parameter(torch.zeros(1))], config)
    scheduler = loop.make_scheduler(optimizer, config, 5, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([1e-5] * 5)
    assert rates[5] == pytest.approx(1e-2)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("method", "settings", "key"),
    [
        ("lora", {"r": 0}, "bad_setting"),
        ("lora", {"r": "many"}, "bad_setting"),
        ("lora", {"r": 2.5}, "bad_setting"),
        ("lora", {"targets": "q,z"}, "bad_setting"),
        ("lora", {"towers": "none"}, "bad_setting"),
        ("lora", {"rank": 4}, "unknown_setting"),
        ("zero_shot", {"lr": 1}, "unknown_setting"),
        ("linear_probe", {"lr": "nan"}, "bad_setting"),
        ("nothing", {}, "unknown_method"),
    ],
)
def test_bad_settings_have_their_sentence(method, settings, key):
    with pytest.raises(BadConfig) as caught:
        registry.get(method).configure("budget", settings)
    assert caught.value.key == key


def test_unknown_preset():
    with pytest.raises(BadConfig, match="budget"):
        registry.get("lora").configure("fastest")


@pytest.mark.parametrize(("method", "factor"), [("lora", 3.0), ("full", 3.0), ("visual_prompt", 1.0)])
def test_narrow_towers_learn_faster(method, factor, pocket, setting):
    wide = torch.nn.functional.normalize(torch.randn(12, 256), dim=-1)
    own = {**vars(setting), "backbone": pocket, "single": wide[:3], "ensemble": wide[:3], "support": wide}
    tuner = registry.get(method).tuner()(registry.get(method).configure(), TunerContext(**own))
    assert tuner.lr_factor == factor  # Pocket CLIP's vision tower is 256 wide, ViT-B 768


def test_published_schedules():
    clip_lora = registry.get("lora").configure("paper", shots=4)
    assert (clip_lora.r, clip_lora.alpha, clip_lora.dropout, clip_lora.lr) == (2, 1.0, 0.25, 2e-4)
    assert clip_lora.steps_for(4 * 100, 32) == clip_lora.steps_for(4 * 10, 32) == 2000  # whatever the labels
    assert (clip_lora.weight_decay, clip_lora.batch_size, clip_lora.min_crop) == (1e-2, 32, 0.08)
    coop = {shots: registry.get("prompt_tuning").configure("paper", shots=shots).epochs for shots in (1, 2, 4, 8, 16)}
    assert coop == {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}


def test_registry_refuses_bad_records():
    from dataclasses import replace

    good = registry.get("lora")
    new = {"id": "new"}
    changes = {
        "twice": {},
        "snake": {"id": "LoRA"},
        "family": new | {"family": "x"},
        "budget": new | {"presets": {}},
        "paper": new | {"paper": " "},
        "needs": new | {"needs": frozenset({"patience"})},
        "runs_on": new | {"runs_on": "image"},
    }
    for words, change in changes.items():
        with pytest.raises(ValueError, match=words):
            registry.register(replace(good, **change))


def test_lora_runs_only_the_tuned_blocks_of_the_text_tower(setting):
    spec = registry.get("lora")
    whole, late = (spec.tuner()(spec.configure(settings={"last_blocks": n}), setting).eval() for n in (0, 1))
    assert (whole.text_start, late.text_start) == (0, setting.backbone.shape.text_layers - 1)
    torch.testing.assert_close(late.text_features(), whole.text_features(), atol=1e-6, rtol=1e-5)
    late.text_features().sum().backward()
    assert any(p.grad is not None for p in late.trained().values())
    assert not late.entering.requires_grad


def test_prolip_penalty_holds_the_projection(tiny, setting):
    """Without the penalty the same labels pull the matrix many times further from its start."""
    pooled, moved = torch.randn(12, 48), {}
    for penalty in (-1, 0):
        tuner = build("prolip", setting, penalty=penalty, lr=1e-2, epochs=100)
        assert tuner.stage == POOLED and tuner.full_batch
        start = tiny.model.visual_projection.weight
        torch.testing.assert_close(tuner.weight.detach(), start.detach())
        with torch.no_grad():
            tuner.weight.add_(0.5)
        expected = (0.25 if penalty else 0) * 0.25 * start.numel()  # 12 images of 3 labels: lambda = 1 / 4
        assert tuner.penalty().item() == pytest.approx(expected, rel=1e-4)
        plain = torch.nn.functional.cross_entropy(tuner(pooled), setting.targets)
        assert tuner.objective(pooled, setting.targets)[0].item() == pytest.approx(plain.item() + expected, rel=1e-4)
        tuner.weight.data.copy_(start)
        list(loop.fit(tuner, pooled[None], setting.targets, tuner.config, 0))
        moved[penalty] = (tuner.weight - start).norm().item()
    assert moved[0] > 5 * moved[-1] > 0


def test_adapter_against_a_plain_forward(tiny, setting):
    tuner = build("adapter", setting, d=5, last_blocks=1, bottleneck_scale=0.3)
    assert tuner.stage == 2
    with torch.no_grad():
        for p in tuner.parameters():
            p.normal_()
    down, up = tuner.bottlenecks[0].down, tuner.bottlenecks[0].up
    tokens, block = torch.randn(3, 5, 48), tiny.model.vision_model.encoder.layers[2]
    middle = tokens + block.self_attn(block.layer_norm1(tokens))[0]
    normed = block.layer_norm2(middle)
    bottleneck = torch.relu(normed @ down.weight.T + down.bias) @ up.weight.T + up.bias
    hidden = middle + block.mlp(normed) + 0.3 * bottleneck
    pooled = tiny.model.vision_model.post_layernorm(hidden[:, 0])
    torch.testing.assert_close(tuner.image_features(tokens), normalize(tiny.model.visual_projection(pooled), dim=-1))


@pytest.mark.parametrize(("method", "kind"), [("norm_tuning", "norm"), ("bias_tuning", "bias")])
def test_only_norms_or_biases_are_trained(tiny, setting, method, kind):
    names = {name.removeprefix("selected.").replace("/", ".") for name in build(method, setting).trained()}
    everything = {name for name, _ in tiny.model.named_parameters()}
    wanted = {name for name in everything if ("norm" in name if kind == "norm" else name.endswith("bias"))}
    assert names == wanted
