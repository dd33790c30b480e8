"""Where the runtime of the page for the phone comes from, and what is said where it cannot come."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from engine.errors import BadExport
from engine.export import web_runtime

FILES = {web_runtime.SCRIPT: b"export const env = {}", web_runtime.BINARY: b"\0asm"}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A machine whose npm packs two small files; the list of what it was asked is returned."""
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    asked = tmp_path / "asked"
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> "{asked}"\ncp "{archive}" .\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.setenv("CTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CTL_ORT_WEB", raising=False)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setattr(web_runtime, "DIGESTS", digests)
    return asked


def test_npm_is_asked_once(npm):
    assert web_runtime.runtime() == tuple(FILES.values()) == web_runtime.runtime()
    assert npm.read_text().splitlines() == [f"pack {web_runtime.PACKAGE} --silent --ignore-scripts"]


def test_a_damaged_copy_is_fetched_again(npm, tmp_path):
    web_runtime.runtime()
    (tmp_path / "cache" / web_runtime.PACKAGE / web_runtime.BINARY).write_bytes(b"\0as")
    assert web_runtime.runtime() == tuple(FILES.values())
    assert len(npm.read_text().splitlines()) == 2


def test_another_file_than_expected_is_refused(npm, tmp_path, monkeypatch):
    monkeypatch.setitem(web_runtime.DIGESTS, web_runtime.BINARY, "0" * 64)
    with pytest.raises(BadExport, match=f"did not work here.*{web_runtime.BINARY}"):
        web_runtime.runtime()
    assert not list((tmp_path / "cache" / web_runtime.PACKAGE).iterdir())


def test_a_copy_at_hand_needs_no_npm(npm, tmp_path, monkeypatch):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("CTL_ORT_WEB", str(tmp_path))
    assert web_runtime.runtime() == tuple(FILES.values())
    assert not npm.exists()
    (tmp_path / web_runtime.SCRIPT).write_bytes(b"other")
    with pytest.raises(BadExport, match=r"ort.*mjs in .* is not that of onnxruntime-web"):
        web_runtime.runtime()


def test_without_npm_it_says_what_to_do(npm, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadExport, match=r"npm is not installed\).*Install Node.js.*CTL_ORT_WEB"):
        web_runtime.runtime()


def test_what_npm_complains_of_is_passed_on(npm, tmp_path):
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho 'ENOTFOUND the registry' >&2\nexit 1\n")
    with pytest.raises(BadExport, match="ENOTFOUND the registry"):
        web_runtime.runtime()
