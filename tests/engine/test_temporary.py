"""What ended processes left behind is swept; what a living one uses is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from engine import temporary


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, tempfile; from engine import temporary;"
        f"tempfile.tempdir = {str(tmp_path)!r}; print(temporary.make(), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    assert os.path.isdir(left)
    own, other = temporary.make(), tmp_path / "clip-tuning-lab-tests"
    other.mkdir()
    old, young = tmp_path / "clip-tuning-lab-abcdefgh", tmp_path / "clip-tuning-lab-abcdefg2"
    old.mkdir()
    young.mkdir()
    monkeypatch.setattr(temporary.time, "time", lambda: old.stat().st_ctime + temporary.OLD + 1)
    link = tmp_path / "clip-tuning-lab-1-abcdefgh"
    link.symlink_to(other)
    assert temporary.sweep() == 3  # the killed one's and both that bear no number
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, other.name, link.name])


def test_a_folder_of_this_number_from_before_this_process_is_swept(tmp_path, monkeypatch):
    """In a container every first process has the same number."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = temporary.make()
    temporary._made.discard(str(path))
    assert temporary.sweep() == 0  # it is younger than this process
    monkeypatch.setattr(temporary.psutil.Process, "create_time", lambda _: path.stat().st_ctime + 60)
    assert temporary.sweep() == 1


def test_of_uploads_the_oldest_go(tmp_path):
    for k in range(4):
        file = tmp_path / f"{k}" / "photo.jpg"
        file.parent.mkdir()
        file.write_bytes(b"x" * 100)
        os.utime(file, (k, k))
    assert temporary.trim(tmp_path, 250) == 2
    assert [path.parent.name for path in sorted(tmp_path.rglob("*.jpg"))] == ["2", "3"]
    assert temporary.trim(tmp_path, 250) == 0
