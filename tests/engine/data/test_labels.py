"""Labels as they are typed: commas and equals signs inside a name, marks that turn letters round, capitals."""

from __future__ import annotations

import pytest
import torch

from engine.data.episode import templates
from engine.data.labels import as_text, parse_labels, plain_name, typed
from engine.errors import BadConfig, BadLabels
from engine.tuning.features import label_features
from engine.types import Label, descriptions_of


@pytest.mark.parametrize(
    "labels",
    [
        [Label("bread, sliced", "bread, sliced"), Label("e=mc", "e=mc")],
        [Label("개", "dog"), Label("a\\b", "a, b"), Label("x = y", "x")],
        [Label("red_panda", "red panda"), Label("back\\", "back\\"), Label(",", "comma")],
    ],
)
def test_what_is_written_is_read_again(labels):
    assert list(parse_labels(as_text(labels))) == labels


def test_typing_plainly_stays_plain():
    assert as_text(parse_labels("cat, red_panda,\n개 = dog\n")) == "cat, red_panda, 개 = dog"
    assert [name for name, _ in typed("a, , b = c, \n\n d")] == ["a", "", "b", "d"]
    assert typed("") == typed(" \n ") == []


@pytest.mark.parametrize(
    ("text", "key"), [(",", "empty_label"), ("a", "one_label"), ("", "no_labels"), ("=b, c", "empty_label")]
)
def test_what_is_missing_is_said(text, key):
    with pytest.raises(BadLabels) as caught:
        parse_labels(text)
    assert caught.value.key == key


def test_labels_that_differ_in_capitals_are_both_named():
    with pytest.raises(BadLabels, match="Bolt and bolt differ only in capitals"):
        parse_labels("Bolt, nut, bolt")
    with pytest.raises(BadLabels, match="bolt is there twice"):
        parse_labels("bolt, bolt")


def test_marks_that_turn_letters_round_are_seen():
    assert plain_name("cat\u202egod") == "cat‹U+202E›god"
    assert plain_name("two\nlines \t here") == "two lines here"
    assert plain_name("half \ud800") == "half ?"
    assert plain_name("👩\u200d🔬") == "👩\u200d🔬"  # joins an emoji's parts, turns nothing
    assert parse_labels("a\u2066b, c")[0].name == "a‹U+2066›b"


def test_folders_with_commas_keep_their_name(tmp_path):
    from engine.front_door import read_task
    from tests.tiny import picture

    for k, name in enumerate(("bolts, short", "a=b")):
        (tmp_path / name).mkdir()
        for n in range(3):
            picture((60 * k, 90, 120), n).save(tmp_path / name / f"{n}.png")
    assert sorted(label.name for label in read_task(tmp_path).labels) == ["a=b", "bolts, short"]


def test_descriptions_follow_a_bar():
    text = "long_sleeved shirt | a shirt whose sleeves reach the wrist, 티셔츠 = t-shirt | short sleeves | cotton"
    plain, named = parse_labels(text)
    assert plain == Label("long_sleeved shirt", "long sleeved shirt | a shirt whose sleeves reach the wrist")
    assert named.phrase == "t-shirt" and descriptions_of(named.prompt) == ["short sleeves", "cotton"]
    assert parse_labels(as_text((plain, named))) == (plain, named)
    assert as_text([plain]) == "long_sleeved shirt | a shirt whose sleeves reach the wrist"
    with pytest.raises(BadLabels, match="more than 20 descriptions"):
        parse_labels("a" + " | x" * 21 + ", b")


def test_descriptions_join_the_ensemble_and_nothing_else(tiny):
    """CuPL: the mean over templates and descriptions; the single template, and what is trained, read the phrase."""
    plain, described = Label("cat", "cat"), Label("cat", "cat | whiskers | a tail")
    templates = ("a photo of a {}.", "{}")
    single, ensemble = label_features(tiny, [described, plain], templates)
    usual = label_features(tiny, [plain, plain], templates)
    assert torch.equal(single, usual[0]) and torch.allclose(ensemble[1], usual[1][1], atol=1e-6)
    texts = [tiny.text_features(["cat"], [one]) for one in templates]
    texts += [tiny.text_features([text], ["{}"]) for text in ("whiskers", "a tail")]
    wanted = torch.nn.functional.normalize(torch.cat(texts).mean(0), dim=-1)
    assert torch.allclose(ensemble[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nothing", "unknown_template_set"),
        ("a {} and a {}", "bad_template"),
        ("a {0}", "bad_template"),
        ("x" * 400 + "{}", "bad_template"),
        ("; ".join(f"{k} {{}}" for k in range(60)), "many_templates"),
    ],
)
def test_templates_that_cannot_be_are_named(text, key):
    with pytest.raises(BadConfig) as caught:
        templates(text)
    assert caught.value.key == key


def test_own_templates_count_as_a_set_does(tiny, task_folder):
    from engine.front_door import read_task, tune

    assert templates("a sketch of {};a sketch of {} ; {}") == ("a sketch of {}", "{}")
    tuned = tune(read_task(task_folder), "gda", tiny, shots=2, template_set="a sketch of {}; {}")
    assert tuned.outcome.setting.templates == ("a sketch of {}", "{}")
