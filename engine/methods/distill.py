"""Distillation: a teacher's soft answers train the backbone beside the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine import temporary
from engine.backbones.base import Backbone, Shape
from engine.errors import BadAdapter, BadConfig, Note, messages
from engine.methods.full import Full, FullConfig, full_count
from engine.methods.lora import LayerChoice, Lora, LoraConfig
from engine.methods.lora import count as lora_count
from engine.tuning import adapter_files, registry
from engine.tuning.losses import distillation
from engine.tuning.registry import MethodSpec, register
from engine.tuning.sources import NamedSources
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext, option
from engine.types import DIGITS

if TYPE_CHECKING:
    from engine.tuning.features import FeatureStore

FULL_RATE = 0.01
"""Share of the learning rate that a student takes all of whose weights train: 1e-5 against LoRA's 1e-3."""
Lesson = tuple[Tuner, "FeatureStore", list[int]]
"""A teacher, the images as its backbone sees them, and its column of each of the run's labels."""

messages(
    allowed_teacher="one of {heads}, a backbone or a saved adapter",
    teacher_labels="The teacher {teacher} does not know the labels {missing}; it was tuned on {known}. Choose a "
    "teacher that was tuned on this task's labels, or change the labels.",
    teacher_saw_test="The teacher {teacher} was trained on {count} images that do not train here, so the test would "
    "flatter. Choose one that was made with the same images, seed and number of training images, or from other images.",
)


@dataclass(frozen=True)
class DistillConfig(LayerChoice, TrainConfig):
    """Settings of distillation."""

    method = "distill"
    teacher: str = option(
        "linear_probe",
        help="who teaches: a head that is trained here first (linear_probe, tip_adapter_f, clip_adapter), another "
        "backbone by name or folder, or a saved adapter's folder or zip",
        offers="teachers",
    )
    student: str = option("lora", choices=("lora", "full"), help="what trains: low-rank matrices, or every weight")
    temperature: float = option(
        3.0, 0.1, 100, help="T, divides the logits; a higher one shows more of the unlikely labels"
    )
    alpha: float = option(0.5, 0, 1, help="weight of the teacher in the loss; the labels have the rest")
    r: int = option(8, 1, 256, help="rank (student = lora)")
    targets: str = option("q,v", help="linear layers, by comma: q, k, v, out, fc1, fc2 (student = lora)")
    towers: str = option("both", choices=("both", "vision", "text"), help="which towers (student = lora)")
    last_blocks: int = option(0, 0, 100, help="only the last n blocks of a tower; 0 = all (student = lora)")
    epochs: int = option(20, 1, 2000, help="passes over the training images")
    lr: float = option(
        1e-3, 1e-8, 10, help="peak learning rate at width 768, grows with the inverse width; student = full takes 1 %"
    )
    weight_decay: float = option(1e-2, 0, 10, help="decoupled weight decay")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start in which the learning rate rises")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")

    def check(self) -> None:
        """Raise BadConfig where the teacher is a method that is no head: it would have to be tuned and saved first."""
        name, known = self.teacher.strip(), {spec.id for spec in registry.methods()}
        if not name or (name in known and name not in heads()):
            allowed = Note.of("allowed_teacher", heads=tuple(heads()))
            raise BadConfig("bad_setting", method=self.method, name="teacher", value=name, allowed=allowed)

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        return super().obstacle(backbone) if self.student == "lora" else None

    def extra_backbones(self, sources: NamedSources) -> tuple[str, ...]:
        """Return the teacher's backbone, where the teacher is no head; none where an adapter cannot be read."""
        name = self.teacher.strip()
        if name in heads():
            return ()
        with temporary.folder() as work:
            try:
                folder = sources.adapter(name, Path(work))
                return (adapter_files.read_recipe(folder)["backbone"] if folder else name,)
            except BadAdapter:  # the run says so
                return ()

    def student_config(self) -> LoraConfig | FullConfig:
        """Return the student's own settings; LoRA's update counts twice, as it does by default."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig) if f.name != "lr"}
        if self.student == "full":
            return FullConfig(**shared)
        return LoraConfig(
            **shared,
            r=self.r,
            alpha=2.0 * self.r,
            targets=self.targets,
            towers=self.towers,
            last_blocks=self.last_blocks,
        )


def heads() -> list[str]:
    """Return methods that can teach at once: they need no more than the features of the support images."""
    return [spec.id for spec in registry.methods() if not spec.recomputes.towers]


class Distill(Tuner):
    """A student, which is LoRA or full fine-tuning of the run's backbone, and its teacher's logits.

    The teacher is asked once, before the training, about the support images alone: images that test, and unlabelled
    ones among which a visitor may have put some, never reach it. It sees the very crop that the student sees (Beyer
    et al. 2022, Knowledge distillation: A good teacher is patient and consistent, arXiv 2106.05237). It is not kept:
    of it the adapter holds only the name.
    """

    taught: Tensor
    """The teacher's logits ``(V, N, K)`` of every view; before :meth:`prepare` those of one that knows nothing."""

    def __init__(self, config: DistillConfig, setting: TunerContext):
        super().__init__(config, setting)
        self.setting = setting
        kind: type[Lora | Full] = Full if config.student == "full" else Lora
        self.student = kind(config.student_config(), setting)  # type: ignore[arg-type]
        self.stage = self.student.stage
        self.lr_factor = self.student.lr_factor * (FULL_RATE if config.student == "full" else 1)
        nothing = torch.zeros(1, len(setting.targets), len(setting.labels), device=self.backbone.device)
        self.register_buffer("taught", nothing, persistent=False)
        self.set_batch(torch.zeros_like(setting.targets), torch.arange(len(setting.targets)))

    def image_features(self, x: Tensor) -> Tensor:
        return self.student.image_features(x)

    def text_features(self) -> Tensor:
        return self.student.text_features()

    def head(self, image: Tensor, text: Tensor) -> Tensor:
        return self.student.head(image, text)

    def save_library_format(self, folder: Path) -> None:
        self.student.save_library_format(folder)

    def set_batch(self, views: Tensor, chosen: Tensor) -> None:
        self.soft = self.taught[views, chosen]  # (B, K)

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(x)
        return distillation(logits, self.soft, targets, self.config.temperature, self.config.alpha), logits

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        from engine.tuning.features import Views

        views = Views(self.config.views, self.config.min_crop, self.setting.seed)
        with temporary.folder() as work:
            teacher, images, columns = yield from self.find_teacher(store, support, Path(work))
            logits = []
            for view in range(views.count):
                values = images.stage(teacher.stage, support, view, views)
                logits.append(answers(teacher, values, store.batch)[:, columns])
                yield view + 1, views.count
        self.taught = torch.stack(logits)

    def pretraining_stages(self) -> Iterator[tuple[Tuner, TrainConfig, int]]:
        name, images = self.config.teacher.strip(), len(self.setting.targets)
        if name in heads() and registry.get(name).tuner().trains:
            teacher, config = self.untrained(name)
            yield teacher, config, images

    def find_teacher(
        self, store: FeatureStore, support: Sequence[int], work: Path
    ) -> Generator[tuple[int, int], None, Lesson]:
        """The teacher, trained where it is a head; yields (steps done, steps in all). Raises LabError."""
        name, columns = self.config.teacher.strip(), list(range(len(self.setting.labels)))
        if name in heads():
            return (yield from self.train_head(name, store, support)), store, columns
        folder = self.setting.sources.adapter(name, work)
        if folder:
            return self.adapter(name, folder, store, support)
        images = self.seen_by(name, store)
        return zero_shot(images, self.setting, support), images, columns

    def train_head(
        self, name: str, store: FeatureStore, support: Sequence[int]
    ) -> Generator[tuple[int, int], None, Tuner]:
        """A head with its budget preset on the support images; the generator's return value."""
        from engine.tuning.loop import fit

        teacher, config = self.untrained(name)
        if teacher.trains:
            yield from teacher.prepare(store, support)
            inputs = store.stage(teacher.stage, support)[None]
            for step, steps, *_ in fit(teacher, inputs, self.setting.targets, config, self.setting.seed):
                yield step, steps
        return teacher.eval().finished()

    def untrained(self, name: str) -> tuple[Tuner, Any]:
        """Return a head before its training, and its settings. Raises BadConfig where the backbone cannot have it."""
        spec = registry.get(name)
        config = spec.configure()
        if obstacle := registry.obstacle(spec, self.backbone, config):
            raise obstacle
        return spec.tuner()(config, self.setting), config

    def adapter(self, name: str, folder: Path, store: FeatureStore, support: Sequence[int]) -> Lesson:
        """Return a saved adapter on its own backbone; a label is found by its name, or else by what it is read as.

        Raises BadAdapter where it lacks a label or was trained on images that do not train here.
        """
        from engine.runs import store as adapters

        recipe = adapter_files.read_recipe(folder)
        known, labels = recipe["labels"], self.setting.labels
        place = {label[key]: k for key in ("prompt", "name") for k, label in enumerate(known)}
        columns = [place.get(label.name, place.get(label.phrase, -1)) for label in labels]
        if missing := [label.name for label, column in zip(labels, columns, strict=True) if column < 0]:
            its = ", ".join(label["name"] for label in known)
            raise BadAdapter("teacher_labels", teacher=name, missing=", ".join(missing), known=its)
        mine = {store.images[i].digest[:DIGITS] for i in support}
        others = {image.digest[:DIGITS] for image in store.images} - mine
        if seen := others & set(recipe.get("trained_on", ())):
            raise BadAdapter("teacher_saw_test", teacher=name, count=len(seen))
        images = self.seen_by(recipe["backbone"], store)
        return adapters.load(folder, images.backbone).tuner, images, columns

    def seen_by(self, backbone: str, store: FeatureStore) -> FeatureStore:
        """Return the run's images as another backbone sees them. Raises BackboneUnavailable."""
        from engine.backbones import catalog
        from engine.tuning.features import FeatureStore

        if backbone == self.backbone.id:
            return store
        loaded = catalog.load(backbone, self.backbone.device.type)
        return FeatureStore(loaded, store.images, store.cache, store.check, store.batch)


def zero_shot(images: FeatureStore, setting: TunerContext, support: Sequence[int]) -> Tuner:
    """Return a backbone as it is, prompt-ensembled."""
    from engine.tuning.features import label_features

    spec, backbone = registry.get("zero_shot_ensemble"), images.backbone
    single, ensemble = label_features(backbone, setting.labels, setting.templates, images.cache)
    there = dataclasses.replace(
        setting,
        backbone=backbone,
        support=images.features(support),
        single=single,
        ensemble=ensemble,
    )
    return spec.tuner()(spec.configure(), there).eval()


@torch.no_grad()
def answers(teacher: Tuner, values: Tensor, batch: int) -> Tensor:
    """Return a teacher's logits ``(N, K)`` of values at its stage ``(N, ...)``."""
    text = teacher.text_features()
    return torch.cat([teacher.outputs(x, text)[0] for x in values.split(batch)]).float()


def count(shape: Shape, config: DistillConfig, K: int, N: int) -> int:
    """Return the student's: LoRA's matrices, or everything."""
    student = config.student_config()
    return lora_count(shape, student, K, N) if isinstance(student, LoraConfig) else full_count(shape, student)


register(
    MethodSpec(
        id="distill",
        name="Distillation",
        family="weights",
        sentence="A teacher, a larger or an already tuned model, shows the backbone how sure to be of every label.",
        use_when="A larger backbone or an adapter of yours is more accurate, but too slow or too large to take along.",
        equation="loss = α·T²·KL(softmax(z_teacher / T) ‖ softmax(z / T)) + (1 − α)·CE(z, y)",
        paper="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv 1503.02531",
        config=DistillConfig,
        tuner=lambda: Distill,
        count=count,
        formula="the student's: r·Σ(in + out) over the targeted layers, or all",
        runs_on="both@k",
        failures=(
            "A teacher that is no better than the backbone holds it back.",
            "A head that was trained on the same few images is sure of them, so it adds little to the labels.",
        ),
        saved="the student's low-rank matrices, or every weight; nothing of the teacher",
        starts_at="zero_shot",
        presets={"budget": lambda shots: DistillConfig()},
    )
)
