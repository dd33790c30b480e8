"""Image files and bytes -> checked, upright, 8-bit RGB images; the limits on what is taken in; thumbnails.

Folders and zips are the business of :mod:`engine.data.uploads`. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from engine.data.file_kind import HEAD_BYTES, readable, refuse_other_kinds
from engine.data.upright import MODES, SWAPS_SIDES, rgb, turn_of, upright
from engine.errors import BadConfig, BadImage, LabError, Note, messages, reason_of
from engine.units import MB

messages(
    limits_bad="The environment variable {variable} is {value!r}, but must be {expected}. Correct it or remove it.",
    image_missing="{name} cannot be opened: {reason}. Check that the file exists and may be read.",
    above_zero="a number above 0 and at most {most:,}",
    above_zero_whole="a whole number above 0 and at most {most:,}",
    the_image="The image",
    image_empty="{name} is empty (0 bytes). It was probably not copied completely: copy or upload it again.",
    image_not_image="{name} is not an image that can be read here (JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF). "
    "Remove it, or save it as one of these.",
    image_convert="{name} is a {kind} image, which cannot be read here: {package} is missing. Install it, or convert "
    "the image to JPEG and add it again.",
    image_archive="{name} is a {kind} archive, not an image. Unpack it and add its images, "
    "or upload a zip of them by itself.",
    image_truncated="{name} is cut off: the end of the image is missing. It was probably not copied completely: "
    "copy or upload it again.",
    image_corrupt="{name} is damaged, or stored in an unusual way, and cannot be read. "
    "Save it again with an image editor, or leave it out.",
    image_mode="{name} uses the colour mode {mode}, which cannot be read here. Save it as an ordinary RGB image.",
    image_pixels="{name} has {megapixels:g} megapixels; the limit is {limit:g}. Make it smaller and add it again: "
    "2,000 pixels on the long side are plenty.",
    image_tiny="{name} is only {width} x {height} pixels, too small to recognise anything. "
    "Use an image of at least {least} x {least} pixels.",
    image_animated="{name} is animated: the first picture is used.",
    image_pages="{name} has several pages: the first one is used.",
)

NOTES = frozenset({"image_animated", "image_pages"})
"""Keys of those problems that are only notes: the image is kept."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
"""What PIL may try. Fewer decoders than it has: no PostScript, no plug-in nobody asked for."""

LEAST_SIDE = 8
"""Pixels. An image with a shorter side is refused."""

OWN_MEGAPIXELS = 200
"""Megapixels of one's own images on the command line and in a notebook, and the most that the variable may allow."""
DECODED_MEGAPIXELS = 40
"""Megapixels above which a JPEG is decoded at a half, a quarter or an eighth of its sides: models take far fewer."""
# Refused by the header below, with a sentence; PIL itself refuses above twice this, and warns before.
Image.MAX_IMAGE_PIXELS = OWN_MEGAPIXELS * 1_000_000 // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Limits:
    """How much one upload may hold. Defaults suit a public page; every field has its environment variable."""

    images: int = 500
    """Images in one task, those already loaded included (CTL_MAX_IMAGES, at least 1)."""
    upload_bytes: int = 200 * MB
    """Bytes of all files of one upload, zips unpacked (CTL_MAX_UPLOAD_MB, in MB of a million bytes, above 0)."""
    megapixels: float = 40
    """Millions of pixels of one image in memory (CTL_MAX_MEGAPIXELS, above 0, at most 200); a JPEG that is decoded
    smaller may have five times as many, and a phone's HEIC a quarter more."""
    labels: int = 200
    """Different labels in one task (CTL_MAX_LABELS, at least 1)."""

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits the environment asks for, defaults elsewhere. Raises :class:`BadConfig` naming a bad variable."""
        return cls(
            images=int(variable("CTL_MAX_IMAGES", cls.images, whole=True)),
            upload_bytes=int(variable("CTL_MAX_UPLOAD_MB", cls.upload_bytes / MB) * MB),
            megapixels=variable("CTL_MAX_MEGAPIXELS", cls.megapixels, most=OWN_MEGAPIXELS),
            labels=int(variable("CTL_MAX_LABELS", cls.labels, whole=True)),
        )


def variable(name: str, default: float, whole: bool = False, most: float = 10**9) -> float:
    """A number above 0 of the environment. Raises :class:`BadConfig`, naming the variable, where it holds another."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:  # also false for nan
        expected = Note.of("above_zero_whole" if whole else "above_zero", most=most)
        raise BadConfig("limits_bad", variable=name, value=text, expected=expected)
    return value


@dataclass(frozen=True)
class ImageFile:
    """A checked image on disk. Small: holds no pixels."""

    name: str
    """Shown to the user: path inside the uploaded folder or zip, or the file's name."""
    path: str
    """File on disk that :func:`read_image` opens again."""
    label: str | None
    """Name of the sub-folder it came in, or None."""
    digest: str
    """First 32 hex digits of the SHA-256 of the file's bytes."""
    width: int
    """Pixels, after EXIF rotation."""
    height: int
    """Pixels, after EXIF rotation."""
    split: str | None = None
    """``train``, ``val`` or ``test`` where the upload says so."""


@dataclass(frozen=True)
class Problem:
    """One sentence about one file: why it was left out or, for keys in :data:`NOTES`, what to know about it."""

    name: str
    """Which file; empty where the sentence is about the whole upload."""
    key: str
    """Key in :data:`engine.errors.MESSAGES`."""
    message: str
    """English: what happened, what to do."""
    values: tuple[tuple[str, object], ...] = ()
    """Named fields of the sentence, for translation."""

    @property
    def note(self) -> Note:
        """The sentence alone."""
        return Note(self.key, self.values)

    @classmethod
    def of(cls, error: LabError) -> Problem:
        """Return the problem that says what ``error`` says."""
        return cls(str(error.values.get("name", "")), error.key, str(error), tuple(error.values.items()))


@dataclass(frozen=True)
class Intake:
    """What came of an upload."""

    images: tuple[ImageFile, ...]
    """Usable images in natural order of their names (img2 before img10)."""
    problems: tuple[Problem, ...]
    """At most one a file, in the same order; those about the whole upload last."""
    understood: tuple[Note, ...] = ()
    """How folders and files that tell labels were read, where that is not plain."""


def read_image(
    source: str | Path | bytes, *, name: str = "", max_megapixels: float | None = None, whole: bool = False
) -> Image.Image:
    """Decode one image file.

    ``source`` is a path, or the bytes of a file. ``name`` is what messages call it (default: the file's name).
    ``max_megapixels`` defaults to the environment's limit. A JPEG of more than ``DECODED_MEGAPIXELS`` is decoded at
    reduced size unless ``whole``. Returns an upright PIL image of mode RGB, 0-255:
    transparency lies on white, 16-bit grey is divided by 257, 32-bit integer and float grey are stretched from
    their least to their greatest value, of an animation or a document the first picture is taken.
    Raises :class:`BadImage` with a sentence that names the file.
    """
    with _opened(source, name, max_megapixels, whole) as image:
        image.load()
        return rgb(upright(image))


def read_checked(image: ImageFile) -> Image.Image:
    """Decode an image that was checked before, whatever the limit was then. Raises :class:`BadImage`."""
    return read_image(image.path, name=image.name, max_megapixels=OWN_MEGAPIXELS)


def central(image: Image.Image, longest: float = 4.0) -> Image.Image:
    """Return the middle of ``image``, at most ``longest`` times as long as it is wide.

    For whatever resizes the short side before it takes the square in the middle: a picture of 1,000,000 x 8 pixels
    would first become one of 28,000,000 x 224.
    """
    width, height = image.size
    wide, high = min(width, math.ceil(longest * height)), min(height, math.ceil(longest * width))
    if (wide, high) == (width, height):
        return image
    left, top = (width - wide) // 2, (height - high) // 2
    return image.crop((left, top, left + wide, top + high))


def inspect(path: Path, name: str, label: str | None, max_megapixels: float) -> tuple[ImageFile, Problem | None]:
    """Check one file by decoding all of it, without keeping the pixels. The problem returned is only a note.

    Raises :class:`BadImage`.
    """
    with _opened(path, name, max_megapixels, whole=True) as image:
        size = image.size
        note = _several(image)
        # A JPEG decoded at 1/8 still reads every byte, so a cut is noticed, in a fraction of time and memory.
        drafted = image.draft(None, (1, 1))  # type: ignore[arg-type]
        image.load()
        turned = turn_of(image)
        width, height = size if drafted else image.size
        if turned in SWAPS_SIDES:
            width, height = height, width
        found = ImageFile(name, str(path), label, _digest(path), width, height)
    return found, Problem.of(BadImage(note, name=name)) if note else None


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            sha.update(chunk)
    return sha.hexdigest()[:32]


def thumbnail(image: ImageFile, folder: Path, side: int = 160) -> Path:
    """A JPEG of ``image`` in ``folder`` that fits in ``side`` x ``side`` pixels; made once for each digest and side.

    Raises :class:`BadImage` if the file is no longer there or no longer readable.
    """
    target = Path(folder) / f"{image.digest}-{side}.jpg"
    if target.exists():
        return target
    # It passed the limit when it was taken in; a limit given then is not known here.
    with _opened(image.path, image.name, OWN_MEGAPIXELS, whole=True) as opened:
        opened.draft(None, (2 * side, 2 * side))  # type: ignore[arg-type]
        opened.load()
        small = rgb(upright(opened))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(suffix=".jpg", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            small.save(file, "JPEG", quality=85)
        os.replace(unfinished, target)  # nobody ever sees half a thumbnail
    except BaseException:
        os.unlink(unfinished)
        raise
    return target


# Opening


@contextmanager
def _opened(
    source: str | Path | bytes, name: str, max_megapixels: float | None, whole: bool = False
) -> Iterator[Image.Image]:
    """The image with only its header read; what goes wrong inside the ``with`` is explained too."""
    if max_megapixels is None:
        max_megapixels = Limits.from_environment().megapixels
    called = name or (Note("the_image") if isinstance(source, bytes) else Path(source).name)
    try:
        stream: io.BufferedIOBase = (
            io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
        )
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise BadImage("image_missing", name=called, reason=reason_of(error)) from None
    with stream:
        head = stream.read(HEAD_BYTES)
        readable()  # registers what reads HEIC
        refuse_other_kinds(head, called)
        length = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") + 8 > length:
            raise BadImage("image_truncated", name=called)  # PIL's WebP decoder does not say so
        with _explained(called, max_megapixels), Image.open(stream, formats=FORMATS) as image:  # type: ignore[arg-type]
            _check_header(image, called, max_megapixels)
            if not whole:
                _decode_smaller(image, min(max_megapixels, DECODED_MEGAPIXELS))
            yield image


def _check_header(image: Image.Image, name: str | Note, max_megapixels: float) -> None:
    width, height = image.size
    megapixels, limit = width * height / 1e6, _limit(image, max_megapixels)
    if megapixels > limit:
        raise _too_large(name, megapixels, limit)
    if min(width, height) < LEAST_SIDE:
        raise BadImage("image_tiny", name=name, width=width, height=height, least=LEAST_SIDE)
    if image.mode not in MODES:
        raise BadImage("image_mode", name=name, mode=image.mode)


def _limit(image: Image.Image, megapixels: float) -> float:
    """Return the most megapixels of a file's kind that decode to about as many bytes as ``megapixels`` of any."""
    if image.format in ("JPEG", "MPO") and not image.info.get("progressive"):
        return min(5 * megapixels, OWN_MEGAPIXELS)
    # Phones write 48 megapixels as HEIC; a progressive JPEG keeps all its coefficients while it is decoded.
    small = image.format in ("HEIF", "AVIF", "JPEG", "MPO")
    return min(1.25 * megapixels, OWN_MEGAPIXELS) if small else megapixels


def _decode_smaller(image: Image.Image, megapixels: float) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth of its sides, so that it fits; others stay."""
    width, height = image.size
    if image.format in ("JPEG", "MPO") and width * height > megapixels * 1e6:
        scale = next((k for k in (2, 4) if width * height <= megapixels * 1e6 * k * k), 8)
        image.draft(None, (max(1, width // scale), max(1, height // scale)))  # type: ignore[arg-type]


def _too_large(name: str | Note, megapixels: float, limit: float) -> BadImage:
    # Enough digits that the two numbers in the sentence differ.
    digits = next((d for d in range(1, 6) if round(megapixels, d) > limit), 6)
    return BadImage("image_pixels", name=name, megapixels=round(megapixels, digits), limit=limit)


@contextmanager
def _explained(name: str | Note, max_megapixels: float) -> Iterator[None]:
    """Turn whatever PIL raises into a :class:`BadImage`."""
    try:
        yield
    except (LabError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(name, int(pixels[1]) / 1e6 if pixels else math.inf, max_megapixels) from None
    except UnidentifiedImageError:
        raise BadImage("image_corrupt", name=name) from None
    except Exception as error:  # on hostile bytes PIL's decoders raise nearly everything
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise BadImage("image_truncated" if cut else "image_corrupt", name=name) from error


def _several(image: Image.Image) -> str:
    """Key of the note on an image of several frames, or nothing."""
    if image.format not in ("GIF", "WEBP", "PNG", "TIFF") or not getattr(image, "is_animated", False):
        return ""  # the second frame of a camera's JPEG (MPO) is a preview: nothing to tell
    return "image_pages" if image.format == "TIFF" else "image_animated"
