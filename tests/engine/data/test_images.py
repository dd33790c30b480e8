"""Single images: what is read, how it is converted, what is refused and with which sentence."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.file_kind import kind_of
from engine.data.images import ImageFile, Limits, Problem, central, inspect, read_checked, read_image, thumbnail
from engine.errors import MESSAGES, BadConfig, BadImage


def picture(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    """RGB noise: hard to compress, so that a cut always removes pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def refused(source: bytes | Path, **options: float) -> BadImage:
    with pytest.raises(BadImage) as caught:
        read_image(source, name="photo.jpg", **options)
    assert caught.value.values["name"] == "photo.jpg"
    assert str(caught.value).startswith("photo.jpg ")
    return caught.value


def checked(tmp_path: Path, data: bytes) -> tuple[ImageFile, Problem | None]:
    path = tmp_path / "photo.bin"
    path.write_bytes(data)
    return inspect(path, "photo.bin", None, 40)


def bare_png(width: int, height: int) -> bytes:
    """A PNG of any declared size with next to no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


# What is read


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(format: str) -> None:
    image = read_image(encoded(picture(), format))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("WEBP", {}), ("GIF", {}), ("WEBP", {"lossless": True})])
def test_other_formats_are_read(format: str, options: dict[str, object], tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (24, 16), (200, 30, 60)), format, **options)
    path = tmp_path / "misleading.txt"  # content decides, not the name
    path.write_bytes(data)
    for source in (data, path, str(path)):
        image = read_image(source)
        assert (image.mode, image.size) == ("RGB", (24, 16))
        assert np.abs(np.asarray(image).astype(int) - (200, 30, 60)).max() < 8


def test_cmyk_becomes_rgb_in_both_polarities() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for data in (encoded(red, "JPEG", quality=95), encoded(red, "TIFF")):  # PIL writes JPEG inverted, as Adobe does
        r, g, b = read_image(data).getpixel((8, 8))
        assert r > 240
        assert g < 15
        assert b < 15


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for format in ("PNG", "TIFF"):
        image = read_image(encoded(Image.fromarray(grey), format))
        assert np.array_equal(np.asarray(image)[..., 0], np.arange(256).reshape(16, 16))
    half = read_image(encoded(Image.fromarray(np.full((8, 8), 32768, np.uint16)), "PNG"))
    assert half.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_grey_is_stretched(dtype: type) -> None:
    values = np.linspace(-1000, 3000, 64).reshape(8, 8).astype(dtype)
    result = np.asarray(read_image(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert np.array_equal(result, np.round((values.astype(float) + 1000) / 4000 * 255))


def test_flat_and_not_finite_grey() -> None:
    flat = read_image(encoded(Image.fromarray(np.full((8, 8), 77, np.float32)), "TIFF"))
    assert flat.getpixel((3, 3)) == (77, 77, 77)
    odd = np.full((8, 8), np.nan, np.float32)
    odd[0, 0], odd[1, 1] = 10, np.inf
    assert np.asarray(read_image(encoded(Image.fromarray(odd), "TIFF")))[0, 0, 0] == 255


def transparent(mode: str) -> bytes:
    """Left half opaque black, right half fully transparent (and black underneath)."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 16))
    if mode == "P":
        palette = Image.new("P", (16, 16), 0)
        palette.putpalette([0, 0, 0, 9, 9, 9])
        palette.paste(1, (8, 0, 16, 16))
        return encoded(palette, "PNG", transparency=1)
    if mode == "RGB":  # one colour declared transparent
        solid = Image.new("RGB", (16, 16), "black")
        solid.paste((1, 2, 3), (8, 0, 16, 16))
        return encoded(solid, "PNG", transparency=(1, 2, 3))
    return encoded(image.convert(mode), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = read_image(transparent(mode))
    assert image.getpixel((2, 2)) == (0, 0, 0)
    assert image.getpixel((13, 2)) == (255, 255, 255)


def test_one_bit_image() -> None:
    image = Image.new("1", (16, 16), 1)
    image.putpixel((0, 0), 0)
    result = read_image(encoded(image, "PNG"))
    assert (result.getpixel((0, 0)), result.getpixel((1, 1))) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(format: str, orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste((255, 0, 0), (0, 0, 16, 8))  # red corner at the top left
    t = Image.Transpose
    stored_as = {2: t.FLIP_LEFT_RIGHT, 3: t.ROTATE_180, 4: t.FLIP_TOP_BOTTOM, 5: t.TRANSPOSE, 6: t.ROTATE_90}
    stored_as |= {7: t.TRANSVERSE, 8: t.ROTATE_270}
    stored = upright.transpose(stored_as[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, format, exif=exif, **({} if format == "TIFF" else {"quality": 95}))
    image = read_image(data)
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 8
    found, note = checked(tmp_path, data)
    assert (found.width, found.height, note) == (32, 16, None)


def test_a_damaged_exif_block_does_not_matter() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(data).size == (24, 16)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_picture_of_several_with_a_note(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    r, g, b = read_image(data).getpixel((8, 8))
    assert r > 240
    assert g < 15
    assert b < 15
    _, note = checked(tmp_path, data)
    assert note is not None
    assert note.key == ("image_pages" if format == "TIFF" else "image_animated")


def test_preview_in_a_camera_jpeg_needs_no_note(tmp_path: Path) -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=1)])
    assert checked(tmp_path, data)[1] is None


def test_extreme_shapes_are_kept() -> None:
    assert read_image(encoded(picture(400, 8))).size == (400, 8)


# What is refused


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"", "image_empty"),
        (b"just some words, no pixels", "image_not_image"),
        (b"BM stands for bitmap, but this is text", "image_not_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_not_image"),
        (b"%PDF-1.7", "image_not_image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "image_not_image"),  # a film
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image_corrupt"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", "image_corrupt"),
        (b"PK\x03\x04 and so on", "image_archive"),
        (b"Rar!\x1a\x07\x01\0", "image_archive"),
        (b"\x89PNG\r\n\x1a\n but nothing of a PNG follows", "image_corrupt"),
        (b"\xff\xd8\xff\xe0 and rubbish", "image_truncated"),  # its first block claims 8 kB
        (encoded(Image.new("LAB", (16, 16)), "TIFF"), "image_mode"),
        (encoded(picture(1, 1)), "image_tiny"),
        (encoded(picture(300, 7)), "image_tiny"),
    ],
)
def test_refused_with_its_own_sentence(data: bytes, key: str, tmp_path: Path) -> None:
    assert refused(data).key == key
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert str(refused(path)) == str(refused(data))


def test_a_text_named_jpg_is_said_to_be_no_image() -> None:
    assert "is not an image" in str(refused(b"hello"))


def test_kinds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.file_kind.readable", lambda: ())
    assert "HEIC image" in str(refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"))
    assert "AVIF image" in str(refused(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"))
    assert kind_of(b"7z\xbc\xaf\x27\x1c\0") == "7z"


def test_a_strip_keeps_its_middle_and_an_ordinary_picture_all() -> None:
    strip = Image.new("RGB", (100_000, 8), "red")
    strip.paste("blue", (49_900, 0, 50_100, 8))
    middle = central(strip)
    assert middle.size == (32, 8)
    assert middle.getcolors() == [(256, (0, 0, 255))]
    assert central(strip.transpose(Image.Transpose.ROTATE_90)).size == (8, 32)
    photo = Image.new("RGB", (4000, 1000))
    assert central(photo) is photo


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {})],
)
def test_cut_off_files_are_noticed(format: str, options: dict[str, bool], share: float, tmp_path: Path) -> None:
    data = encoded(picture(200, 150), format, **options)
    cut = data[: int(len(data) * share)]
    keys = {"image_truncated", "image_corrupt"} if format == "TIFF" else {"image_truncated"}  # TIFF: header at the end
    assert refused(cut).key in keys
    with pytest.raises(BadImage) as caught:  # the quick check sees it too
        checked(tmp_path, cut)
    assert caught.value.key in keys


def test_flipped_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(picture(), format)
        for _ in range(60):
            bad = bytearray(data)
            for place in rng.integers(0, len(bad), 4):
                bad[place] = rng.integers(256)
            with suppress(BadImage):
                assert read_image(bytes(bad), max_megapixels=1).mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(8000, 5001), (12000, 9000), (60000, 60000)])
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int) -> None:
    error = refused(bare_png(width, height))
    assert error.key == "image_pixels"
    assert error.values["limit"] == 40
    assert error.values["megapixels"] == pytest.approx(width * height / 1e6, abs=0.01)


def test_the_pixel_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(100, 100))
    assert "0.01 megapixels; the limit is 0.005" in str(refused(data, max_megapixels=0.005))
    monkeypatch.setenv("CTL_MAX_MEGAPIXELS", "0.001")
    assert refused(data).key == "image_pixels"


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_phones_formats_are_read(format: str, tmp_path: Path) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    plain = picture(64, 48)
    data = encoded(plain, format, quality=90)
    assert kind_of(data[:64]) == {"HEIF": "HEIC", "AVIF": "AVIF"}[format]
    read = read_image(data)
    assert read.size == (64, 48) and read.mode == "RGB"
    found, note = checked(tmp_path, data)  # named .jpg or not
    assert (found.width, found.height, note) == (64, 48, None)
    assert refused(data[: len(data) // 2]).key in ("image_truncated", "image_corrupt")
    assert thumbnail(found, tmp_path / "thumbs").exists()


def test_a_large_jpeg_is_read_at_reduced_size(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (8064, 6048), "teal"), "JPEG", quality=50)
    read = read_image(data)
    assert read.size == (4032, 3024)
    assert read_image(data, max_megapixels=200, whole=True).size == (8064, 6048)
    found, _ = checked(tmp_path, data)
    assert (found.width, found.height) == (8064, 6048)
    assert read_checked(found).size == (4032, 3024)
    assert refused(bare_png(8064, 6048)).key == "image_pixels"  # it cannot be decoded smaller
    progressive = encoded(Image.new("RGB", (8064, 6300), "teal"), "JPEG", progressive=True)
    assert refused(progressive).key == "image_pixels"  # it keeps all its coefficients in memory


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.jpg").key == "image_missing"
    assert refused(tmp_path).key == "image_missing"
    with pytest.raises(BadImage, match=r"^none\.jpg cannot be opened"):
        read_image(tmp_path / "none.jpg")


# Limits, thumbnails, layering


def test_limits_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGES", "UPLOAD_MB", "MEGAPIXELS", "LABELS"):
        monkeypatch.delenv(f"CTL_MAX_{name}", raising=False)
    assert Limits.from_environment() == Limits() == Limits(500, 200 * 10**6, 40, 200)
    for name, value in (("IMAGES", "7"), ("UPLOAD_MB", "0.5"), ("MEGAPIXELS", "12.5"), ("LABELS", " 3 ")):
        monkeypatch.setenv(f"CTL_MAX_{name}", value)
    assert Limits.from_environment() == Limits(7, 500_000, 12.5, 3)


@pytest.mark.parametrize("name", ["CTL_MAX_IMAGES", "CTL_MAX_UPLOAD_MB", "CTL_MAX_MEGAPIXELS", "CTL_MAX_LABELS"])
@pytest.mark.parametrize("value", ["many", "0", "-3", "nan", "inf"])
def test_bad_limits_name_their_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig, match=name):
        Limits.from_environment()


def test_thumbnail_is_upright_small_and_made_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found, _ = checked(tmp_path, encoded(picture(800, 400), "JPEG", exif=exif))
    path = thumbnail(found, tmp_path / "thumbs")
    with Image.open(path) as small:
        assert (small.format, small.size) == ("JPEG", (80, 160))
    made = path.stat().st_mtime_ns
    Path(found.path).unlink()
    assert thumbnail(found, tmp_path / "thumbs") == path
    assert path.stat().st_mtime_ns == made
    assert [entry.name for entry in (tmp_path / "thumbs").iterdir()] == [path.name]
    with pytest.raises(BadImage, match="cannot be opened"):
        thumbnail(found, tmp_path / "thumbs", side=64)


def test_digest_is_of_the_files_bytes(tmp_path: Path) -> None:
    first, _ = checked(tmp_path, encoded(picture()))
    second, _ = checked(tmp_path, encoded(picture(seed=1)))
    assert len(first.digest) == 32
    assert int(first.digest, 16)
    assert first.digest != second.digest


def test_import_is_light() -> None:
    code = "import sys, engine.data.uploads; print([m for m in ('torch', 'gradio', 'plotly') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_sentence_ends_and_says_which() -> None:
    import engine.data.uploads  # noqa: F401

    kinds = ("image", "zip", "upload", "limits")
    own = {key: text for key, text in MESSAGES.items() if key.split("_")[0] in kinds and not key.endswith(".name")}
    assert len(own) >= 25
    for key, text in own.items():
        assert text.endswith((".", "{reasons}")), key
        assert "{name}" in text or key in ("limits_bad", "upload_images", "upload_bytes", "upload_labels"), key
