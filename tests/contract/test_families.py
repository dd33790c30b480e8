"""Every method on every family of backbones: it keeps the shorter contract, or says why it cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.backbones.base import PIXELS
from engine.data import episode
from engine.errors import BadConfig
from engine.methods.peft_table import ROWS
from engine.runs import store
from engine.runs.run import Run
from engine.tuning import loop, registry
from engine.tuning.features import Cache
from engine.tuning.losses import classification
from engine.tuning.predict import predict
from engine.types import RunSpec
from tests.contract.test_contract import LABELS, METHODS, short
from tests.families import KINDS, OPEN_CLIP, make, open_clip_model

REFUSED = {
    ("mobileclip", "visual_prompt"),
    ("mobileclip", "visual_prompt_deep"),
    ("resnet", "visual_prompt"),
    ("resnet", "visual_prompt_deep"),
    ("resnet", "lora"),
    ("resnet", "distill"),
    ("mobileclip", "image_prompt"),
    ("resnet", "image_prompt"),
    *((kind, "prefix_tuning") for kind in OPEN_CLIP),
    ("mobileclip", "adapter"),
    ("resnet", "adapter"),
    ("siglip", "prolip"),
    ("siglip_timm", "prolip"),
    ("resnet", "prolip"),
    *(("resnet", row) for row in ROWS),
}
"""What cannot be: prompts and adapters need image tokens, ProLIP a linear projection, LoRA's and its kin's usual
targets are attention in both towers, prefixes join the attention of transformers' towers."""


FITTING = {"context_prompt": {"context": "a photo of a"}}
"""Settings that fit the short context of tiny text towers."""


def obstacle_of(method: str, backbone) -> BadConfig | None:
    spec = registry.get(method)
    return registry.obstacle(spec, backbone, spec.configure(settings=FITTING.get(method)))


ROW_FAMILIES = ("siglip", "vit", "mobileclip")
"""Where every row of PEFT's table is trained: split attention, transformers' own, and convolutions beside it."""


def kind_of(backbone) -> str:
    return backbone.id.removeprefix("tiny-")


@pytest.fixture
def run(request, family, task_images):
    """A short run of one method; None where the backbone refuses it."""
    method = request.getfixturevalue("method")
    if obstacle_of(method, family):
        assert (kind_of(family), method) in REFUSED
        return None
    return make_run(method, family, task_images)


def make_run(method: str, backbone, task_images, epochs: int = 15, **more) -> Run:
    """Few epochs at a rate that suits a random tower; a weak cache, which leaves Tip-Adapter-F something to learn."""
    chosen = episode.build(LABELS, [image.label for image in task_images], 4)
    cache = {"alpha": 0.1, "beta": 1.0} if method == "tip_adapter_f" else {}
    settings = short(method, epochs=epochs, **cache) | FITTING.get(method, {}) | more
    if "epochs" in settings:
        settings["lr"] = 2e-4 if registry.get(method).family == "weights" else 1e-2
        if method in ROWS:
            settings["lr"] = ROWS[method].lr / (4 if ROWS[method].by_width else 1)
        elif (kind_of(backbone), method) == ("eva", "bias_tuning"):
            settings["lr"] = 2e-6  # this random tower's features are so short that a bias turns them at once
    spec = RunSpec(backbone.id, method, chosen, settings=tuple(settings.items()))
    return Run(spec, task_images, backbone, cache=Cache())


@pytest.mark.parametrize("method", METHODS)
def test_starts_learns_and_declares(method, family, run):
    """Start equals its baseline; loss falls; what is declared is what is counted and what changes."""
    if run is None or (method in ROWS and kind_of(family) not in ROW_FAMILIES):
        return
    everything = range(len(run.store))
    before = {name: tensor.clone() for name, tensor in family.model.state_dict().items()}
    setting = run._setting(run.spec.episode.final_support)
    torch.manual_seed(0)
    tuner = run.method.tuner()(run.config, setting)
    logits = predict(tuner, run.store, everything)
    assert torch.isfinite(logits).all()
    baseline = {"zero_shot": setting.single, "zero_shot_ensemble": setting.ensemble}.get(run.method.starts_at)
    if baseline is not None:
        torch.testing.assert_close(logits, family.logits(run.store.features(), baseline), atol=1e-4, rtol=1e-4)
    trained = tuner.trained()
    declared = run.method.count(family.shape, run.config, len(LABELS), len(setting.targets))
    assert declared == sum(p.numel() for p in trained.values())
    if tuner.trains:
        learns(tuner, run, setting)
    after = family.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in family.model.parameters())


def learns(tuner, run, setting) -> None:
    """The loss falls and nothing but the declared parameters changes, running statistics included."""
    inputs = run.store.stage(tuner.stage, run.spec.episode.final_support)
    parameters = tuner.trained()
    fixed = {n: t.clone() for n, t in [*tuner.named_parameters(), *tuner.named_buffers()] if n not in parameters}
    start = {name: p.detach().clone() for name, p in parameters.items()}

    def loss() -> float:
        with torch.no_grad():
            return classification(tuner.eval()(inputs), setting.targets).item()

    before = loss()
    list(loop.fit(tuner, inputs[None], setting.targets, run.config, 0))
    assert loss() < before - 1e-4
    assert any(not torch.equal(start[name], p) for name, p in parameters.items())
    for name, tensor in [*tuner.named_parameters(), *tuner.named_buffers()]:
        assert name not in fixed or torch.equal(fixed[name], tensor), name


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ROWS])
def test_saved_and_loaded_gives_equal_logits(method, family, run, tmp_path):
    if run is None:
        return
    *_, outcome = run.run()
    store.save(outcome, tmp_path)
    adapter = store.load(tmp_path, family)
    everything = range(len(run.store))
    wanted = predict(outcome.tuner, run.store, everything)
    torch.testing.assert_close(predict(adapter.tuner, run.store, everything), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_refusals(method, family, task_images):
    obstacle = obstacle_of(method, family)
    assert (obstacle is not None) == ((kind_of(family), method) in REFUSED)
    if obstacle:
        assert obstacle.key in ("method_needs", "no_such_layers", "no_prefix_attention", "patches_need_tokens")
        assert "Choose" in str(obstacle)
        chosen = episode.build(LABELS, [image.label for image in task_images], 4)
        with pytest.raises(BadConfig, match="Choose"):
            Run(RunSpec(family.id, method, chosen), task_images, family, cache=Cache())


def test_a_border_is_trained_on_every_image_tower(family, task_images):
    run = make_run("image_prompt", family, task_images, form="border")
    setting = run._setting(run.spec.episode.final_support)
    tuner = run.method.tuner()(run.config, setting)
    start = predict(tuner, run.store, range(len(run.store)))
    expected = family.logits(run.store.features(), setting.ensemble)
    torch.testing.assert_close(start, expected, atol=1e-4, rtol=1e-4)  # nothing is added yet
    assert tuner.pixels.numel() == run.method.count(family.shape, run.config, 3, 12)
    learns(tuner, run, setting)


def test_loose_patches_are_embedded_as_those_of_an_image(family):
    """All patches of one image: their mean is that of its tokens, but for what a norm after the positions changes."""
    if not family.vision.has_tokens:
        with pytest.raises(NotImplementedError):
            family.vision.embed_patches(torch.zeros(1, 3, 8, 8))
        return
    from engine.methods.image_prompt import cut

    picture, shape = torch.randn(3, family.shape.image_size, family.shape.image_size), family.shape
    loose = family.vision.embed_patches(cut(picture, shape.patch))
    own = family.vision.advance(picture[None], PIXELS, 0)[0, family.vision.prefix :]
    assert loose.shape == own.shape
    if family.vision.first_trainable != PIXELS:  # a trunk looks beyond a patch's border: its loose patches differ
        return
    normed = torch.allclose(loose.mean(1), torch.zeros(len(loose)), atol=1e-4)
    if not normed:  # no norm stands between positions and blocks
        torch.testing.assert_close(loose.mean(0), own.mean(0), atol=1e-5, rtol=1e-4)
    assert torch.corrcoef(torch.stack([loose.flatten(), own.flatten()]))[0, 1] > 0.5


def test_lora_takes_layers_of_one_tower_only(family):
    """PEFT finds modules by the ends of their names; those of a text tower may end a vision tower's."""
    from engine.methods.lora import LoraConfig

    for tower in ("vision", "text"):
        config = LoraConfig(targets="q,out,fc1", towers=tower, last_blocks=1, r=2)
        if config.obstacle(family):
            assert kind_of(family) == "resnet" and tower == "vision"
            continue
        from peft import LoraConfig as PeftConfig
        from peft import get_peft_model

        names = config.names(family)
        model = get_peft_model(family.twin().model, PeftConfig(r=2, target_modules=family.peft_targets(names)))
        modules = [name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name]
        found = {name.removeprefix("base_model.model.") for name in modules}
        assert found == set(names)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trained == registry.get("lora").count(family.shape, config, 3, 12)


def test_saved_peft_adapter_loads_in_peft_alone(tmp_path, task_images):
    """The folder that PEFT reads fits the library's own model once its attention is split."""
    from peft import PeftModel

    from engine.backbones.openclip import split_model
    from tests import families

    backbone = families.make_open_clip("vit", tmp_path)[0]
    *_, outcome = make_run("lora", backbone, task_images, epochs=2).run()
    store.save(outcome, tmp_path / "adapter")
    own = open_clip_model("vit")
    split_model(own)
    loaded = PeftModel.from_pretrained(own, str(tmp_path / "adapter")).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = outcome.tuner.tuned.encode_image(pixels)
        found = loaded.base_model.model.encode_image(pixels, normalize=True)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def matrix(tiny, tmp_path_factory) -> str:
    """The table of docs/backbones.md, from what the engine says."""
    columns: dict = {"clip": tiny}
    for kind in KINDS:
        columns[COLUMNS.get(kind, kind)] = make(kind, tmp_path_factory.mktemp(kind))
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for spec in registry.methods():
        obstacles = [obstacle_of(spec.id, backbone) for backbone in columns.values()]
        cells = ["yes" if o is None else said(o) for o in obstacles]
        lines.append(f"| `{spec.id}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def said(obstacle: BadConfig) -> str:
    """An obstacle in a cell."""
    if obstacle.key == "no_prefix_attention":
        return "transformers' towers only"
    if obstacle.key == "patches_need_tokens":
        return "border only"
    return f"no {obstacle.values['needed']}" if "needed" in obstacle.values else "text tower only"


COLUMNS = {
    "trunk": "Pocket CLIP",
    "vit": "open_clip ViT",
    "custom": "open_clip ViT, averaged",
    "siglip_timm": "open_clip SigLIP",
    "eva": "PE-Core",
    "mobileclip": "MobileCLIP-S",
    "hybrid": "MobileCLIP-B",
    "resnet": "ResNet",
}


def test_the_matrix_in_the_docs(matrix):
    text = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf8")
    found = text.split("<!-- matrix -->")[1].strip()
    assert found == matrix, f"docs/backbones.md should end in:\n{matrix}"


def test_wise_ft_mixes_every_family(family, task_images):
    run = make_run("full", family, task_images)
    setting = run._setting(run.spec.episode.final_support)
    tuner = run.method.tuner()(run.config, setting)
    with torch.no_grad():
        for p in tuner.model.parameters():
            p.mul_(1.05)
    images = range(len(run.store))
    start = family.logits(run.store.features(), setting.single)
    torch.testing.assert_close(predict(tuner.mixed(0), run.store, images), start, atol=1e-4, rtol=1e-4)
    moved = predict(tuner, run.store, images)
    torch.testing.assert_close(predict(tuner.mixed(1), run.store, images), moved, atol=1e-5, rtol=1e-5)
    assert (moved - start).abs().max() > 1e-3
