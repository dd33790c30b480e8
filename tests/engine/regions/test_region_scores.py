"""What the models say of a region, and whether the object or the background says it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.data import episode
from engine.data.images import inspect
from engine.errors import MESSAGES, BadConfig, BadRegion
from engine.regions import scores, shortcut
from engine.regions.scores import Guess, Scorer, picture_of
from engine.regions.types import Prompt, Region, numbered
from engine.runs import store
from engine.runs.run import Run, score_with
from engine.types import Label, RunSpec
from tests.tiny import COLOURS, picture

LABELS = (Label("red", "red"), Label("green", "green"), Label("blue", "blue"))


def disc(size=(80, 60), centre=(40, 30), radius=15) -> Region:
    """A round region."""
    image = Image.new("1", size)
    x, y = centre
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return numbered([Region.of(np.asarray(image), size, 1, 1, Prompt())])[0]


@pytest.fixture(scope="module")
def tuned(tiny, task_images, tmp_path_factory):
    """A saved linear probe that tells colours apart, loaded again."""
    built = episode.build(LABELS, [image.label for image in task_images], 8, 0)
    *_, outcome = Run(RunSpec("tiny", "linear_probe", built), task_images, tiny).run()
    folder = tmp_path_factory.mktemp("adapter")
    store.save(outcome, folder)
    return store.load(folder, tiny)


def test_views_show_what_they_say():
    image, region = picture((200, 80, 40), 0, 80), disc((80, 80), (40, 40))
    mask, pixels = region.mask, np.asarray(image)
    assert np.array_equal(picture_of(image, region, "crop", 0), pixels[25:56, 25:56])
    assert picture_of(image, region, "crop", 0.5).size == (31 + 2 * 16, 31 + 2 * 16)
    assert picture_of(image, region, "crop", 2).size == (80, 80)
    for view in ("blur", "grey"):
        shown = np.asarray(picture_of(image, region, view))
        assert shown.shape == pixels.shape
        assert np.array_equal(shown[mask], pixels[mask])
        assert not np.array_equal(shown[~mask], pixels[~mask])
    grey = np.asarray(picture_of(image, region, "grey"))[~mask]
    assert (grey == grey[:, :1]).all()
    assert np.asarray(picture_of(image, region, "blur"))[~mask].std() < pixels[~mask].std()
    alone = np.asarray(picture_of(image, region, "cut", 0))
    assert np.array_equal(alone[mask[25:56, 25:56]], pixels[mask])
    assert len(np.unique(alone[~mask[25:56, 25:56]], axis=0)) == 1


@pytest.mark.parametrize(
    ("options", "word"), [(("halo",), "halo"), (("crop", -0.1), "margin"), (("crop", 3), "margin")]
)
def test_unknown_views_and_margins_are_refused(options, word):
    with pytest.raises(BadConfig, match=word):
        picture_of(Image.new("RGB", (80, 60)), disc(), *options)


def test_a_region_is_scored_as_its_picture_is(tuned, tmp_path):
    image, regions = picture((130, 110, 110), 3, 80), (disc((80, 80), (30, 30)), disc((80, 80), (50, 60), 10))
    found = scores.score(image, regions, Scorer(tuned.setting, tuned.tuner), "crop", 0.2)
    files = []
    for k, region in enumerate(regions):
        picture_of(image, region, "crop", 0.2).save(tmp_path / f"{k}.png")
        files.append(inspect(tmp_path / f"{k}.png", f"{k}.png", None, 40)[0])
    before, after = (side.numpy() for side in score_with(tuned, files))
    for k, row in enumerate(found):
        assert row.number == 1
        np.testing.assert_allclose(row.zero_shot.probabilities, before[k], atol=1e-5)
        np.testing.assert_allclose(row.tuned.probabilities, after[k], atol=1e-5)
        first, second = sorted(after[k])[:-3:-1]
        assert row.tuned.probability == pytest.approx(first, abs=1e-5)
        assert row.tuned.margin == pytest.approx(first - second, abs=1e-5)
        assert row.tuned.label == LABELS[after[k].argmax()].name


def test_without_a_tuned_model_there_is_zero_shot_alone(tiny):
    scorer = Scorer.zero_shot(tiny, LABELS)
    (row,) = scores.score(picture((90, 90, 90), 1, 80), [disc((80, 80))], scorer)
    assert row.tuned is None
    assert sum(row.zero_shot.probabilities) == pytest.approx(1, abs=1e-5)
    assert scores.score(Image.new("RGB", (9, 9)), [], scorer) == ()
    assert Guess.of(np.array([0.2, 0.5, 0.3]), LABELS) == Guess("green", 0.5, pytest.approx(0.2), (0.2, 0.5, 0.3))


def looks_at(**places):
    """A scorer whose sides say the strongest colour at a place."""

    def probabilities(pictures):
        return {
            side: np.array([np.array(p.getpixel(at), float) / max(1, sum(p.getpixel(at))) for p in pictures])
            for side, at in places.items()
        }

    return SimpleNamespace(labels=LABELS, probabilities=probabilities)


def test_a_model_that_looks_at_the_border_reads_the_background():
    image = Image.new("RGB", (80, 60), (30, 30, 220))
    ImageDraw.Draw(image).ellipse((25, 15, 55, 45), fill=(20, 200, 20))
    found = shortcut.probe(image, [disc()], looks_at(zero_shot=(40, 30), tuned=(2, 2)))
    assert (found.zero_shot.word, found.tuned.word) == ("object", "background")
    assert (found.zero_shot.whole.label, found.tuned.whole.label) == ("green", "blue")
    assert [note.key for note in found.notes] == [
        "shortcut_zero_shot_object",
        "shortcut_tuned_background",
        "shortcut_learned",
    ]
    assert "reads the background" in MESSAGES[found.notes[1].key].format(**dict(found.notes[1].values))
    other = shortcut.probe(image, [disc()], looks_at(zero_shot=(2, 2), tuned=(40, 30)))
    assert [note.key for note in other.notes][2] == "shortcut_unlearned"
    same = shortcut.probe(image, [disc()], looks_at(zero_shot=(2, 2)))
    assert (same.tuned, len(same.notes)) == (None, 1)


def test_a_probe_that_was_trained_on_background_colours_is_found_out(tuned):
    """The planted shortcut: its classes are the colours of whole pictures, and the object is a grey disc."""
    scorer, region, words = Scorer(tuned.setting, tuned.tuner), disc((48, 48), (24, 24), 8), {}
    for name, colour in COLOURS.items():
        image = picture(tuple(int(128 + 6 * (c - 120)) for c in colour), 7, 48)
        ImageDraw.Draw(image).ellipse((16, 16, 32, 32), fill=(128, 128, 128))
        found = shortcut.probe(image, [region], scorer)
        words[name] = (found.tuned.whole.label, found.tuned.without_object.label, found.tuned.word)
    assert all(whole == kept == name for name, (whole, kept, _) in words.items()), words
    # A grey disc on black, grey and white has some label by chance; for the two others the background is found out.
    assert sum(word == "background" for *_, word in words.values()) == 2, words


def test_removed_objects_leave_neither_pixels_nor_outline():
    image = Image.new("RGB", (80, 60), (30, 30, 220))
    ImageDraw.Draw(image).ellipse((25, 15, 55, 45), fill=(20, 200, 20))
    gone = np.asarray(shortcut.without_object(image, disc().mask))
    assert np.abs(gone.astype(int) - (30, 30, 220)).max() <= 1
    alone = np.asarray(shortcut.without_background(image, disc().mask, (1, 2, 3)))
    assert (alone[~disc().mask] == (1, 2, 3)).all()
    assert np.array_equal(alone[disc().mask], np.asarray(image)[disc().mask])
    with pytest.raises(BadRegion, match="fills the image"):
        shortcut.without_object(image, np.ones((60, 80), bool))
