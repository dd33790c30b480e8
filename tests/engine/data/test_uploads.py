"""Folders, zips and files: labels, limits, hostile archives, and one sentence about each file left out."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import zips
from engine.data.files import natural
from engine.data.images import NOTES, Intake, Limits, read_image
from engine.data.uploads import collect
from engine.errors import MESSAGES, BadTask

LIMITS = Limits()


def photo(seed: int, format: str = "PNG", side: int = 12) -> bytes:
    """Bytes of a small image, different for every seed."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zip_of(path: Path, files: dict[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def photos(*names: str) -> dict[str | zipfile.ZipInfo, bytes]:
    return {name: photo(number) for number, name in enumerate(names)}


def labels(intake: Intake) -> dict[str, str | None]:
    return {image.name: image.label for image in intake.images}


def keys(intake: Intake) -> dict[str, str]:
    """Name -> key; checks on the way that each sentence can be translated."""
    for problem in intake.problems:
        assert problem.message == MESSAGES[problem.key].format(**dict(problem.values))
        assert problem.name in problem.message
    found = {problem.name: problem.key for problem in intake.problems}
    assert len(found) == len(intake.problems)
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


# Labels


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.png", "dog/1.png"], ["cat", "dog"]),
        (["pets/cat/1.png", "pets/dog/1.png"], ["cat", "dog"]),
        (["pets/1.png", "pets/dog/1.png"], [None, "dog"]),
        (["train/cat/1.png", "test/cat/1.png", "train/dog/1.png"], ["cat", "cat", "dog"]),
        (["1.png", "dog/1.png"], [None, "dog"]),
        (["1.png", "2.png"], [None, None]),
        (["고양이/1.png", "강아지 🐶/1.png", "a_b-c/1.png"], ["고양이", "강아지 🐶", "a_b-c"]),
        ([" cat /1.png", "dog/1.png"], ["cat", "dog"]),
    ],
)
def test_labels_are_parent_folders(names: list[str], expected: list, packed: bool, tmp_path: Path, work: Path) -> None:
    files = photos(*names)
    source = zip_of(tmp_path / "in.zip", files) if packed else folder_of(tmp_path / "in", files)  # type: ignore[arg-type]
    intake = collect([source], work, LIMITS)
    assert labels(intake) == dict(zip(names, expected, strict=True))
    assert intake.problems == ()
    assert all(read_image(image.path).size == (image.width, image.height) == (12, 12) for image in intake.images)


def test_the_only_folder_is_a_wrapper_in_a_zip_and_a_class_in_a_folder(tmp_path: Path, work: Path) -> None:
    files = photos("cat/1.png", "cat/2.png")
    assert set(labels(collect([zip_of(tmp_path / "a.zip", files)], work, LIMITS)).values()) == {None}
    assert set(labels(collect([folder_of(tmp_path / "a", files)], work, LIMITS)).values()) == {"cat"}  # type: ignore[arg-type]


def test_one_zip_for_each_class(tmp_path: Path, work: Path) -> None:
    cats = zip_of(tmp_path / "one.zip", {"cat/1.png": photo(1)})
    dogs = zip_of(tmp_path / "two.zip", {"dog/1.png": photo(2)})
    assert labels(collect([cats, dogs], work, LIMITS)) == {"cat/1.png": "cat", "dog/1.png": "dog"}


def test_split_syllables_of_macos_are_joined(tmp_path: Path, work: Path) -> None:
    import unicodedata

    apart = unicodedata.normalize("NFD", "한글")
    intake = collect([zip_of(tmp_path / "in.zip", photos(f"{apart}/1.png", "b/1.png"))], work, LIMITS)
    assert {image.label for image in intake.images} == {"한글", "b"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("고양이", "cp949"), ("고양이", "utf-8"), ("강아지 사진", "cp949"), ("Café", "cp437"), ("Élan", "cp437")],
)
def test_undeclared_encodings_of_names(text: str, encoding: str, tmp_path: Path, work: Path) -> None:
    raw = text.encode(encoding)
    path = zip_of(tmp_path / "in.zip", photos("x" * len(raw) + "/1.png", "b/1.png"))
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    assert {image.label for image in collect([path], work, LIMITS).images} == {text, "b"}


def test_windows_separators(tmp_path: Path, work: Path) -> None:
    source = zip_of(tmp_path / "in.zip", {"cat\\": b"", "cat\\1.png": photo(1), "dog\\1.png": photo(2)})
    intake = collect([source], work, LIMITS)
    assert labels(intake) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert intake.problems == ()


# Order, junk, bad files among good ones


def test_natural_order() -> None:
    names = ["b1", "img10.png", "img2.png", "IMG1.png", "a", "img02.png", "9" * 5000, "1"]
    assert sorted(names, key=natural) == ["1", "9" * 5000, "a", "b1", "IMG1.png", "img02.png", "img2.png", "img10.png"]


def test_images_come_in_natural_order_whatever_the_order_given(tmp_path: Path, work: Path) -> None:
    folder = folder_of(tmp_path / "in", photos("img10.png", "img2.png", "img1.png"))  # type: ignore[arg-type]
    given = [folder / "img10.png", str(folder / "img1.png"), folder / "img2.png"]
    intake = collect(given, work, LIMITS)
    assert list(labels(intake)) == ["img1.png", "img2.png", "img10.png"]
    assert intake.images[0].path == str(folder / "img1.png")
    assert not work.exists()


JUNK = ["__MACOSX/cat/._1.png", "cat/._1.png", "cat/.DS_Store", ".git/x.png", "cat/Thumbs.db", "desktop.ini"]
BAD = {
    "cat/notes.txt": (b"hello", "image_not_image"),
    "cat/zero.jpg": (b"", "image_empty"),
    "cat/phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image_corrupt"),
    "dog/cut.png": (photo(7)[:300], "image_truncated"),
    "dog/inner.zip": (b"PK\x03\x04 more images", "image_archive"),
    "dog/tiny.png": (photo(8, side=1), "image_tiny"),
    "dog/text.jpg": (b"words", "image_not_image"),
}


@pytest.mark.parametrize("packed", [False, True])
def test_bad_files_are_named_and_junk_is_not(packed: bool, tmp_path: Path, work: Path) -> None:
    files = {name: data for name, (data, _) in BAD.items()} | dict.fromkeys(JUNK, b"junk")
    files |= {"cat/1.png": photo(1), "dog/1.jpg": photo(2)}
    moving = io.BytesIO()
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files["cat/moving.gif"] = moving.getvalue()
    source = zip_of(tmp_path / "in.zip", files) if packed else folder_of(tmp_path / "in", files)  # type: ignore[arg-type]
    intake = collect([source], work, LIMITS)
    assert list(labels(intake)) == ["cat/1.png", "cat/moving.gif", "dog/1.jpg"]
    assert keys(intake) == {name: key for name, (_, key) in BAD.items()} | {"cat/moving.gif": "image_animated"}
    assert [problem.name for problem in intake.problems] == sorted(keys(intake), key=natural)
    assert {"image_animated"} == {problem.key for problem in intake.problems} & NOTES


def test_links_and_pipes_in_a_folder(tmp_path: Path, work: Path) -> None:
    folder = folder_of(tmp_path / "in", photos("cat/1.png", "dog/1.png"))  # type: ignore[arg-type]
    os.symlink(folder, folder / "cat" / "loop")
    os.symlink(folder / "nowhere", folder / "cat" / "gone.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    intake = collect([folder], work, LIMITS)
    assert labels(intake) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert keys(intake) == {"cat/gone.png": "image_missing"}


def test_duplicates_with_the_same_label_are_left_out_once(tmp_path: Path, work: Path) -> None:
    files = {"cat/1.png": photo(1), "cat/2.png": photo(1), "dog/1.png": photo(1), "dog/2.png": photo(2)}
    folder = folder_of(tmp_path / "in", files)
    first = collect([folder], work, LIMITS)
    assert list(labels(first)) == ["cat/1.png", "dog/1.png", "dog/2.png"]
    assert keys(first) == {"cat/2.png": "upload_duplicate"}
    assert "the same file as cat/1.png" in first.problems[0].message
    again = collect([folder], work, LIMITS, already=first.images)
    assert again.images == ()
    assert set(keys(again)) == set(files)


# Limits


def test_more_than_the_limit_keeps_every_label(tmp_path: Path, work: Path) -> None:
    names = [f"cat/{n}.png" for n in range(20)] + ["dog/1.png", "emu/1.png", "emu/2.png"]
    folder = folder_of(tmp_path / "in", photos(*names))  # type: ignore[arg-type]
    (folder / "cat" / "0.png").write_bytes(photo(0)[:300])  # a bad one takes nobody's place
    intake = collect([folder], work, Limits(images=6))
    assert Counter(labels(intake).values()) == {"cat": 3, "dog": 1, "emu": 2}
    assert keys(intake) == {"cat/0.png": "image_truncated", "": "upload_images"}
    assert intake.problems[-1].message.startswith("16 of 23 files were left out")
    more = collect([folder / "cat" / "9.png"], work, Limits(images=6), already=intake.images)
    assert (more.images, [problem.key for problem in more.problems]) == ((), ["upload_images"])


def test_bytes_of_an_upload(tmp_path: Path, work: Path) -> None:
    folder = folder_of(tmp_path / "in", photos("a/1.png", "a/2.png", "b/1.png"))  # type: ignore[arg-type]
    intake = collect([folder], work, Limits(upload_bytes=1100))
    assert list(labels(intake)) == ["a/1.png", "b/1.png"]
    assert keys(intake) == {"": "upload_bytes"}


def test_too_many_labels(tmp_path: Path, work: Path) -> None:
    names = [f"c{n}/1.png" for n in range(1, 12)] + ["1.png"]
    folder = folder_of(tmp_path / "in", photos(*names))  # type: ignore[arg-type]
    intake = collect([folder], work, Limits(labels=9))
    assert set(labels(intake).values()) == {None, *(f"c{n}" for n in range(1, 10))}
    assert "2 of 11 sub-folders were left out, c10 the first" in intake.problems[0].message


def test_pixels_of_an_image(tmp_path: Path, work: Path) -> None:
    folder = folder_of(tmp_path / "in", {"a/1.png": photo(1), "a/2.png": photo(2, side=50)})
    intake = collect([folder], work, Limits(megapixels=0.001))
    assert keys(intake) == {"a/2.png": "image_pixels"}
    assert (
        "0.0025 megapixels; the limit is 0.001" in intake.problems[0].message or "0.003" in intake.problems[0].message
    )


# Hostile and broken zips


def link_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("cat/link.png")
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def test_unsafe_entries_are_refused_and_the_rest_goes_on(tmp_path: Path, work: Path) -> None:
    unsafe = ["../../evil.png", "cat/../../evil2.png", "/etc/evil.png", "C:\\evil.png", "..\\evil3.png"]
    files = photos("cat/1.png", *unsafe, "dog/1.png") | {link_entry(): b"/etc/passwd"}
    intake = collect([zip_of(tmp_path / "in.zip", files)], work, LIMITS)
    assert list(labels(intake)) == ["cat/1.png", "dog/1.png"]
    expected = {name.replace("\\", "/"): "zip_unsafe_name" for name in unsafe}
    assert keys(intake) == expected | {"cat/link.png": "zip_link"}
    assert not list(tmp_path.rglob("evil*"))
    assert all(Path(image.path).resolve().is_relative_to(work) for image in intake.images)


def patched(path: Path, name: str, field: int, value: int, size: str = "<H") -> None:
    """Overwrite a field of the entry's record in the central directory and, two bytes earlier, of its local header."""
    data = bytearray(path.read_bytes())
    start = data.rindex(name.encode()) - 46
    assert data[start : start + 4] == b"PK\x01\x02"
    struct.pack_into(size, data, start + field, value)
    local = struct.unpack_from("<I", data, start + 42)[0]
    struct.pack_into(size, data, local + field - 2, value)
    path.write_bytes(data)


def test_passwords_methods_and_damage_inside(tmp_path: Path, work: Path) -> None:
    names = ["cat/secret.png", "cat/odd.png", "dog/damaged.png", "dog/short.png"]
    path = zip_of(tmp_path / "in.zip", photos("cat/1.png", *names, "dog/1.png"), zipfile.ZIP_STORED)
    patched(path, names[0], 8, 1)  # flag: encrypted
    patched(path, names[1], 10, zipfile.ZIP_BZIP2)  # method
    patched(path, names[2], 16, 12345, "<I")  # checksum
    patched(path, names[3], 24, 100, "<I")  # size
    intake = collect([path], work, LIMITS)
    assert list(labels(intake)) == ["cat/1.png", "dog/1.png"]
    broken = "zip_entry_broken"
    assert list(keys(intake).values()) == ["zip_method", "zip_encrypted", broken, broken]


def test_a_zip_inside_a_zip(tmp_path: Path, work: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", photos("1.png")).read_bytes()
    intake = collect([zip_of(tmp_path / "in.zip", {"a/1.png": photo(1), "a/more.png": inner})], work, LIMITS)
    assert keys(intake) == {"a/more.png": "image_archive"}


def test_zip_bombs_are_not_unpacked(tmp_path: Path, work: Path) -> None:
    bomb = zip_of(tmp_path / "bomb.zip", {"a/1.bmp": b"BM" + bytes(30_000_000), "a/2.png": photo(1)})
    assert bomb.stat().st_size < 100_000
    good = zip_of(tmp_path / "good.zip", photos("b/1.png", "c/1.png"))
    intake = collect([bomb, good], work, LIMITS)
    assert list(labels(intake)) == ["b/1.png", "c/1.png"]
    assert keys(intake) == {"bomb.zip": "zip_bomb"}
    with pytest.raises(BadTask, match="never do"):
        collect([bomb], work, LIMITS)
    assert sum(path.stat().st_size for path in work.rglob("*") if path.is_file()) < 10_000


def test_one_bomb_among_real_photos(tmp_path: Path, work: Path) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    files = {"a/1.bmp": photo(3, "BMP", 40) + bytes(30_000_000), "a/2.png": photo(1), "a/noise.bin": noise}
    intake = collect([zip_of(tmp_path / "in.zip", files)], work, LIMITS)
    assert list(labels(intake)) == ["a/2.png"]
    assert keys(intake) == {"a/1.bmp": "zip_bomb", "a/noise.bin": "image_not_image"}


def test_size_is_bounded_as_declared_and_as_read(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "in.zip", photos("a/1.png", "a/2.png", "b/1.png"))
    small = Limits(upload_bytes=1400)
    with pytest.raises(BadTask, match=r"in\.zip holds .* MB; the limit is"):
        collect([path], work, small)
    monkeypatch.setattr(zips, "_check_totals", lambda *_: None)  # as if the declared sizes had been lies
    intake = collect([path], work, small)
    assert list(labels(intake)) == ["a/1.png", "a/2.png"]
    assert keys(intake) == {"in.zip": "zip_too_large"}


def test_two_zips_share_the_limit(tmp_path: Path, work: Path) -> None:
    first, second = (zip_of(tmp_path / f"{n}.zip", {f"{n}/1.png": photo(n)}, zipfile.ZIP_STORED) for n in (1, 2))
    intake = collect([first, second], work, Limits(upload_bytes=900))
    assert keys(intake) == {"2.zip": "zip_too_large"}


def test_number_of_entries(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "in.zip", {f"a/{n}.txt": b"" for n in range(30)})
    monkeypatch.setattr(zips, "MAX_ENTRIES", 29)
    monkeypatch.setattr(zips, "_CHUNK", 50)  # records lie across chunks
    with pytest.raises(BadTask, match="more than 29 files"):
        collect([path], work, LIMITS)
    monkeypatch.setattr(zips, "MAX_ENTRIES", 30)
    with pytest.raises(BadTask, match="is empty"):
        collect([path], work, LIMITS)


# Nothing usable


def test_broken_zips_alone_and_among_others(tmp_path: Path, work: Path) -> None:
    whole = zip_of(tmp_path / "whole.zip", photos("a/1.png", "b/1.png"))
    broken = {"cut.zip": whole.read_bytes()[:700], "text.zip": b"hello", "zero.zip": b""}
    folder_of(tmp_path, broken)
    for name in broken:
        with pytest.raises(BadTask, match=f"{name} contains no usable image. {name} is not a complete zip") as caught:
            collect([tmp_path / name], work, LIMITS)
        assert [problem.key for problem in caught.value.values["problems"]] == ["zip_broken"]  # type: ignore[attr-defined]
    intake = collect([whole, *(tmp_path / name for name in broken)], work, LIMITS)
    assert len(intake.images) == 2
    assert keys(intake) == dict.fromkeys(broken, "zip_broken")


def test_nothing_usable_says_why(tmp_path: Path, work: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadTask, match="empty contains no files"):
        collect([empty], work, LIMITS)
    folder = folder_of(tmp_path / "in", {f"a/{n}.txt": b"hello" for n in range(5)})
    with pytest.raises(BadTask, match=r"in contains no usable image\. a/0\.txt is not an image") as caught:
        collect([folder], work, LIMITS)
    assert "a/3.txt" not in str(caught.value)


def test_missing_paths_and_lone_bad_files(tmp_path: Path, work: Path) -> None:
    with pytest.raises(BadTask, match="nowhere does not exist"):
        collect([tmp_path / "nowhere"], work, LIMITS)
    folder_of(tmp_path, {"bad.jpg": b"hello"})
    assert keys(collect([tmp_path / "bad.jpg"], work, LIMITS)) == {"bad.jpg": "image_not_image"}
    assert collect([], work, LIMITS) == Intake((), ())
