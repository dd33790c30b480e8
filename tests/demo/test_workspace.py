"""Workspaces: apart from each other, bounded, and gone when nobody needs them."""

from __future__ import annotations

import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from demo import html, tasks
from demo.page import Page
from demo.screens.tune import adapters, takeaway
from demo.screens.tune import service as tuning
from demo.screens.tune.actions import likely_line
from demo.screens.tune.method import Method
from demo.screens.tune.results import adapter_line, changed_lines
from demo.words import Translator
from demo.workspace import GRACE, Workspace, Workspaces
from engine.errors import BadAdapter, BadConfig, BadLabels, BadTask, LabError
from tests.tiny import picture


@pytest.fixture
def workspaces(tmp_path):
    return Workspaces(tmp_path / "root", hours=1)


@pytest.fixture
def filled(workspaces, task_folder, tmp_path):
    """A workspace with a task of three colours, uploaded as a zip."""
    workspace = workspaces.open()
    archive = shutil.make_archive(str(tmp_path / "task"), "zip", task_folder)
    assert tasks.add_files(workspace, [archive]) == 36
    workspace.method, workspace.shots = "tip_adapter", 4
    return workspace


def run(workspace, method="tip_adapter", **settings):
    import threading

    workspace.method, workspace.settings = method, settings
    return list(tuning.tune(workspace, threading.Event()))[-1]


def test_two_visitors_share_nothing(workspaces, filled):
    other = workspaces.open()
    assert other.id != filled.id
    assert len(filled.id) >= 30
    assert other.images == () and other.runs == [] and other.labels_text == ""
    assert not other.folder.is_relative_to(filled.folder) and not filled.folder.is_relative_to(other.folder)
    assert filled.id not in str(filled.folder)
    assert workspaces.open(filled.id) is filled
    assert workspaces.open("guessed").id not in (filled.id, other.id, "guessed")
    assert workspaces.get(None) is None


def test_images_are_copied_out_of_the_upload(filled):
    assert all(image.path.startswith(str(filled.folder)) for image in filled.images)
    assert tasks.counts(filled) == (["blue", "green", "red"], [12, 12, 12])


def test_expiry_and_the_number_of_visitors(tmp_path):
    workspaces = Workspaces(tmp_path / "root", hours=1, most=2)
    first, second = workspaces.open(), workspaces.open()
    workspaces.get(first.id)
    third = workspaces.open()
    assert workspaces.get(second.id) is None and not second.folder.exists()
    assert workspaces.get(first.id) is first
    workspaces.sweep(time.monotonic() + 3601)
    assert workspaces.get(first.id) is None and not third.folder.exists()


def test_who_is_here_with_work_never_makes_room_for_arrivals(tmp_path, task_folder):
    workspaces = Workspaces(tmp_path / "root", hours=1, most=3)
    archive = shutil.make_archive(str(tmp_path / "task"), "zip", task_folder)
    here = workspaces.open(page="a")
    tasks.add_files(here, [archive])
    left = workspaces.open()
    tasks.add_files(left, [archive])
    for _ in range(20):  # empty ones come and go
        workspaces.open()
    assert workspaces.get(here.id) is here and workspaces.get(left.id) is left
    workspaces.get(here.id)
    busy = workspaces.open(page="b")
    tasks.add_files(busy, [archive])
    last = workspaces.open(page="c")  # in the place of the one that nobody looks at
    assert workspaces.get(left.id) is None and not left.folder.exists()
    tasks.add_files(last, [archive])
    with pytest.raises(LabError, match="Wait some minutes"):
        workspaces.open(page="d")
    assert workspaces.open(here.id) is here  # who is here comes back
    workspaces.left("b")
    assert workspaces.open(page="d").id not in (here.id, last.id)


def test_who_has_left_makes_room_before_who_is_here(tmp_path):
    workspaces = Workspaces(tmp_path / "root", hours=1, most=2)
    here, left = workspaces.open(), workspaces.open(page="a")
    workspaces.left("a")
    left.touched -= GRACE + 5
    third = workspaces.open()
    assert not left.folder.exists()
    assert workspaces.get(here.id) is here and workspaces.get(third.id) is third


def test_a_closed_page_stops_the_run_and_shortens_the_wait(workspaces):
    import threading

    workspace = workspaces.open(page="a")
    workspaces.open(workspace.id, page="b")
    workspace.stop = threading.Event()
    workspaces.left("a")
    assert not workspace.stop.is_set()
    workspaces.left("b")
    assert workspace.stop.is_set()
    workspaces.sweep(time.monotonic() + GRACE + 5)
    assert workspaces.get(workspace.id) is None


def test_zero_shot_comes_by_itself_and_goes_with_a_change(filled):
    moments = list(tuning.zero_shot(filled))
    assert moments[0].total == 36
    assert filled.shown.zero_shot.tested == 24 and not filled.shown.tuned
    tasks.set_image_label(filled, 0, "red")
    assert filled.shown is None
    assert list(tuning.zero_shot(filled)) and filled.shown is not None


def test_zero_shot_without_enough_to_test_has_scores_but_no_accuracy(workspaces, tmp_path):
    workspace = workspaces.open()
    path = tmp_path / "one.png"
    picture((200, 20, 20), 1).save(path)
    tasks.add_files(workspace, [str(path)])
    tasks.set_labels(workspace, "red, green")
    list(tuning.zero_shot(workspace))
    assert workspace.shown.zero_shot is None and workspace.shown.arrays["ensemble"].shape == (1, 2)
    assert [note.key for note in workspace.shown.notes] == ["no_images"]


def test_runs_reopen_and_are_deleted(filled):
    first, second = run(filled), run(filled, "linear_probe", epochs=5)
    assert filled.shown.run == second.id and len(filled.runs) == 2
    tasks.clear(filled)
    assert filled.images == () and filled.shown is None
    tuning.reopen(filled, first.id)
    assert filled.method == "tip_adapter" and len(filled.images) == 36 and filled.shown.run == first.id
    assert all(tasks.thumb(filled, image) for image in filled.images)
    assert adapters.tuned_model(filled).run == first.id
    filled.forget(first.id)
    assert not first.folder.exists() and filled.shown is None and [r.id for r in filled.runs] == [second.id]


def test_runs_and_bytes_are_bounded(filled, monkeypatch):
    record = run(filled)
    monkeypatch.setattr("demo.workspace.MOST_RUNS", 3)
    for number in range(5):
        folder = filled.new_folder("runs")
        filled.runs.append(replace(record, id=str(number), folder=folder))
    filled.tidy()
    assert [r.id for r in filled.runs] == ["2", "3", "4"] and not record.folder.exists()
    monkeypatch.setattr("demo.workspace.MOST_BYTES", 1)
    filled.tidy()
    assert [r.id for r in filled.runs] == ["4"]
    tasks.clear(filled)
    filled.forget("4")
    assert not [p for p in (filled.folder / "zips").rglob("*") if p.is_file()]


def test_an_adapter_saved_and_loaded_gives_the_same_scores(filled, tmp_path):
    run(filled, "linear_probe", epochs=20)
    saved = adapters.adapter_zip(filled)
    before = filled.shown.arrays["tuned"]
    adapters.load_adapter(filled, str(saved))
    assert filled.shown.run is None and abs(filled.shown.arrays["tuned"] - before).max() < 1e-5
    learned = [image.digest[:12] in filled.shown.result.trained_on for image in filled.images]
    assert any(learned) and not filled.shown.arrays["tested"][learned].any()
    assert filled.shown.arrays["tested"].sum() == len(learned) - sum(learned)
    line = adapter_line(filled.shown, Translator("en"))
    assert f"On {len(learned) - sum(learned)} images of yours that it never saw" in line
    assert f"Not counted: {sum(learned)} images of yours that trained it" in line
    new = tmp_path / "new.png"
    picture((200, 20, 20), 7).save(new)
    found, _ = adapters.try_image(filled, str(new))
    assert found.after.shape == (3,)


def test_a_loaded_adapter_stays_when_photos_are_added_and_its_figures_are_theirs(filled, tmp_path):
    run(filled, "linear_probe", epochs=20)
    saved = tmp_path / "adapter.zip"
    shutil.copy(adapters.adapter_zip(filled), saved)
    adapters.load_adapter(filled, str(saved))
    first = filled.shown.result
    assert first.verdict.tested == int(filled.shown.arrays["tested"].sum())
    wanted = filled.shown.arrays["tuned"].argmax(1) == np.asarray(filled.shown.targets)
    assert first.accuracy["tuned"] == wanted[filled.shown.arrays["tested"]].mean()
    picture((200, 20, 20), 7).save(tmp_path / "more.png")
    tasks.add_files(filled, [str(tmp_path / "more.png")], "red")
    assert filled.shown is None and not filled.stale
    for _ in tuning.zero_shot(filled):
        pass
    assert adapters.score_again(filled)
    assert filled.shown.tuned and len(filled.shown.images) == 37
    assert filled.shown.result.verdict.tested == first.verdict.tested + 1
    tasks.set_labels(filled, "red, green, blue, violet")
    for _ in tuning.zero_shot(filled):
        pass
    assert not adapters.score_again(filled) and not filled.shown.tuned and filled.loaded is None
    assert changed_lines(filled, Translator("en"))[0].startswith("The loaded adapter was made for other labels")


def test_a_bad_adapter_changes_nothing(filled, tmp_path):
    run(filled)
    shown = filled.shown
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BadAdapter):
        adapters.load_adapter(filled, str(bad))
    assert filled.shown is shown and len(filled.images) == 36


def test_the_mix_slider_runs_from_zero_shot_to_tuned(filled):
    run(filled, "full", epochs=1)
    assert adapters.can_mix(filled)
    tuned = filled.shown.arrays["tuned"]
    adapters.mix(filled, 0.0)
    original = filled.shown
    assert abs(original.arrays["tuned"] - original.arrays["zero_shot"]).max() < 1e-3
    assert adapters.adapter_zip(filled).name.endswith("mix0.zip")
    adapters.mix(filled, 1.0)
    assert abs(filled.shown.arrays["tuned"] - tuned).max() < 1e-5


def test_labels_follow_a_renaming_and_errors_lose_nothing(filled):
    tasks.set_labels(filled, "blue, lime = green, red")
    assert {image.label for image in filled.images} == {"blue", "lime", "red"}
    with pytest.raises(BadLabels):
        tasks.set_labels(filled, "blue, blue")
    assert filled.labels_text == "blue, blue" and len(filled.images) == 36
    tasks.set_labels(filled, "blue, lime, red")
    assert tasks.counts(filled)[1] == [12, 12, 12]


def test_a_zip_without_images_is_refused_and_named(filled, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    archive = shutil.make_archive(str(tmp_path / "notes"), "zip", tmp_path / "notes")
    with pytest.raises(BadTask):
        tasks.add_files(filled, [archive])
    assert len(filled.images) == 36 and filled.problems


@pytest.mark.skipif(not tasks.samples(), reason="no sample tasks")
def test_samples_speak_both_languages(workspaces):
    workspace = workspaces.open()
    for id, sample in tasks.samples().items():
        tasks.load_sample(workspace, id, "ko")
        names, counts = tasks.counts(workspace)
        assert names == list(sample.names("ko").values()) and min(counts) >= 24
        assert tasks.translate_sample(workspace, "en")
        assert tasks.counts(workspace)[0] == list(sample.names("en").values())
        assert not tasks.translate_sample(workspace, "en")


def test_the_command_is_the_same_run(filled):
    filled.settings = {"epochs": 3}
    text = tuning.command(filled)
    assert "--method tip_adapter --shots 4 --seed 0" in text and "--set epochs=3" in text
    assert "--labels blue,green,red" in text


def test_two_uploads_at_once_are_both_taken_in(workspaces, tmp_path, monkeypatch):
    collect, workspace, files = tasks.uploads.collect, workspaces.open(), []
    for i in range(4):
        picture((40 * i, 90, 200), i, 32).save(tmp_path / f"{i}.png")
        files.append(str(tmp_path / f"{i}.png"))

    def slow(copies, *args, **options):
        time.sleep(0.1 * len(copies))  # the larger upload is still being read when the smaller one tidies up
        return collect(copies, *args, **options)

    monkeypatch.setattr(tasks.uploads, "collect", slow)
    with ThreadPoolExecutor() as pool:
        done = [pool.submit(tasks.add_files, workspace, some) for some in (files, files[:1])]
    assert sum(job.result() for job in done) == len(workspace.images) == 4
    assert all(Path(image.path).exists() for image in workspace.images)


def test_settings_keep_only_what_differs(filled):
    filled.method = "lora"
    tuning.take_settings(filled, {"r": 4, "lr": 0.5})
    assert filled.settings == {"r": 4, "lr": 0.5}
    with pytest.raises(BadConfig, match="r = 0"):
        tuning.take_settings(filled, {"r": 0, "epochs": 7})
    assert filled.settings == {"r": 4, "lr": 0.5, "epochs": 7}
    tuning.take_settings(filled, {"r": 8, "lr": 0.5})
    assert filled.settings == {"lr": 0.5, "epochs": 7}


def test_a_run_without_a_forecast_is_shown_and_done(filled, value_reader, tiny, monkeypatch):
    monkeypatch.setattr(tuning, "backbone_of", lambda workspace: tiny)
    filled.method = value_reader.id
    known = tuning.forecast(filled)
    assert (known.trainable_parameters, known.memory_bytes, known.seconds) == (3 * 25, None, None)
    with gr.Blocks():
        method = Method(Page(Workspaces()))
    for language, words in (("en", "needs is unknown"), ("ko", "알 수 없습니다")):
        panel = method.describe(filled, Translator(language))
        assert panel.count(words) == 1 and "75" in panel and "ctl-unavailable" not in panel
    record = run(filled, value_reader.id, epochs=2)
    assert record.result.cost.forecast_memory_bytes is None
    assert html._memory_card(record.result.cost, Translator("en")).count("forecast unknown") == 1


def test_scores_open_on_an_image_that_tuning_fixed_then_one_that_it_broke():
    import numpy as np

    from demo.workspace import DisplayedResult
    from engine.types import Label, LogitScale

    def logits(*columns):
        return np.eye(2)[list(columns)]

    labels, targets = (Label("a", "a"), Label("b", "b")), (0, 1, 0, 1, 0)
    arrays = {"ensemble": logits(0, 1, 0, 0, 1), "tuned": logits(0, 1, 1, 1, 0), "tested": np.ones(5, bool)}
    shown = DisplayedResult(labels, (None,) * 5, targets, arrays, LogitScale(1.0), None)  # type: ignore[arg-type]
    assert shown.wrong() == ([3, 4], [2], [])
    assert shown.order() == [3, 2, 4, 0, 1]
    before = replace(shown, arrays={key: arrays[key] for key in ("ensemble", "tested")})
    assert before.order() == [0, 1, 2, 3, 4]


def test_a_run_is_taken_away_as_files_and_only_the_last_ones_stay(filled):
    assert adapters.adapter_folder(filled) is None
    with pytest.raises(BadAdapter):
        adapters.export_zip(filled, "transformers")
    run(filled, "gda")
    assert adapters.adapter_folder(filled).is_dir()
    for _ in range(2):
        done, archive = adapters.export_zip(filled, "transformers")
    with zipfile.ZipFile(archive) as packed:
        assert set(done.files) == set(packed.namelist()) - {"./"} and "model.safetensors" in done.files
    assert done.difference < 1e-4
    assert len(list((filled.folder / "exports").iterdir())) == 1
    said = takeaway.told(done, archive.stat().st_size, Translator("en"))
    assert "model.safetensors" in said and "differ by at most" in said


def test_a_new_picture_has_the_labels_among_which_it_is(filled):
    run(filled, "gda")
    scores, _ = adapters.try_image(filled, filled.images[0].path)
    assert scores.likely and scores.likely[0] == scores.names[int(scores.after.argmax())]
    assert "nine" in likely_line(scores.likely, Translator("en")) and likely_line((), Translator("en")) == ""


def test_work_that_nobody_listens_to_any_more_is_told_of_later(tmp_path):
    workspace = Workspace("id", tmp_path)

    def work():
        with workspace.working() as stop:
            yield stop

    running = work()
    stop = next(running)
    assert workspace.stop is stop and not stop.is_set()
    running.close()
    assert stop.is_set() and workspace.stop is None and workspace.interrupted
    workspace.interrupted = False
    running = work()
    next(running).set()  # the visitor pressed Stop, and left
    running.close()
    assert not workspace.interrupted
    assert [event.is_set() for event in work()] == [False] and not workspace.interrupted
