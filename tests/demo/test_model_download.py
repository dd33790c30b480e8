"""A backbone on its way: progress, cancelling, problems."""

from __future__ import annotations

import pytest

from demo import html as pieces
from demo.model_download import SEGMENTERS, Loading, entry_of
from demo.words import Translator
from engine.backbones import catalog
from engine.errors import BackboneUnavailable, LabError


@pytest.fixture
def hub(monkeypatch):
    """A hub that sends a megabyte now and then until it is told to stop; returns what was loaded."""
    loaded = []

    def fetch(id, report, stop):
        for done in range(1, 2000):
            report(done * 10**6, 2000 * 10**6)
            if stop.wait(0.01):
                raise BackboneUnavailable("download_stopped", id=id)

    monkeypatch.setattr(catalog, "fetch", fetch)
    monkeypatch.setattr(catalog, "load", loaded.append)
    return loaded


def test_progress_is_seen_and_cancelling_ends_it(hub):
    job = Loading("someone/some-clip")
    seen = []

    def watch():
        for done, total in job.watch(0.02):
            seen.append((done, total))
            if done >= 5 * 10**6:
                job.stop.set()

    with pytest.raises(LabError) as problem:
        watch()
    assert problem.value.key == "download_stopped"
    assert seen == sorted(seen) and seen[-1][1] == 2000 * 10**6
    assert job.finished.wait(5)
    assert hub == []


def test_what_goes_wrong_is_raised_where_it_is_watched(monkeypatch):
    def fetch(id, report, stop):
        raise BackboneUnavailable("download_no_weights", id=id)

    monkeypatch.setattr(catalog, "fetch", fetch)
    with pytest.raises(BackboneUnavailable) as problem:
        list(Loading("someone/some-clip").watch())
    assert problem.value.key == "download_no_weights"


def test_a_stopped_segmenter_says_so():
    job = Loading("no such one", SEGMENTERS)
    job.stop.set()
    with pytest.raises(LabError) as problem:
        list(job.watch())
    assert problem.value.key == "segmenter_stopped"


def test_what_is_here_is_loaded_at_once(monkeypatch):
    loaded = []
    monkeypatch.setattr(catalog, "fetch", lambda id, report, stop: None)
    monkeypatch.setattr(catalog, "load", loaded.append)
    job = Loading("pocket")
    list(job.watch())
    assert job.finished.wait(5)
    assert loaded == ["pocket"]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_download_is_shown_in_megabytes(language):
    t = Translator(language)
    html = pieces.loading("<b>CLIP</b>", 120_000_000, 605_000_000, t)
    assert "<b>CLIP" not in html
    assert "120" in html
    assert "605" in html
    assert 'aria-valuenow="20"' in html
    assert "progressbar" not in pieces.loading("CLIP", 0, 0, t)


def test_the_menu_knows_its_entries():
    assert entry_of("pocket").name.startswith("Pocket CLIP")
    assert entry_of("nobody/nothing") is None
