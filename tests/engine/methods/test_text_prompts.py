"""The text prompt methods' equations against a few independent lines on the library's own modules."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from engine.errors import BadConfig
from engine.methods import context_prompt, multitask_prompt
from engine.tuning import loop, registry
from engine.tuning.tuner import TunerContext
from engine.types import Label

LABELS = (Label("cat", "cat"), Label("fire truck", "fire truck"), Label("x", "x"), Label("dog", "dog"))


@pytest.fixture
def setting(tiny) -> TunerContext:
    torch.manual_seed(1)
    support = normalize(torch.randn(16, 24), dim=-1)
    prompts = [label.prompt for label in LABELS]
    sentences = ("a photo of a {}.", "{}")
    return TunerContext(
        tiny,
        LABELS,
        sentences,
        tiny.text_features(prompts, sentences[:1]),
        tiny.text_features(prompts, sentences),
        support,
        torch.arange(4).repeat(4),
    )


def build(method: str, setting: TunerContext, preset: str = "budget", **settings):
    spec = registry.get(method)
    torch.manual_seed(0)
    return spec.tuner()(spec.configure(preset, settings), setting).eval()


@torch.no_grad()
def disturb(tuner) -> None:
    """Move every trained parameter away from its start."""
    torch.manual_seed(2)
    for p in tuner.trained().values():
        p.add_(0.05 * torch.randn_like(p))


def plain_text(tiny, rows: list[torch.Tensor]) -> torch.Tensor:
    """Features of token embeddings ``(T, D)`` a text, by the library's modules alone; the last token is pooled."""
    text = tiny.model.text_model
    features = []
    for row in rows:
        hidden = row + text.embeddings.position_embedding.weight[: len(row)]
        causal = torch.full((len(row), len(row)), float("-inf")).triu(1)[None, None]
        for block in text.encoder.layers:
            hidden = block(hidden[None] if hidden.ndim == 2 else hidden, causal)
        features.append(tiny.model.text_projection(text.final_layer_norm(hidden[0, -1])))
    return normalize(torch.stack(features), dim=-1)


def embedded(tiny, text: str) -> torch.Tensor:
    """Token embeddings ``(T, D)`` of a text without start and end."""
    ids = tiny.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
    return tiny.model.text_model.embeddings.token_embedding(ids)


def framed(tiny, *parts: torch.Tensor) -> torch.Tensor:
    """``[start] parts [end]``."""
    table, config = tiny.model.text_model.embeddings.token_embedding.weight, tiny.model.config.text_config
    return torch.cat([table[[config.bos_token_id]], *parts, table[[config.eos_token_id]]])


@torch.no_grad()
def test_conditional_prompt_shifts_every_vector_by_the_image(tiny, setting):
    tuner = build("conditional_prompt", setting, tokens=3)
    disturb(tuner)
    f = normalize(torch.randn(3, 24), dim=-1)
    down, _, up = tuner.meta_net
    rows = []
    for image in f:
        shift = torch.relu(image @ down.weight.T + down.bias) @ up.weight.T + up.bias
        texts = [framed(tiny, tuner.context + shift, embedded(tiny, f"{label.prompt}.")) for label in LABELS]
        rows.append(tiny.model.logit_scale.exp() * plain_text(tiny, texts) @ image)
    torch.testing.assert_close(tuner(f), torch.stack(rows), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_conditional_prompt_shows_the_mean_shift(tiny, setting):
    tuner = build("conditional_prompt", setting)
    disturb(tuner)
    tuner.finished()
    shift = tuner.meta_net(setting.support).mean(0)
    texts = [framed(tiny, tuner.context + shift, embedded(tiny, f"{label.prompt}.")) for label in LABELS]
    torch.testing.assert_close(tuner.text_features(), plain_text(tiny, texts), atol=1e-5, rtol=1e-4)
    assert tuner.saved()["mean_shift"].shape == (32,)


def test_conditional_prompt_in_pieces_has_the_same_gradient(setting, monkeypatch):
    f = normalize(torch.randn(6, 24), dim=-1)
    gradients = []
    for texts_at_once in (1000, 8):  # the whole batch, and two images with their four texts at a time
        monkeypatch.setattr("engine.methods.conditional_prompt.TEXTS_AT_ONCE", texts_at_once)
        tuner = build("conditional_prompt", setting, meta_start="noise")
        loss, logits = tuner.objective(f, torch.tensor([0, 1, 2, 3, 0, 1]))
        loss.backward()
        gradients.append([logits.detach(), *(p.grad for p in tuner.trained().values())])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    assert gradients[0][1].abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_p_tuning_stands_where_it_should_and_its_encoder_can_go(tiny, setting, encoder):
    tuner = build("p_tuning", setting, encoder=encoder, front=3, back=2, anchor="photo of", hidden=8)
    disturb(tuner)
    module = tuner.encoder
    start = module.embedding.weight[None]
    vectors = module.mlp_head(module.lstm_head(start)[0] if encoder == "lstm" else start)[0]
    texts = [
        framed(
            tiny,
            vectors[:3],
            embedded(tiny, "photo of"),
            embedded(tiny, label.prompt),
            vectors[3:],
            embedded(tiny, "."),
        )
        for label in LABELS
    ]
    before = tuner.text_features()
    torch.testing.assert_close(before, plain_text(tiny, texts), atol=1e-5, rtol=1e-4)
    kept = tuner.finished()
    assert torch.equal(kept.text_features(), before)
    assert {name: p.numel() for name, p in kept.saved().items()} == {"vectors": 5 * 32}
    assert not any("encoder" in name for name, _ in kept.named_parameters())
    pieces = kept.learned()[0].layout
    assert [piece.text for piece in pieces] == ["v1", "v2", "v3", "photo of cat", "v4", "v5", "."]
    assert [piece.trained for piece in pieces] == [True, True, True, False, True, True, False]


def test_p_tuning_is_not_without_vectors():
    with pytest.raises(BadConfig) as caught:
        registry.get("p_tuning").configure("budget", {"front": 0, "back": 0})
    assert caught.value.key == "setting_conflict"


def attend(block, hidden: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, causal: bool) -> torch.Tensor:
    """A CLIP block on ``(T, D)``, head by head and token by token, with M more keys and values ``(M, D)``."""
    attention, x = block.self_attn, block.layer_norm1(hidden)
    q, k, v = attention.q_proj(x), torch.cat([keys, attention.k_proj(x)]), torch.cat([values, attention.v_proj(x)])
    size, mixed = attention.head_dim, torch.zeros_like(x)
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(x)):
            seen = len(keys) + (t + 1 if causal else len(x))
            weights = (k[:seen, part] @ q[t, part] / size**0.5).softmax(0)
            mixed[t, part] = weights @ v[:seen, part]
    hidden = hidden + attention.out_proj(mixed)
    return hidden + block.mlp(block.layer_norm2(hidden))


@torch.no_grad()
def test_prefix_is_keys_and_values_before_the_text_and_its_encoder_can_go(tiny, setting):
    tuner = build("prefix_tuning", setting, tokens=2, hidden=8)
    disturb(tuner)
    module, text = tuner.encoders["text"], tiny.model.text_model
    hidden = torch.tanh(module.embedding.weight @ module.transform[0].weight.T + module.transform[0].bias)
    flat = hidden @ module.transform[2].weight.T + module.transform[2].bias  # (2, 2 * 3 * 32)
    features = []
    for label in LABELS:
        row = framed(tiny, embedded(tiny, f"a photo of a {label.prompt}."))
        row = row + text.embeddings.position_embedding.weight[: len(row)]  # positions do not move
        for k, block in enumerate(text.encoder.layers):
            row = attend(block, row, flat[:, 64 * k : 64 * k + 32], flat[:, 64 * k + 32 : 64 * k + 64], causal=True)
        features.append(tiny.model.text_projection(text.final_layer_norm(row[-1])))
    before = tuner.text_features()
    torch.testing.assert_close(before, normalize(torch.stack(features), dim=-1), atol=1e-5, rtol=1e-4)
    kept = tuner.finished()
    assert torch.equal(kept.text_features(), before)
    assert {name: p.numel() for name, p in kept.saved().items()} == {"prefixes.text": 3 * 2 * 2 * 32}
    assert not list(kept.encoders)


@torch.no_grad()
def test_prefix_in_the_image_tower(tiny, setting):
    tuner = build("prefix_tuning", setting, tokens=2, towers="vision", encoder=False)
    disturb(tuner)
    flat, vision = tuner.encoders["vision"].embedding.weight, tiny.model.vision_model
    tokens = torch.randn(5, 48)
    row = tokens
    for k, block in enumerate(vision.encoder.layers):
        row = attend(block, row, flat[:, 96 * k : 96 * k + 48], flat[:, 96 * k + 48 : 96 * k + 96], causal=False)
    wanted = normalize(tiny.model.visual_projection(vision.post_layernorm(row[0])), dim=-1)
    torch.testing.assert_close(tuner.image_features(tokens[None])[0], wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(tuner.text_features(), setting.ensemble)


@torch.no_grad()
def test_prefix_leaves_the_backbone_alone_and_both_towers_are_trained(tiny, setting):
    tuner = build("prefix_tuning", setting, towers="both")
    assert tuner.stage == 0
    assert {name.split(".")[1] for name in tuner.trained()} == {"text", "vision"}
    assert type(tiny.text.blocks[0].self_attn).__name__ == "CLIPAttention"
    ours, theirs = tuner.tuned.text.blocks[0].self_attn.attention, tiny.text.blocks[0].self_attn
    assert ours.q_proj.weight.data_ptr() == theirs.q_proj.weight.data_ptr()
    declared = registry.get("prefix_tuning").count(tiny.shape, tuner.config, 4, 16)
    assert declared == sum(p.numel() for p in tuner.trained().values())


def test_prefix_names_a_tower_that_cannot_take_it(tiny, setting):
    other = tiny.twin()
    for block in other.vision.blocks:
        block.self_attn = torch.nn.Identity()
    broken = TunerContext(**{**vars(setting), "backbone": other})
    build("prefix_tuning", broken)
    with pytest.raises(BadConfig, match="image tower"):
        build("prefix_tuning", broken, towers="both")


@torch.no_grad()
def test_multitask_prompt_is_a_hadamard_product(tiny, setting):
    tuner = build("multitask_prompt", setting, rank=2)
    torch.testing.assert_close(tuner.text_features(), setting.single, atol=1e-6, rtol=0)  # factors of ones
    disturb(tuner)
    module = tuner.prompt
    factor = sum(torch.outer(module.prefix_task_cols[0, :, r], module.prefix_task_rows[0, r]) for r in range(2))
    texts = [framed(tiny, module.embedding.weight * factor, embedded(tiny, f"{label.prompt}.")) for label in LABELS]
    torch.testing.assert_close(tuner.text_features(), plain_text(tiny, texts), atol=1e-5, rtol=1e-4)


def test_multitask_source_stage_distils_one_prompt(tiny, setting):
    config = registry.get("multitask_prompt").configure("budget", {"groups": "cat, dog | fire truck, x"})
    tasks = multitask_prompt.task_of_labels(config, setting)
    assert tasks.tolist() == [0, 1, 1, 0]
    teachers = multitask_prompt.SourcePrompts(config, setting, tasks)
    disturb(teachers)
    shared = multitask_prompt.SharedPrompt(config, setting, tasks, teachers)
    disturb(shared)
    f, targets = normalize(torch.randn(6, 24), dim=-1), torch.tensor([0, 1, 2, 3, 0, 2])
    loss, _ = shared.objective(f, targets)
    module, wanted = shared.prompt, torch.zeros(())
    with torch.no_grad():
        own = [
            module.embedding.weight * torch.outer(u[:, 0], v[0])
            for u, v in zip(module.prefix_task_cols, module.prefix_task_rows, strict=True)
        ]
        words = [embedded(tiny, f"{label.prompt}.") for label in LABELS]
        student = plain_text(tiny, [framed(tiny, own[k], w) for k, w in zip(tasks, words, strict=True)])
        teacher = plain_text(tiny, [framed(tiny, teachers.own[k], w) for k, w in zip(tasks, words, strict=True)])
        for image, target in zip(f, targets.tolist(), strict=True):
            group = [k for k in range(4) if tasks[k] == tasks[target]]
            p = (tiny.scale * student[group] @ image).softmax(0)
            q = (tiny.scale * teacher[group] @ image).softmax(0)
            wanted += (-p[group.index(target)].log() + 0.9 * (q * (q / p).log()).sum()) / 6
        wanted += 0.9 * ((student - teacher) ** 2).sum(1).mean()
    torch.testing.assert_close(loss.detach(), wanted, atol=1e-5, rtol=1e-4)


def test_multitask_target_starts_from_the_source_stage(setting):
    tuner = build("multitask_prompt", setting, source_epochs=2, batch_size=8)
    start = tuner.prompt.embedding.weight.detach().clone()
    assert tuner.tasks.bincount().tolist() == [2, 2]  # four labels make two groups at most
    moments = list(tuner.prepare(None, range(16)))
    assert moments == [(k, 8) for k in range(1, 9)]
    assert not torch.equal(start, tuner.prompt.embedding.weight)
    assert tuner.prompt.prefix_task_cols.shape == (1, 4, 1)
    source = build("multitask_prompt", setting).prompt
    source.prefix_task_rows = torch.nn.Parameter(torch.stack([torch.ones(1, 32), 3 * torch.ones(1, 32)]))
    tuner.start_from(source)
    assert torch.equal(tuner.prompt.prefix_task_rows, 2 * torch.ones(1, 1, 32))
    assert torch.equal(tuner.prompt.embedding.weight, start)


@pytest.mark.parametrize("groups", ["cat, mouse", "cat | cat, x"])
def test_multitask_groups_name_labels_once(setting, groups):
    with pytest.raises(BadConfig, match="groups"):
        build("multitask_prompt", setting, groups=groups)


CONTEXT = "a red thing | seen from above\na photo of a"


@torch.no_grad()
def test_context_prompt_starts_from_real_sentences(tiny, setting):
    tuner = build("context_prompt", setting, context=CONTEXT)
    sentences = torch.cat([embedded(tiny, s) for s in ("a red thing", "seen from above", "a photo of a")])
    texts = [framed(tiny, sentences, embedded(tiny, f"{label.prompt}.")) for label in LABELS]
    torch.testing.assert_close(tuner.text_features(), plain_text(tiny, texts), atol=1e-5, rtol=1e-4)
    assert {name: tuple(p.shape) for name, p in tuner.saved().items()} == {"shifts": tuple(sentences.shape)}
    one = build("context_prompt", setting, context="a photo of a")
    torch.testing.assert_close(one.text_features(), setting.single, atol=1e-6, rtol=0)


def test_context_prompt_stays_in_its_ball(tiny, setting):
    tuner = build("context_prompt", setting, context=CONTEXT, epsilon=0.1, lr=0.5, epochs=3, batch_size=8)
    start = tuner.vectors().detach().clone()
    radius = 0.1 * (32 / 2048) ** 0.5
    for _ in loop.fit(tuner, setting.support[None], setting.targets, tuner.config, 0):
        shift = tuner.shifts.detach().norm(dim=1)  # projected after the step, not at the next use
        assert shift.max() <= radius * (1 + 1e-5)
    assert shift.max() > 0.99 * radius  # such a learning rate takes them to the edge
    torch.testing.assert_close((tuner.vectors() - start).detach().norm(dim=1), shift)


def test_the_ball_is_that_of_peft():
    from peft import CPTConfig, TaskType
    from peft.tuners.cpt.model import CPTEmbedding

    adapter = CPTConfig(
        task_type=TaskType.CAUSAL_LM, cpt_token_ids=[0, 1, 2], cpt_tokens_type_mask=[2] * 3, opt_projection_epsilon=0.3
    )
    adapter.token_dim = 32
    module = CPTEmbedding(adapter, torch.nn.Embedding(3, 32))
    shifts = torch.randn(3, 32) * torch.tensor([[0.001], [0.01], [1.0]])
    module.delta_embedding.weight.data = shifts.clone()
    ours = torch.renorm(shifts, p=2, dim=0, maxnorm=context_prompt.radius(0.3, 32))
    torch.testing.assert_close(ours, module.get_projection(), atol=1e-6, rtol=1e-4)


def test_context_prompt_weighs_sentences_by_their_distance_to_the_label(tiny, setting):
    tuner = build("context_prompt", setting, context=CONTEXT, decay=0.5)
    f, targets = normalize(torch.randn(5, 24), dim=-1), torch.tensor([0, 1, 2, 3, 0])
    loss, logits = tuner.objective(f, targets)
    parts = [embedded(tiny, s) for s in ("a red thing", "seen from above", "a photo of a")]
    wanted, total = torch.zeros(()), 0.0
    with torch.no_grad():
        for j, weight in ((1, 0.25), (2, 0.5), (3, 1.0)):
            texts = [framed(tiny, *parts[:j], embedded(tiny, f"{label.prompt}.")) for label in LABELS]
            own = tiny.scale * f @ plain_text(tiny, texts).T
            wanted, total = wanted + weight * torch.nn.functional.cross_entropy(own, targets), total + weight
    torch.testing.assert_close(loss.detach(), wanted / total, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits.detach(), own, atol=1e-4, rtol=1e-4)


def test_context_that_leaves_no_room_is_refused(setting):
    with pytest.raises(BadConfig) as caught:
        build("context_prompt", setting, context="thing " * 40)
    assert caught.value.key == "long_context"
    with pytest.raises(BadConfig):
        build("context_prompt", setting, context=" | ")


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "prefix_tuning"])
def test_keep_adds_the_distance_to_the_frozen_texts(method, setting):
    plain, kept = build(method, setting), build(method, setting, keep=8)
    for tuner in (plain, kept):
        disturb(tuner)
    x, y = setting.support, setting.targets
    (loss, logits), (held, same) = plain.objective(x, y), kept.objective(x, y)
    torch.testing.assert_close(logits, same)
    distance = sum((w - t).pow(2).sum() for w, t in zip(plain.text_features(), setting.ensemble, strict=True)) / 4
    torch.testing.assert_close(held, loss + 8 * distance)
    kept.objective(x, y)[0].backward()
    assert all(p.grad is not None for p in kept.trained().values())
