"""Pretraining of Pocket VLM on a few made pictures: cut-outs, scenes, questions, stages, what is written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

from engine.ask import pocket_vlm  # noqa: E402
from engine.pretrain import measure_vlm, vlm_data, vlm_scenes  # noqa: E402
from engine.pretrain.pocket_vlm import VlmRecipe, VlmTrainer  # noqa: E402


def encoded(image: Image.Image) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def product(colour: tuple[int, int, int], ring: bool = False) -> Image.Image:
    """Something round on a white ground; a ring has a white hole, which belongs to it."""
    image = Image.new("RGB", (120, 160), (255, 255, 255))
    ImageDraw.Draw(image).ellipse((20, 40, 100, 120), fill=colour)
    if ring:
        ImageDraw.Draw(image).ellipse((45, 65, 75, 95), fill=(255, 255, 255))
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vlm")
    rows = []
    for k, kind in enumerate(vlm_scenes.KINDS):
        for _ in range(5):
            colour = (10 * k, 40, 200 - 8 * k)
            rows.append((encoded(product(colour)), [kind, f"blue {kind}"], kind, vlm_scenes.PRODUCTS))
    rows += [
        (encoded(Image.new("RGB", (90, 60), (k, 90, 30))), ["guitar"], "guitar", "musical-instruments")
        for k in range(10)
    ]
    names = ("image", "captions", "label", "source")
    for part, chosen in (("a", rows[::2]), ("b", rows[1::2])):
        columns = {name: [row[i] for row in chosen] for i, name in enumerate(names)}
        pq.write_table(pa.table(columns), folder / f"photos-224-{part}.parquet")
    pictures = [encoded(Image.new("RGB", (64, 64), (20 * k, 100, 50))) for k in range(8)]
    captions = [[f"a dog number {k} runs .", "A brown dog."] for k in range(8)]
    for name in ("flickr8k-224", "eval-flickr8k-test"):
        pq.write_table(pa.table({"image": pictures, "captions": captions}), folder / f"{name}.parquet")
    return folder


def test_a_product_is_cut_out_of_its_white_ground_with_its_own_white():
    rgba = vlm_scenes.cut_from_white(encoded(product((200, 30, 30), ring=True))["bytes"])
    assert rgba is not None and rgba.shape == (81, 81, 4)
    assert rgba[40, 40, 3] == 255 and rgba[0, 0, 3] == 0
    assert vlm_scenes.cut_from_white(encoded(Image.new("RGB", (50, 50), (90, 90, 90)))["bytes"]) is None
    assert vlm_scenes.cut_from_white(encoded(Image.new("RGB", (50, 50), (255, 255, 255)))["bytes"]) is None


def test_held_out_products_never_train(data):
    train, apart = vlm_scenes.read_things(data)
    kinds = [thing.kind for thing in train if thing.kind != "guitar"]
    assert {kind: kinds.count(kind) for kind in vlm_scenes.KINDS} == dict.fromkeys(vlm_scenes.KINDS, 4)
    assert sorted(thing.kind for thing in apart) == sorted(vlm_scenes.KINDS)
    assert all(thing.colour == "blue" for thing in apart)


def test_questions_are_answered_by_what_stands_there(data):
    train, _ = vlm_scenes.read_things(data)
    background = Image.new("RGB", (64, 64), (200, 220, 200))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        chosen = [train[int(k)] for k in rng.choice(len(train), 3, replace=False)]
        scene = vlm_scenes.compose(background, chosen, rng)
        by_mark = {thing.mark: thing for thing in scene.things}
        assert sorted(by_mark) == [1, 2, 3]
        assert sorted(thing.kind for thing in scene.things) == sorted(thing.kind for thing in chosen)
        for thing in scene.things:  # something was pasted there, and its mark drawn
            box = np.asarray(scene.plain.crop(thing.box)).reshape(-1, 3)
            assert (box != np.array([200, 220, 200])).any()
            assert scene.plain.crop(thing.box).tobytes() != scene.marked.crop(thing.box).tobytes()
        for row in vlm_scenes.questions(scene, vlm_scenes.KINDS, rng):
            number = next((int(c) for c in row.question if c.isdigit()), None)
            if row.question.startswith("what is in"):
                assert row.answer == by_mark[number].kind
            elif row.question.startswith("which mark"):
                assert row.question == f"which mark is the {by_mark[int(row.answer)].kind}"
            elif row.question.startswith("is there"):
                there = row.question.removeprefix("is there a ") in {thing.kind for thing in scene.things}
                assert row.answer == ("yes" if there else "no")
            elif row.question.startswith("how many"):
                assert row.answer == "3"


def test_scenes_are_the_same_without_pictures(data):
    backgrounds = [row[0] for row in vlm_scenes.read_captioned(data)]
    things, _ = vlm_scenes.read_things(data)
    made = [asked for _, asked in vlm_data.draw_scenes(backgrounds, things, 6, 3)]
    assert made == [asked for _, asked in vlm_data.draw_scenes(backgrounds, things, 6, 3, pictures=False)]
    assert any(row.hint for asked in made for row in asked)


def test_places_have_the_mark_and_kind_that_lies_there(data):
    background = Image.new("RGB", (64, 64), (200, 220, 200))
    things, _ = vlm_scenes.read_things(data)
    kinds = sorted({thing.kind for thing in things})
    scene = vlm_scenes.compose(background, things[:3], np.random.default_rng(1))
    marks, found = vlm_data.places_of(scene, kinds)
    assert marks.shape == found.shape == (49,)
    for thing in scene.things:
        left, top, right, bottom = thing.box
        middle = int((top + bottom) / 2 / 32) * 7 + int((left + right) / 2 / 32)
        assert marks[middle] == thing.mark and kinds[int(found[middle])] == thing.kind
    assert set(marks.tolist()) == {0, 1, 2, 3} and (found[marks == 0] == -1).all()


def test_left_and_right_are_exchanged():
    seen = torch.arange(49.0)[:, None]
    assert vlm_data.turned(seen)[:7, 0].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(vlm_data.turned(vlm_data.turned(seen)), seen)


def test_it_trains_in_three_stages_and_writes_model_and_card(data, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_vlm, "PICTURES", 4)
    monkeypatch.setattr(measure_vlm, "cider", lambda *_: 0.5)  # of a library that only pretraining needs
    monkeypatch.setattr(measure_vlm, "held_out_scenes", lambda tests, data: _held_out(tests, data, 2))
    recipe = VlmRecipe(images=20 * 4, batch_size=4, scenes=6, words_until=0.2, projection_until=0.4)
    trainer = VlmTrainer(recipe, data, tmp_path / "model", tmp_path / "work")
    stages, before = [], {}
    while trainer.progress < 1:
        stage = trainer.stage
        if stage not in stages:
            stages.append(stage)
            before[stage] = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train_step()
    assert stages == [0, 1, 2]
    moved = {name for name in before[0] if not torch.equal(before[0][name], before[1][name])}
    assert moved and all(name.startswith("language") for name in moved)
    moved = {name for name in before[1] if not torch.equal(before[1][name], before[2][name])}
    assert moved and all(name.startswith("projector") for name in moved)
    trainer.save()
    figures = trainer.export()
    assert set(figures) == {"cider", "cider_nearest", "clip", "plain", "marked", "labelled"}
    model, tokenizer = pocket_vlm.load(tmp_path / "model")
    assert model.config.backbone == trainer.backbone.weight_hash
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf8")
    assert f"{sum(p.numel() for p in model.parameters()):,}" in card and "What it cannot do" in card
    assert json.loads((tmp_path / "model" / "figures.json").read_text())["cider"] == 0.5
    again = VlmTrainer(recipe, data, tmp_path / "model", tmp_path / "work")  # nothing is looked at twice
    assert again.resume() and again.step == trainer.step
    assert tokenizer.get_vocab_size() > 260


def _held_out(tests, data, count):
    return measure_vlm_scenes(tests, data, count)


measure_vlm_scenes = measure_vlm.held_out_scenes
