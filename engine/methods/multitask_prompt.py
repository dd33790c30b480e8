"""MPT: one prompt distilled from several source tasks, then trained on all labels with a low-rank factor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import temporary
from engine.backbones.base import TEXT_TOKENS, Backbone
from engine.errors import BadConfig, BadTask, Note, messages
from engine.methods.prompt_tuning import Around, TextPrompt, start_vectors, too_many
from engine.tuning.registry import MethodSpec, register
from engine.tuning.sources import SourceTask
from engine.tuning.tuner import TrainConfig, Tuner, TunerContext, option
from engine.types import Label

if TYPE_CHECKING:
    from engine.data.images import ImageFile
    from engine.tuning.features import FeatureStore


messages(
    allowed_labels_once="names of labels, each once: {names}",
    groups_or_sources="the source tasks are either groups of the labels or other tasks",
)


@dataclass(frozen=True)
class MultitaskPromptConfig(TrainConfig):
    """MPT's settings."""

    method = "multitask_prompt"
    tokens: int = option(4, 1, 64, help="M, number of trained vectors")
    init: str = option("words", choices=("words", "noise"), help="start from words or from noise (std 0.02)")
    words: str = option("a photo of a", help="the words to start from; cut or filled with noise to M tokens")
    rank: int = option(1, 1, 64, help="rank of each task's factor")
    source_tasks: int = option(3, 1, 64, help="source tasks: random groups of two labels or more")
    groups: str = option("", help="the groups instead, as label names: a, b | c, d; labels left out form one more")
    sources: str = option(
        "",
        help="other tasks in place of groups, by comma: earlier ones, folders or zips with a sub-folder a class",
        offers="tasks",
    )
    source_shots: int = option(16, 1, 10_000, help="most images a label of such another task")
    source_epochs: int = option(
        20, 1, 2000, help="passes over the training images for the source prompts, and again to distil them"
    )
    distil: float = option(0.9, 0, 100, help="weight of the source prompts' logits and text features in the loss")
    epochs: int = option(40, 1, 2000, help="passes over the training images")
    lr: float = option(5e-3, 1e-8, 10, help="peak learning rate")
    warmup_epochs: int = option(1, 0, 100, help="epochs at the start with a small learning rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups.strip() and self.source_names:
            raise BadConfig(
                "setting_conflict",
                method=self.method,
                first="groups",
                second="sources",
                reason=Note("groups_or_sources"),
            )

    @property
    def source_names(self) -> tuple[str, ...]:
        """The other tasks' names, folders or zips."""
        return tuple(name.strip() for name in self.sources.split(",") if name.strip())

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        return too_many(self.method, "tokens", self.tokens, backbone)

    def without_labels(self) -> MultitaskPromptConfig:
        return dataclasses.replace(self, groups="")


class MultitaskPrompt(TextPrompt):
    """The target stage: ``P* o (u v^T)`` before each label, P* and its own factor trained.

    :meth:`prepare` is the source stage. Its tasks are the visitor's other tasks, with images and labels
    of their own, or else groups of this task's labels: to tell the labels of a group apart, from the
    support images of that group. P* and the mean of the tasks' factors are what the target stage starts
    from, as PEFT's ``AVERAGE_SOURCE_TASKS`` does.
    """

    def __init__(self, config: MultitaskPromptConfig, setting: TunerContext):
        super().__init__(config, setting, reserve=config.tokens)
        self.setting, self.tasks = setting, task_of_labels(config, setting)
        self.prompt = shared_prompt(config, setting, tasks=1)

    def around(self) -> Around:
        return Around(task_prompts(self.prompt)[0])

    def prepare(self, store: FeatureStore, support: Sequence[int]) -> Iterator[tuple[int, int]]:
        from engine.tuning.loop import fit

        setting, tasks = self.setting, self.tasks
        if self.config.source_names:
            setting, tasks = other_tasks(self.config, setting, store, support)
        source: Any = None
        for stage, source in enumerate(self.source_stage(setting, tasks)):
            for step, steps, *_ in fit(source, setting.support[None], setting.targets, self.schedule, setting.seed):
                yield stage * steps + step, 2 * steps
        self.start_from(source.prompt)

    @property
    def schedule(self) -> MultitaskPromptConfig:
        """The source stage's settings."""
        return dataclasses.replace(self.config, epochs=self.config.source_epochs)

    def source_stage(self, setting: TunerContext, tasks: Tensor) -> Iterator[SourcePrompts]:
        """The teachers, then, made when these are trained, the prompt that is distilled from them."""
        teachers = SourcePrompts(self.config, setting, tasks.to(self.frozen_text.device))
        yield teachers
        yield SharedPrompt(self.config, setting, teachers.tasks, teachers.eval())

    def pretraining_stages(self) -> Iterator[tuple[Tuner, TrainConfig, int]]:
        setting, tasks, labels = self.setting, self.tasks, len(self.setting.labels)
        if many := len(self.config.source_names):
            tasks = torch.arange(many).repeat_interleave(labels)
            setting = dataclasses.replace(
                setting,
                labels=setting.labels * many,
                support=setting.support.repeat(many, 1),
                targets=torch.cat([setting.targets + labels * k for k in range(many)]),
            )
        for source in self.source_stage(setting, tasks):
            yield source, self.schedule, len(setting.targets)

    @torch.no_grad()
    def start_from(self, source: Any) -> None:
        """Take over P* and the mean of the source tasks' factors."""
        self.prompt.embedding.weight.copy_(source.embedding.weight)
        self.prompt.prefix_task_cols.copy_(source.prefix_task_cols.mean(0, keepdim=True))
        self.prompt.prefix_task_rows.copy_(source.prefix_task_rows.mean(0, keepdim=True))


class SourcePrompts(TextPrompt):
    """The teachers: a prompt of its own for each source task, trained by ordinary prompt tuning.

    Args:
        tasks: the source task of each label, ``(K,)``; the labels of a task compete with each other only.
    """

    def __init__(self, config: MultitaskPromptConfig, setting: TunerContext, tasks: Tensor):
        super().__init__(config, setting, reserve=config.tokens)
        self.tasks = tasks
        self.own = nn.Parameter(start_vectors(config, setting).repeat(int(tasks.max()) + 1, 1, 1))  # (tasks, M, D)

    def prompts(self) -> Tensor:
        """Return each task's prompt, ``(tasks, M, D)``."""
        return self.own

    def around(self) -> Around:
        return Around(self.prompts()[self.tasks])

    def within(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return logits ``(B, K)`` with the labels of other tasks than the image's own out of the question."""
        return logits.masked_fill(self.tasks != self.tasks[targets][:, None], -1e4)

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.within(self(x), targets)
        return F.cross_entropy(logits, targets), logits


class SharedPrompt(SourcePrompts):
    """The student: one P* for all source tasks, ``P* o (u_k v_k^T)`` for task k.

    Loss: cross-entropy plus ``distil`` times (KL divergence from the teacher's probabilities + mean
    squared distance of the text features, which stand for MPT's hidden states).
    """

    def __init__(self, config: MultitaskPromptConfig, setting: TunerContext, tasks: Tensor, teachers: SourcePrompts):
        super().__init__(config, setting, tasks)
        del self.own
        self.prompt = shared_prompt(config, setting, int(tasks.max()) + 1)
        with torch.no_grad():
            self.teacher_text = teachers.text_features()  # (K, P)

    def prompts(self) -> Tensor:
        return task_prompts(self.prompt)

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        text = self.text_features()
        logits = self.within(self.head(x, text), targets)
        teacher = self.within(self.head(x, self.teacher_text), targets)
        soft = F.kl_div(logits.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)
        hidden = (text - self.teacher_text).square().sum(-1).mean()
        return F.cross_entropy(logits, targets) + self.config.distil * (soft + hidden), logits


def shared_prompt(config: MultitaskPromptConfig, setting: TunerContext, tasks: int) -> Any:
    """PEFT's ``MultitaskPromptEmbedding``, started so that every task's factor is all ones.

    PEFT starts factors at noise of std 0.02, whose products would wipe the words of P* out.
    """
    from peft import MultitaskPromptTuningConfig
    from peft.tuners.multitask_prompt_tuning.model import MultitaskPromptEmbedding

    start = start_vectors(config, setting)  # (M, D)
    prompt = MultitaskPromptEmbedding(
        MultitaskPromptTuningConfig(
            num_virtual_tokens=len(start),
            token_dim=start.shape[1],
            num_transformer_submodules=1,
            num_tasks=tasks,
            num_ranks=config.rank,
        ),
        None,
    ).to(start)
    with torch.no_grad():
        prompt.embedding.weight.copy_(start)
        prompt.prefix_task_cols[..., 0] = 1  # (tasks, M, r)
        prompt.prefix_task_rows[:, 0] = 1  # (tasks, r, D)
        prompt.prefix_task_rows[:, 1:] = 0  # ranks beyond the first add nothing yet
    return prompt


def task_prompts(prompt: Any) -> Tensor:
    """``P* o (u_k v_k^T)`` of every task, ``(tasks, M, D)``."""
    tasks = torch.arange(prompt.num_tasks, device=prompt.embedding.weight.device)
    tokens = torch.arange(prompt.num_virtual_tokens, device=tasks.device)
    return prompt(tokens.expand(len(tasks), -1), tasks)


def other_tasks(
    config: MultitaskPromptConfig, setting: TunerContext, store: FeatureStore, support: Sequence[int]
) -> tuple[TunerContext, Tensor]:
    """Return the labels and images of all other tasks, one task after the other, and the task of each label ``(K,)``.

    Images of the run that do not train are left out wherever they turn up again. Raises BadTask.
    """
    from engine.tuning.features import FeatureStore, text_features

    trains = {store.images[i].digest for i in support}
    hidden = {image.digest for image in store.images} - trains
    labels: list[Label] = []
    features, targets, tasks = [], [], []
    with temporary.folder() as work:
        for k, name in enumerate(config.source_names):
            task = setting.sources.task(name, Path(work) / str(k))
            chosen = usable(task, hidden, config.source_shots, setting.seed)
            if len(chosen) < 2:
                raise BadTask("source_small", name=name)
            images = [image for rows in chosen.values() for image in rows]
            features.append(FeatureStore(setting.backbone, images, store.cache, store.check, store.batch).features())
            for label in (label for label in task.labels if label.name in chosen):
                targets += [len(labels)] * len(chosen[label.name])
                labels.append(label)
                tasks.append(k)
    text = text_features(setting.backbone, [x.phrase for x in labels], setting.templates[:1], store.cache)
    joined = dataclasses.replace(
        setting,
        labels=tuple(labels),
        single=text,
        ensemble=text,
        support=torch.cat(features),
        targets=torch.tensor(targets, device=text.device),
    )
    return joined, torch.tensor(tasks)


def usable(task: SourceTask, hidden: set[str], shots: int, seed: int) -> dict[str, list[ImageFile]]:
    """Return up to ``shots`` images of each label that has any, drawn by the seed, none of them hidden."""
    chosen = {}
    for k, label in enumerate(task.labels):
        rows = [image for image in task.images if image.label == label.name and image.digest not in hidden]
        if rows:
            order = np.random.default_rng([seed, k]).permutation(len(rows))[:shots]
            chosen[label.name] = [rows[i] for i in order]
    return chosen


def task_of_labels(config: MultitaskPromptConfig, setting: TunerContext) -> Tensor:
    """Return the source task of each label, ``(K,)``. Raises BadConfig for unknown or repeated names in ``groups``."""
    names = [label.name for label in setting.labels]
    if not config.groups.replace("|", "").strip():
        order = torch.randperm(len(names), generator=setting.generator())
        tasks = torch.empty_like(order)
        tasks[order] = torch.arange(len(names)) % max(1, min(config.source_tasks, len(names) // 2))
        return tasks
    chosen: dict[str, int] = {}
    for k, group in enumerate(g for g in config.groups.split("|") if g.strip()):
        for name in (part.strip() for part in group.split(",")):
            if name not in names or name in chosen:
                allowed = Note.of("allowed_labels_once", names=tuple(names))
                raise BadConfig("bad_setting", method=config.method, name="groups", value=name, allowed=allowed)
            chosen[name] = k
    return torch.tensor([chosen.get(name, max(chosen.values()) + 1) for name in names])


def paper(shots: int) -> MultitaskPromptConfig:
    """Rank 1 and the weight 0.9 as published. MPT's 100 tokens do not fit CLIP's context and its learning rate
    of 0.3 belongs to T5's much larger embeddings: CoOp's 16 tokens from noise and its epochs instead."""
    return MultitaskPromptConfig(tokens=16, init="noise", lr=2e-3, epochs=100, source_epochs=100)


register(
    MethodSpec(
        id="multitask_prompt",
        name="Multitask prompt (MPT)",
        family="text prompt",
        sentence="First learns one prompt from several tasks, your other ones or groups of the labels, then tunes it.",
        use_when="You have other tasks of the same kind, or many labels that fall into groups: what they have in "
        "common is learned first.",
        equation="wₖ = text([P* ∘ u·vᵀ] [label k])",
        paper="Wang et al. 2023, Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning, "
        "arXiv 2303.02861",
        config=MultitaskPromptConfig,
        tuner=lambda: MultitaskPrompt,
        count=lambda shape, config, K, N: (
            (config.tokens + config.rank) * shape.text_width + config.rank * config.tokens
        ),
        formula="M·Dt + r·(M + Dt)",
        runs_on="text",
        failures=(
            "Groups of few labels hold nothing that the task itself does not; other tasks do.",
            "Trains three times, so it takes longer than plain prompt tuning.",
        ),
        saved="the M vectors and the factor",
        starts_at="zero_shot",
        needs=frozenset({TEXT_TOKENS}),
        presets={
            "budget": lambda shots: MultitaskPromptConfig(),
            "paper": paper,
        },
    )
)
