"""The command line of learning step by step."""

from __future__ import annotations

import json

import pytest

from engine.cli.main import main


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["continual", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_json_has_each_order_and_the_standings(task_folder, capsys):
    code, out, _ = call(
        capsys,
        "--task",
        task_folder,
        "--steps",
        3,
        "--strategies",
        "prototypes,rail",
        "--orders",
        2,
        "--shots",
        4,
        "--set",
        "rail.width=50",
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and [row["order"] for row in found["results"]] == [0, 0, 1, 1]
    assert {row["strategy"] for row in found["standings"]} == {"prototypes", "rail"}
    assert found["results"][1]["config"]["width"] == 50
    assert found["standings"][0]["measures"]["forgetting"]["interval95"][0] is not None


def test_a_state_goes_on_with_a_new_folder(task_folder, tmp_path, capsys):
    for name, folders in (("old", ("red", "green")), ("new", ("blue",))):
        for folder in folders:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / folder).symlink_to(task_folder / folder)
    common = ("--strategies", "gaussian", "--shots", 4, "--state", tmp_path / "state")
    assert call(capsys, "--task", tmp_path / "old", "--steps", "red;green", *common)[0] == 0
    code, out, _ = call(capsys, "--task", tmp_path / "new", *common)
    assert code == 0 and "after step 3" in out
    code, _, err = call(capsys, "--task", tmp_path / "new", *common)
    assert code == 2 and "All labels of the new folder were learned before: blue" in err
    code, _, err = call(capsys, "--task", task_folder, "--steps", "blue", *common)
    assert code == 2 and "learned before, in step 3" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "4"), "4 steps and only 3 labels"),
        (("--steps", "red;red,blue"), "red is in step 1 and in step 2"),
        (("--orders", "0"), "--orders must be at least 1"),
        (("--orders", "2", "--state", "x"), "leave --orders out"),
        (("--strategies", "magic"), "no strategy 'magic'"),
        (("--set", "epochs=3"), "strategy.name=value"),
        (("--labels", "red"), "there is only red"),
    ],
)
def test_bad_input(arguments, words, task_folder, capsys):
    code, _, err = call(capsys, "--task", task_folder, *arguments)
    assert code == 2 and words in err
