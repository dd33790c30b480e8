"""Images and labels of a workspace: sample tasks, uploads, changes of labels. No torch, no gradio."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL import Image

from demo.words import LANGUAGES, Translator
from demo.workspace import Workspace
from engine.data import uploads
from engine.data.images import ImageFile, Problem, thumbnail
from engine.data.labels import as_text, parse_labels, plain_name, typed, usual_prompt
from engine.errors import BadTask, LabError
from engine.types import Label

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "samples"


@dataclass(frozen=True)
class Sample:
    """A task that comes with the page."""

    id: str
    prompts: dict[str, str]
    """Folder -> English phrase."""

    def title(self, language: str) -> str:
        """Return its name on screen."""
        return Translator(language)(f"sample.{self.id}.title")

    def about(self, language: str) -> str:
        """Return a sentence about it."""
        return Translator(language)(f"sample.{self.id}.about")

    def names(self, language: str) -> dict[str, str]:
        """Folder -> name on screen."""
        t = Translator(language)
        return {folder: t(f"sample.{self.id}.labels.{folder}") for folder in self.prompts}

    def folders(self) -> dict[str, str]:
        """Name on screen, in whatever language -> folder."""
        return {name: folder for language in LANGUAGES for folder, name in self.names(language).items()}

    def text(self, language: str) -> str:
        """Return the labels as they are typed."""
        pairs = ((name, self.prompts[folder]) for folder, name in self.names(language).items())
        return ", ".join(name if name == prompt else f"{name} = {prompt}" for name, prompt in pairs)


@cache
def samples() -> dict[str, Sample]:
    """Return the sample tasks that are there, by id."""
    try:
        rows = json.loads((SAMPLES / "samples.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    found = {row["id"]: Sample(row["id"], row["prompts"]) for row in rows}
    return {id: sample for id, sample in found.items() if any((SAMPLES / id).glob("*/*.jpg"))}


@cache
def sample_images(id: str) -> tuple[ImageFile, ...]:
    """Return a sample's images; labels are folder names."""
    return uploads.collect([SAMPLES / id], SAMPLES).images


def load_sample(workspace: Workspace, id: str, language: str) -> None:
    """Put a sample task in place of what is there."""
    sample = samples()[id]
    names = sample.names(language)
    images = tuple(replace(image, label=names[image.label]) for image in sample_images(id) if image.label in names)
    with workspace.lock:
        workspace.images, workspace.problems, workspace.sample = images, (), id
        workspace.understood = ()
        workspace.labels_text, workspace.score_image = sample.text(language), 0
        workspace.changed()
        workspace.tidy()


def translate_sample(workspace: Workspace, language: str) -> bool:
    """Give a loaded sample's labels their names in another language; False where there is nothing to do."""
    sample = samples().get(workspace.sample or "")
    if sample is None:
        return False
    target = sample.names(language)
    mapping = {name: target[folder] for name, folder in sample.folders().items()}
    with workspace.lock:
        images, text = workspace.images, workspace.labels_text
        workspace.images = tuple(replace(im, label=mapping.get(im.label or "", im.label)) for im in images)
        try:
            labels = parse_labels(text)
            workspace.labels_text = as_text([Label(mapping.get(x.name, x.name), x.prompt) for x in labels])
        except LabError:
            pass
        if shown := workspace.shown:
            labels = tuple(Label(mapping.get(x.name, x.name), x.prompt) for x in shown.labels)
            workspace.shown = replace(shown, labels=labels)
        return workspace.images != images or workspace.labels_text != text


def add_files(workspace: Workspace, paths: Sequence[str], label: str | None = None) -> int:
    """Take in uploaded files and zips; single files get ``label``. Returns the number of new images.

    Problems are kept in the workspace. Raises BadTask where a zip holds nothing usable. One upload at a time: another
    one counts what this one brings, and nobody tidies away files that are still being read.
    """
    with workspace.lock:
        try:
            copies, names = _copies(workspace, paths), typed_names(workspace.labels_text)
            intake = uploads.collect(copies, workspace.folder / "zips", already=workspace.images, labels=names)
        except BadTask as error:
            problems = error.values.get("problems", ())
            workspace.problems = (*problems, Problem.of(error)) if isinstance(problems, tuple) else (Problem.of(error),)
            workspace.tidy()
            raise
        label = plain_name(label or "") or None
        found = tuple(replace(image, label=image.label or label) for image in intake.images)
        workspace.images, workspace.problems = workspace.images + found, intake.problems
        workspace.understood = intake.understood
        add_labels(workspace, [image.label for image in found])
        if found:
            workspace.changed()
        workspace.tidy()
    return len(found)


def _copies(workspace: Workspace, paths: Sequence[str]) -> list[Path]:
    """Uploaded files under their own names in a folder of the visitor's."""
    folder, copies = workspace.new_folder("uploads"), []
    for number, path in enumerate(paths):
        target = folder / f"{number:05d}" / Path(path).name
        target.parent.mkdir()
        shutil.copyfile(path, target)
        copies.append(target)
    return copies


def add_labels(workspace: Workspace, names: Sequence[str | None]) -> None:
    """Add to the typed labels those names that are not there yet."""
    known = set(typed_names(workspace.labels_text))
    new = [name for name in dict.fromkeys(names) if name and name not in known]
    added = as_text([Label(name, usual_prompt(name)) for name in new])
    old = workspace.labels_text.strip().rstrip(",")
    workspace.labels_text = ", ".join(part for part in (old, added) if part)


def typed_names(text: str) -> list[str]:
    """Return names in the typed labels, whether or not they can be used together."""
    return [name for name, _ in typed(text) if name]


def set_labels(workspace: Workspace, text: str) -> bool:
    """Take over the typed labels. Where names were replaced one for one, the images follow.
    Returns False where nothing changed; raises BadLabels and then keeps the typed text too."""
    if text.strip() == workspace.labels_text.strip():
        return False
    with workspace.lock:
        old, new = typed_names(workspace.labels_text), typed_names(text)
        workspace.labels_text = text.strip()
        if len(old) == len(new):
            renamed = {a: b for a, b in zip(old, new, strict=True) if a != b and a not in new and b not in old}
            workspace.images = tuple(
                replace(im, label=renamed.get(im.label or "", im.label)) for im in workspace.images
            )
        workspace.changed()
    if workspace.labels_text or workspace.images:
        parse_labels(workspace.labels_text)
    return True


def set_image_label(workspace: Workspace, index: int, label: str | None) -> None:
    """Give one image another label, new ones included."""
    label = plain_name(label or "") or None
    with workspace.lock:
        if not 0 <= index < len(workspace.images) or workspace.images[index].label == label:
            return
        images = list(workspace.images)
        images[index] = replace(images[index], label=label)
        workspace.images = tuple(images)
        add_labels(workspace, [label])
        workspace.changed()


def remove_image(workspace: Workspace, index: int) -> None:
    """Take one image out."""
    with workspace.lock:
        if 0 <= index < len(workspace.images):
            workspace.images = workspace.images[:index] + workspace.images[index + 1 :]
            workspace.score_image = 0
            workspace.changed()
            workspace.tidy()


def clear(workspace: Workspace) -> None:
    """Take everything out; runs stay."""
    with workspace.lock:
        workspace.images, workspace.problems, workspace.understood, workspace.labels_text = (), (), (), ""
        workspace.sample, workspace.score_image, workspace.kept = None, 0, None
        workspace.loaded, workspace.put_aside = None, False
        workspace.guessed = frozenset()
        workspace.changed()
        workspace.stale = False
        workspace.tidy()


def counts(workspace: Workspace) -> tuple[list[str], list[int]]:
    """Label names in typed order, others after them, and their numbers of images."""
    found = Counter(image.label for image in workspace.images if image.label)
    names = list(dict.fromkeys([*typed_names(workspace.labels_text), *found]))
    return names, [found[name] for name in names]


def thumb(workspace: Workspace, image: ImageFile, side: int = 160) -> str | None:
    """Path of a thumbnail, None where the file is gone."""
    try:
        return str(thumbnail(image, workspace.thumbs, side))
    except LabError:
        return None


def thumb_uri(workspace: Workspace, image: ImageFile, side: int = 56) -> str:
    """Return a thumbnail as a data URI, empty where the file is gone."""
    path = thumb(workspace, image, side)
    return "data:image/jpeg;base64," + base64.b64encode(Path(path).read_bytes()).decode() if path else ""


def title(workspace: Workspace, language: str) -> str:
    """Return the task's name: the sample's title, or a few of the labels."""
    sample = samples().get(workspace.sample or "")
    if sample:
        return sample.title(language)
    names = typed_names(workspace.labels_text)
    return ", ".join(names[:3]) + ("…" if len(names) > 3 else "")


@cache
def sample_thumb(id: str, folder: str, side: int = 88) -> str:
    """Return a picture of a sample's label as a data URI, empty where there is none."""
    path = next(iter(sorted((SAMPLES / id / folder).glob("*.jpg"))), None)
    if path is None:
        return ""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.draft("RGB", (side, side))
        small = image.convert("RGB")
        small.thumbnail((side, side))
        small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
