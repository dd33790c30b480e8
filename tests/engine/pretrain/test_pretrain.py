"""Pretraining on a few made pictures: resuming, losses, the tokenizer, what is written."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tiny import picture

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

from engine.backbones import hf_clip  # noqa: E402
from engine.backbones.conv_stem import HybridCLIPModel, fold_batch_norms  # noqa: E402
from engine.pretrain import corpus, lexicon, losses, patterns, pocket_clip, teachers, trunk_features  # noqa: E402
from engine.pretrain.broader import broader  # noqa: E402
from engine.pretrain.card import read_runs  # noqa: E402
from engine.pretrain.measure import CLASSIFICATION, FOLDERS, probe, recall  # noqa: E402
from engine.pretrain.mixer import Mixer, Pictures, arrange  # noqa: E402
from engine.pretrain.model import Recipe  # noqa: E402


def encoded(seed: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    picture((40 * seed % 255, 120, 200), seed).convert(mode).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def write(path: Path, rows: int, captions: list[list[str]], mode: str = "RGB") -> None:
    columns = {
        "image": [{"bytes": encoded(i, mode), "path": None} for i in range(rows)],
        "captions": [captions[i % len(captions)] for i in range(rows)],
        "label": [captions[i % len(captions)][0] for i in range(rows)],
        "source": ["made"] * rows,
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A small file of every source and of two measuring sets."""
    import zipfile

    folder = tmp_path_factory.mktemp("data")
    photos, flickr, emoji, tiny, cifar = corpus.SOURCES
    for file in photos.files:
        write(folder / file, 3, [["forest", "aerial view of a forest"], ["banjo", "musical instrument"]])
    for file in tiny.files:
        write(folder / file, 4, [["tabby", "cat"], ["Egyptian cat", "cat"], ["beach", "sea"]])
    write(folder / cifar.files[0], 6, [["cat"], ["dog"], ["ship"]])
    write(folder / flickr.files[0], 3, [["A dog runs.", "A brown dog is running ."], ["Two men sit on a bench."]])
    write(folder / emoji.files[0], 2, [["grinning face"], ["cat face"]], "RGBA")
    write(folder / CLASSIFICATION["CIFAR-10"], 6, [["cat"], ["dog"]])
    with zipfile.ZipFile(folder / FOLDERS["clothing"], "w") as archive:
        for k in range(20):
            archive.writestr(f"{('hat', 'shoe')[k % 2]}/{k}.webp", encoded(k))
    return folder


class FakeEncoder:
    """A sentence encoder that knows nothing: each text has its own random feature."""

    def __init__(self, device: str):
        pass

    def encode(self, texts: list[str]) -> torch.Tensor:
        seeds = torch.tensor([zlib.crc32(text.encode()) for text in texts])
        return F.normalize(torch.sin(seeds[:, None] * torch.arange(1, 9)), dim=-1)


@pytest.fixture(scope="module", autouse=True)
def fake_teachers():
    """Random weights in the place of the teachers' packages."""
    import timm

    def network():
        torch.manual_seed(0)
        return fold_batch_norms(timm.create_model(teachers.NETWORK).eval())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teachers, "efficientnet_lite", network)
        patch.setattr(pocket_clip, "SentenceEncoder", FakeEncoder)
        patch.setattr(pocket_clip, "SAMPLED", 480)
        patch.setattr(trunk_features, "BATCH", 4)
        patch.setattr(patterns, "rows", lambda rows=patterns.rows, run=map: rows(each=1))
        patch.setattr(
            lexicon, "vocabulary_texts", lambda: [("oboe", "oboe: a woodwind"), ("pagoda", "pagoda: a temple")]
        )
        yield


def trainer(data: Path, root: Path, name: str, start: Path | None = None, **changes) -> pocket_clip.Trainer:
    recipe = Recipe(
        images=72,
        batch_size=24,
        vision_width=32,
        vision_layers=1,
        text_width=32,
        text_layers=1,
        vision_heads=2,
        text_heads=2,
        embedding=16,
        vocabulary=600,
        classes=12,
        imagined=4,
        words=4,
        distractors=6,
        **changes,
    )
    return pocket_clip.Trainer(recipe, data, root / name / "model", root / "work" / name, "cpu", start)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> pocket_clip.Trainer:
    """A training that ran to its end without a stop, measured and written."""
    whole = trainer(data, tmp_path_factory.mktemp("whole"), "whole")
    while whole.progress < 1:
        whole.train_step()
    whole.figures = whole.export()
    return whole


def test_resuming_gives_what_an_uninterrupted_run_gives(data, tmp_path, finished):
    part = trainer(data, tmp_path, "part")
    part.train_step()
    part.save()
    part = trainer(data, tmp_path, "part")
    assert part.resume()
    while part.progress < 1:
        part.train_step()
    for (name, a), (_, b) in zip(finished.average.named_parameters(), part.average.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_only_the_end_of_the_trunk_is_trained_and_only_late(data, tmp_path, finished):
    start = teachers.efficientnet_lite().state_dict()
    trunk = finished.model.stem.trunk.state_dict()
    moved = {name for name, tensor in trunk.items() if not torch.equal(tensor, start[name])}
    assert moved
    assert all(name.startswith(("blocks.5", "blocks.6", "conv_head")) for name in moved)
    early = trainer(data, tmp_path, "early")
    early.train_step()
    assert early.progress > early.recipe.trunk_from  # the next step would be one with it
    same = {name: torch.equal(tensor, start[name]) for name, tensor in early.model.stem.trunk.state_dict().items()}
    assert all(same.values())


def test_a_gpu_takes_larger_batches_and_options_win():
    cpu, gpu = Recipe.preset("cpu"), Recipe.preset("cuda", words=64)
    assert cpu == Recipe()
    assert (gpu.words, gpu.image_size) == (64, cpu.image_size)
    assert gpu.batch_size > cpu.batch_size


def test_a_checkpoint_of_another_recipe_is_refused(data, tmp_path):
    trainer(data, tmp_path, "x").save()
    with pytest.raises(ValueError, match="another recipe"):
        trainer(data, tmp_path, "x", tokens=20).resume()


def test_export_loads_through_the_ordinary_path(finished):
    assert 0 <= finished.figures["CIFAR-10"] <= 1
    assert 0 <= finished.figures["clothing, 8-shot probe"] <= 1
    loaded = hf_clip.load(finished.out, "mine")
    assert (loaded.shape.image_size, loaded.shape.vision_tokens) == (224, 50)
    card = (finished.out / "README.md").read_text()
    assert "| CIFAR-10 |" in card
    assert "What it cannot do" in card


def test_training_goes_on_from_finished_weights(data, tmp_path, finished):
    second = trainer(data, tmp_path, "second", start=finished.out)
    torch.testing.assert_close(
        second.model.clip.text_projection.weight,
        finished.average.module.clip.text_projection.weight,
        atol=1e-3,
        rtol=1e-3,
    )
    views = second.views.look(second.mixer.batch(0))
    with torch.no_grad():
        pictures = second._images(views, torch.zeros(0, dtype=torch.long))
    assert second._memory_loss(pictures, views) < 1  # 1 is what the mean alone gives
    second.train_step()
    second.export()
    runs = read_runs(second.out)
    assert [run["images"] for run in runs] == [finished.images, second.images]
    assert "| 2 |" in (second.out / "README.md").read_text()


def test_live_crops_train_the_whole_trunk(data, tmp_path, finished, monkeypatch):
    """Every stage moves, the first ones least; the model is measured and written as any other."""
    monkeypatch.setattr(pocket_clip, "WORKERS", 1)
    live = trainer(data, tmp_path, "live", start=finished.out, live=True)
    start = {name: tensor.clone() for name, tensor in live.model.stem.trunk.state_dict().items()}
    losses = []
    while live.progress < 1:
        losses.append(live.train_step())
    moved = {name: (tensor - start[name]).abs().max() for name, tensor in live.model.stem.trunk.state_dict().items()}
    assert np.isfinite(losses).all() and min(moved.values()) > 0
    assert moved["conv_stem.weight"] < moved["conv_head.weight"]
    figures = live.export()
    assert set(figures) == set(finished.figures)
    again = HybridCLIPModel.from_pretrained(live.out)
    pixels = torch.rand(2, 3, 224, 224)
    whole = live.average.module.clip.eval()
    found, wanted = (m.float().get_image_features(pixel_values=pixels).pooler_output for m in (again, whole))
    assert F.cosine_similarity(found, wanted).min() > 0.999


def test_fitting_captions_are_neither_positive_nor_negative():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0]], requires_grad=True)
    target = torch.tensor([0, 1])
    related = torch.tensor([[True, True, False], [False, True, False]])  # sentence 1 fits image 0 as well
    loss = losses.contrastive_loss(logits, target, related)
    row0 = -(2.0 - torch.logsumexp(torch.tensor([2.0, 0.0]), 0))
    row1 = -(3.0 - torch.logsumexp(torch.tensor([0.5, 3.0, 1.0]), 0))
    column0 = -(2.0 - torch.logsumexp(torch.tensor([2.0, 0.5]), 0))
    column1 = torch.tensor(0.0)  # image 0 is left out, so image 1 is alone
    expected = ((row0 + row1) / 2 + (column0 + column1) / 2) / 2  # sentence 2: no image drew it
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert logits.grad[0, 1] == 0


def test_a_class_is_imagined_nearer_to_its_pictures_than_its_row_is():
    """Gaussian classes of one covariance, and the classifier that belongs to them."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    means = torch.randn(40, 12, generator=generator) / 2 + 5
    truth = torch.arange(40).repeat(200)
    pooled = means[truth] + torch.randn(8000, 12, generator=generator) @ mixing.T
    rows = means @ torch.linalg.inv(torch.cov((pooled - means[truth]).T))
    made = losses.Imagination(pooled, rows, pooled @ rows.T)
    true = means - means.mean(0)
    by_row = F.cosine_similarity(rows - rows.mean(0), true).mean()
    assert F.cosine_similarity(made.means - made.mean, true).mean() > by_row + 0.2
    grids = torch.rand(40, 12, 7, 7, generator=generator) * 3
    moved = made(grids, torch.arange(40)).mean((2, 3))
    assert ((moved - made.means).norm(dim=-1) < (grids.mean((2, 3)) - made.means).norm(dim=-1)).all()


TEMPLATES = ("a {}.",)


def test_images_of_one_class_share_their_sentence():
    chosen = [("cat", TEMPLATES), ("tabby", TEMPLATES), ("cat", ("{}",))]
    fitting = [["cat"], ["tabby", "cat"], ["tabby", "cat"]]
    captions, sentences, target, related = arrange(chosen, fitting, ["ship", "cat"], torch.Generator().manual_seed(0))
    assert captions == ["cat", "tabby", "ship"]
    assert sentences[:2] == ["a cat.", "a tabby."]
    assert "ship" in sentences[2]
    assert target.tolist() == [0, 1, 0]
    assert related.tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def pictures(captions: list[list[str]], crops: int = 1) -> Pictures:
    source = corpus.Source("photos", (), 1, crops, 0.5, drawn=(crops - 1,) if crops > 1 else ())
    return Pictures(source, captions)


def test_a_broader_word_stands_in_now_and_then():
    assert broader(["rose"]) == ["flower", "plant"]
    assert broader(["egyptian cat", "cat"]) == ["animal", "pet"]
    assert broader(["oboe"]) == []
    generator = torch.Generator().manual_seed(0)
    rose = pictures([["rose"]])
    drawn = [rose.draw(0, generator) for _ in range(2000)]
    assert 0.12 < 1 - drawn.count("rose") / 2000 < 0.18
    assert set(drawn) == {"rose", "flower", "plant"}


def test_every_crop_is_seen_once_an_epoch_and_its_logits_believed_unless_it_was_redrawn():
    mixer = Mixer([pictures([["cat"], ["dog"], ["ship"]], crops=4)], 5, seed=1)
    batches = [mixer.batch(step) for step in range(12)]
    seen = torch.cat([batch.places[0] for batch in batches])
    for epoch in seen.split(12):
        assert sorted(epoch.tolist()) == list(range(12))
    for batch in batches:
        assert batch.taught.tolist() == [number < 9 for number in batch.places[0].tolist()]


def test_crops_have_one_size_and_the_first_is_the_middle():
    buffer = io.BytesIO()
    picture((200, 30, 30), 0, side=60).resize((90, 60)).save(buffer, "PNG")
    source = corpus.Source("photos", (), 1, 3, 0.4, drawn=(2,))
    for number in range(3):
        made = corpus.crop(buffer.getvalue(), source, number, np.random.default_rng(0))
        assert (made.shape, made.dtype) == ((3, 224, 224), np.uint8)
    plain = corpus.crop(buffer.getvalue(), source, 0, np.random.default_rng(1))
    assert np.array_equal(plain, np.asarray(corpus.plain(buffer.getvalue())).transpose(2, 0, 1))


@pytest.mark.parametrize("name", patterns.PATTERNS)
def test_patterns_show_two_colours(name):
    drawn = np.asarray(patterns.draw(name, np.random.default_rng(3)), float)
    assert drawn.shape == (224, 224, 3)
    assert drawn.std((0, 1)).max() > 4


def test_the_lexicon_knows_everyday_nouns_and_leaves_latin_out():
    classes = lexicon.nouns("imagenet-1k")
    assert len(classes) == 1000
    assert classes[0].names[0] == "tench"
    assert "tinca tinca" not in lexicon.everyday(classes[0].names)
    assert classes[0].described.startswith("tench, tinca tinca: ")


def test_bundled_tokenizer_reads_any_script(pocket):
    end = pocket.tokenizer.eos_token_id
    assert end == len(pocket.tokenizer) - 1 == pocket.shape.vocabulary - 1
    for text in ("a cat", "고양이", "😀 naïve ⟪x⟫", "A CAT"):
        ids = pocket.tokenizer(text).input_ids
        assert ids.count(end) == 1, text  # nothing is unknown
    assert pocket.tokenizer("A CAT").input_ids == pocket.tokenizer("a  cat").input_ids


def test_recall():
    image, text = torch.eye(20), torch.eye(20)
    assert recall(image, text, k=1) == 1
    assert recall(image, text.roll(1, 0), k=1) == 0
    assert recall(image, torch.zeros(20, 20), k=20) == 1
    assert np.isclose(recall(image[:4], text[:4], k=10), 1)


def test_the_probe_learns_what_is_there_and_nothing_else():
    random, truth = np.random.default_rng(0), np.arange(300) % 3
    noise = random.normal(size=(300, 16)) / 4
    assert probe(noise + np.eye(16)[truth], truth) > 0.95
    assert 0.2 < probe(noise, truth) < 0.5
