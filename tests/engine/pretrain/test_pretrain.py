"""Pretraining on a few made pictures: resuming, losses, the tokenizer, what is written."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import picture

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

from engine.backbones import entries, hf_clip  # noqa: E402
from engine.pretrain import corpus, pocket_clip  # noqa: E402
from engine.pretrain.broader import broader  # noqa: E402
from engine.pretrain.card import read_runs  # noqa: E402
from engine.pretrain.measure import CLASSIFICATION, recall  # noqa: E402
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
    """A small file of every source and of one measuring set."""
    folder = tmp_path_factory.mktemp("data")
    for file in corpus.FILES["tiny-imagenet"]:
        write(folder / file, 12, [["tabby", "cat"], ["Egyptian cat", "cat"], ["beach", "sea"]])
    write(folder / "cifar.parquet", 12, [["cat"], ["dog"], ["ship"]])
    write(folder / "flickr8k.parquet", 6, [["A dog runs.", "A brown dog is running ."], ["Two men sit on a bench."]])
    write(folder / "emoji.parquet", 4, [["grinning face"], ["cat face"]], "RGBA")
    write(folder / CLASSIFICATION["CIFAR-10"], 6, [["cat"], ["dog"]])
    return folder


def trainer(data: Path, root: Path, name: str, start: Path | None = None) -> pocket_clip.Trainer:
    recipe = Recipe(
        images=240, batch_size=24, vision_width=32, vision_layers=1, text_width=32, text_layers=1, vision_heads=2,
        text_heads=2, embedding=16, image_size=24, small_size=16, small_share=0.5,
    )  # fmt: skip
    return pocket_clip.Trainer(recipe, data, root / name / "model", root / name / "work", "cpu", start)


def test_resuming_gives_what_an_uninterrupted_run_gives(data, tmp_path):
    whole = trainer(data, tmp_path, "whole")
    while whole.progress < 1:
        whole.train_step()
    assert whole.size == 24
    part = trainer(data, tmp_path, "part")
    for stop in (3, 7):  # before and after the images have grown
        while part.step < stop:
            part.train_step()
        part.save()
        part = trainer(data, tmp_path, "part")
        assert part.resume()
    while part.progress < 1:
        part.train_step()
    for (name, a), (_, b) in zip(whole.average.named_parameters(), part.average.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_gpu_gets_stronger_augmentation_and_options_win():
    cpu, gpu = Recipe.preset("cpu"), Recipe.preset("cuda", batch_size=64)
    assert cpu == Recipe()
    assert (gpu.batch_size, gpu.image_size) == (64, cpu.image_size)
    assert gpu.min_area < cpu.min_area
    assert gpu.jitter > cpu.jitter


def test_a_checkpoint_of_another_recipe_is_refused(data, tmp_path):
    first = trainer(data, tmp_path, "x")
    first.save()
    other = pocket_clip.Trainer(Recipe(images=24, batch_size=24), data, tmp_path / "m", tmp_path / "x" / "work", "cpu")
    with pytest.raises(ValueError, match="another recipe"):
        other.resume()


def test_export_loads_through_the_ordinary_path(data, tmp_path):
    run = trainer(data, tmp_path, "y")
    run.train_step()
    figures = run.export()
    assert 0 <= figures["CIFAR-10"] <= 1
    loaded = hf_clip.load(run.out, "mine")
    assert loaded.shape.image_size == 24
    card = (run.out / "README.md").read_text()
    assert "CIFAR-10" in card
    assert "What it cannot do" in card


def test_training_goes_on_from_finished_weights(data, tmp_path):
    first = trainer(data, tmp_path, "first")
    while first.progress < 1:
        first.train_step()
    first.export()
    second = trainer(data, tmp_path, "second", start=first.out)
    torch.testing.assert_close(
        second.model.text_projection.weight, first.average.module.text_projection.weight, atol=1e-3, rtol=1e-3
    )
    second.train_step()
    second.save()
    assert trainer(data, tmp_path, "second").resume()
    second.export()
    runs = read_runs(second.out)
    assert [run["images"] for run in runs] == [first.images, second.images]
    assert "| 2 |" in (second.out / "README.md").read_text()


def test_weights_of_another_shape_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="shape"):
        trainer(data, tmp_path, "z", start=entries.POCKET_FOLDER)


def test_fitting_captions_are_neither_positive_nor_negative():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0]], requires_grad=True)
    target = torch.tensor([0, 1])
    related = torch.tensor([[True, True, False], [False, True, False]])  # sentence 1 fits image 0 as well
    loss = pocket_clip.contrastive_loss(logits, target, related)
    row0 = -(2.0 - torch.logsumexp(torch.tensor([2.0, 0.0]), 0))
    row1 = -(3.0 - torch.logsumexp(torch.tensor([0.5, 3.0, 1.0]), 0))
    column0 = -(2.0 - torch.logsumexp(torch.tensor([2.0, 0.5]), 0))
    column1 = torch.tensor(0.0)  # image 0 is left out, so image 1 is alone
    expected = ((row0 + row1) / 2 + (column0 + column1 + 0) / 3) / 2
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert logits.grad[0, 1] == 0


def test_images_of_one_class_share_their_sentence():
    generator = torch.Generator().manual_seed(0)
    chosen = [("cat", "cifar"), ("tabby", "tiny-imagenet"), ("cat", "tiny-imagenet")]
    texts, target, related = corpus.sentences(chosen, [["cat"], ["tabby", "cat"], ["tabby", "cat"]], generator)
    assert len(texts) == 2
    assert target.tolist() == [0, 1, 0]
    assert related.tolist() == [[True, False], [True, True], [True, True]]


def test_a_broader_word_stands_in_now_and_then():
    assert broader(["rose"]) == ["flower", "plant"]
    assert broader(["egyptian cat", "cat"]) == ["animal", "pet"]
    assert broader(["oboe"]) == []
    source = corpus.Source("cifar", torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [["rose"]])
    generator = torch.Generator().manual_seed(0)
    drawn = [source.draw(0, generator) for _ in range(2000)]
    assert 0.17 < 1 - drawn.count("rose") / 2000 < 0.23
    assert set(drawn) == {"rose", "flower", "plant"}


def test_a_broader_word_is_no_negative():
    flower = corpus.Source("cifar", torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [["rose"], ["tulip"]])
    _, _, related = corpus.sentences(
        [("flower", "cifar"), ("tulip", "cifar")],
        [flower.captions[i] + flower.broader[i] for i in range(2)],
        torch.Generator().manual_seed(0),
    )
    assert related[1].tolist() == [True, True]
    assert related[0].tolist() == [True, False]


def test_every_image_is_seen_once_an_epoch(data):
    source = corpus.load_source(data, "cifar")
    mixer = corpus.Mixer([source], 5, seed=1)
    seen = torch.cat([mixer._indices(0, step) for step in range(12)])
    for epoch in seen.split(12):
        assert sorted(epoch.tolist()) == list(range(12))


def test_augmented_pictures_stay_in_range():
    pixels = torch.randint(0, 256, (6, 4, 20, 20), dtype=torch.uint8)
    out = corpus.augment(pixels, 16, 0.5, 0.2, torch.Generator().manual_seed(0))
    assert out.shape == (6, 3, 16, 16)
    assert 0 <= out.min() <= out.max() <= 1


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
