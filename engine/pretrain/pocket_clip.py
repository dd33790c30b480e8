"""Train Pocket CLIP, the bundled backbone, on one machine.

``python -m engine.pretrain.pocket_clip --data DIR --out assets/pocket-clip`` makes it again; with ``--resume`` an
interrupted run goes on, with ``--start FOLDER`` finished weights are trained on. It needs
``requirements-pretrain.txt``.

The image tower is the trunk of EfficientNet-Lite0 (ImageNet weights) with a transformer that reads its 7 x 7 features
as tokens; the text tower is a transformer from scratch. What the trunk's frozen lower stages see is extracted once.
Four teachers, none of which is shipped:

- captions of the pictures (InfoNCE; captions that fit each other are no negatives);
- the trunk's own classifier: its answers to photographs as soft labels over ImageNet's 1,000 names, and *imagined*
  features, a picture's features moved to the class mean that a row of the classifier implies;
- a sentence encoder, which says what unseen words are like: a small head carries its features into the shared space,
  and the text tower learns to answer as that head does, on the names of 22,000 nouns;
- the trunk's pooled feature, which the image feature must still contain (linear decoding), so that few-shot heads
  find what no caption names.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.backbones import vocabulary
from engine.backbones.conv_stem import HybridCLIPModel
from engine.pretrain import lexicon
from engine.pretrain.card import describe_run, read_runs, write_card
from engine.pretrain.corpus import captions_of
from engine.pretrain.losses import Imagination, classifier_loss, contrastive_loss, solve_linear
from engine.pretrain.measure import TEMPLATE, Suite
from engine.pretrain.mixer import Ahead, Batch, Mixer, Pictures, phrase
from engine.pretrain.model import Recipe, Student, build_clip
from engine.pretrain.precision import attend_without_plans
from engine.pretrain.teachers import MEAN, STD, SentenceEncoder, Trunk
from engine.pretrain.tokenizer import copy_tokenizer, train_tokenizer
from engine.pretrain.training import Training, chosen, command_line
from engine.pretrain.views import Extracted, Live, Views, sample

SAMPLED = 20_000
"""Crops that say how the teacher's features are spread."""
WORKERS = max(2, (os.cpu_count() or 2) - 2)
"""Processes that decode pictures and make batches beside a GPU."""
ALIKE = 0.8
"""Cosine of two captions' sentence features from which on they are no negatives of each other."""
REMEMBERED = 256
"""Principal components of the pooled trunk feature that the image feature must contain."""
IMAGENET_IMAGES = 732
"""Least number of training images of an ImageNet class (Russakovsky et al., arXiv 1409.0575): how often the trunk saw
a word of its name at least."""


class Meanings:
    """Sentence features of every text that training needs, computed once and kept in a file of ``folder``."""

    def __init__(self, texts: list[str], folder: Path, device: str):
        self.row = {text: k for k, text in enumerate(sorted(set(texts)))}
        digest = hashlib.sha256("\x00".join(self.row).encode()).hexdigest()[:12]
        path = folder / f"sentences-{digest}.safetensors"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": SentenceEncoder(device).encode(list(self.row)).half()}, path)
        self.features = load_file(path)["features"].to(device)

    def __call__(self, texts: list[str]) -> Tensor:
        """Features ``(n, 384)`` of known texts, fp32."""
        return self.features[[self.row[text] for text in texts]].float()


class Trainer(Training):
    """Pocket CLIP's training.

    ``start`` is a folder of finished weights to go on from; None starts from scratch. ``compiled`` runs the transformer
    layers and the extraction through ``torch.compile`` (needs a C++ compiler).
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        out: Path,
        work: Path,
        device: str,
        start: Path | None = None,
        compiled: bool = False,
    ):
        super().__init__(recipe, out, work, device)
        attend_without_plans()
        self.recipe: Recipe = recipe
        self.compiled = compiled
        live = recipe.live
        self.trunk = Trunk(device, compiled and not live)
        self.views = Live(data, self.trunk, WORKERS, compiled) if live else Extracted(data, work, self.trunk)
        pictures = [Pictures(source, list(map(captions_of, rows))) for source, rows in self.views.rows.items()]
        self.mixer = Mixer(pictures, recipe.batch_size, recipe.seed, recipe.distractors)
        self.ahead = Ahead(self.mixer, WORKERS if live else 1)
        self.classes = lexicon.nouns("imagenet-1k")
        self.names = lexicon.vocabulary_texts()
        self.described = dict(self.names)
        self.suite = Suite(data, frozen=not live)
        captions = [caption for p in pictures for words in (*p.captions, *p.broader) for caption in words]
        self.meanings = Meanings([*captions, *self._name_texts()], work, device)
        pooled, logits = sample(self.views, [self.mixer.batch(k) for k in range(SAMPLED // recipe.batch_size + 1)])
        self.imagination = Imagination(pooled, self.trunk.rows.cpu(), logits)
        self._remember(pooled)
        if start:
            self.earlier = read_runs(start)
            self.tokenizer = copy_tokenizer(start, out)
        else:
            self.tokenizer = train_tokenizer(self._spoken(captions), out, recipe.vocabulary, recipe.context)
        self.adopt(self._student(start))
        if start:
            self._fit_memory()
            if not self._teaching.exists():
                self._fit_sentences()
        vocabulary.write(self._word_counts(pictures), out)

    def _name_texts(self) -> list[str]:
        described = [noun.described for noun in self.classes]
        names = [name for noun in self.classes for name in noun.names]
        return [*described, *names, *(text for pair in self.names for text in pair)]

    def _spoken(self, captions: list[str]) -> list[str]:
        """Texts that the tokenizer learns its merges from: everyday captions weigh most."""
        sentences = [t.format("thing") for t in lexicon.TEMPLATES for _ in range(200)]
        return [
            *captions,
            *(n for noun in self.classes for n in noun.names for _ in range(3)),
            *sentences,
            *(name for name, _ in self.names),
        ]

    def _word_counts(self, pictures: list[Pictures]) -> dict[str, int]:
        """In how many pictures' captions each word stands; ImageNet's classes, which the trunk saw, count with their
        least number."""
        said = [a + b for p in pictures for a, b in zip(p.captions, p.broader, strict=True)]
        names = [list(noun.names) for noun in self.classes for _ in range(IMAGENET_IMAGES)]
        return vocabulary.count([*said, *names])

    def _remember(self, pooled: Tensor) -> None:
        """Principal components of the pooled features, each with the root of its usual length, so that rare details
        count beside the great differences."""
        mean = pooled.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(pooled.T))
        values, vectors = values[-REMEMBERED:].clamp(min=1e-6), vectors[:, -REMEMBERED:]
        self._centre, self._components = mean.to(self.device), (vectors / values**0.25).to(self.device)
        scaled = (pooled - mean) @ (vectors / values**0.25)
        self._memory_variance = scaled.var(0).sum().item()

    def _student(self, start: Path | None) -> Student:
        if start:
            clip: Any = HybridCLIPModel.from_pretrained(start, dtype=torch.float32)
        else:
            clip = build_clip(self.recipe, len(self.tokenizer))
            stem = clip.vision_model.embeddings.patch_embedding
            own = {k: v for k, v in self.trunk.network.state_dict().items() if not k.startswith("classifier.")}
            stem.trunk.load_state_dict(own)
            with torch.no_grad():
                stem.projection.weight.copy_(self._components.T.flip(0)[: self.recipe.vision_width, :, None, None])
                stem.projection.bias.copy_(-(self._centre @ self._components).flip(0)[: self.recipe.vision_width])
        student = Student(clip, self.meanings.features.shape[1], REMEMBERED, whole=self.recipe.live)
        if start and self._teaching.exists():
            student.load_state_dict(load_file(self._teaching), strict=False)
        return student

    def _fit_memory(self, batches: int = 16) -> None:
        """Least squares of the memory head on what the model sees already: a head that starts anywhere else throws it
        back."""
        seen, wanted = [], []
        with torch.no_grad():
            for views in map(self.views.look, map(self.mixer.batch, range(batches))):
                seen.append(self._images(views, torch.zeros(0, dtype=torch.long)))
                wanted.append(self._remembered(views))
        solve_linear(self.model.memory, torch.cat(seen) * math.sqrt(seen[0].shape[1]), torch.cat(wanted))

    @torch.no_grad()
    def _fit_sentences(self, batch: int = 1024) -> None:
        """Least squares of the sentence head on the text tower's features of the nouns: a random head would pull the
        trained towers away."""
        names = [name for name, _ in self.names]
        parts = [names[start : start + batch] for start in range(0, len(names), batch)]
        with self.autocast():
            said = [self.encode_texts([TEMPLATE.format(name) for name in part]) for part in parts]
        solve_linear(self.model.sentences.linear, self.meanings(names), torch.cat(said))

    @property
    def _teaching(self) -> Path:
        """Where the parts of a finished training that are not in its model wait for a training that starts from it."""
        return self.work / "teaching.safetensors"

    def adopt(self, model: Any, average: Any | None = None) -> None:
        """Make ``model`` the one in training, its layers compiled where that is asked for."""
        super().adopt(model, average)
        self.model.stem.to(memory_format=torch.channels_last)
        if self.compiled and not self.recipe.live:
            for layer in (*model.clip.vision_model.encoder.layers, *model.clip.text_model.encoder.layers):
                layer.compile(dynamic=True)

    def hidden(self, model: Any) -> list[nn.Parameter]:
        """The layers' matrices."""
        return [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]

    def slow(self, model: Any) -> list[tuple[list[nn.Parameter], float]]:
        """The trunk's stages, the first ones least of all: they know most already."""
        return list(zip(model.trunk_parameters(), (self.recipe.lower_rate, self.recipe.trunk_rate), strict=True))

    def encode_texts(self, texts: list[str], short: int = 12) -> Tensor:
        """Normalised text features ``(n, P)``; short and long texts run apart, so that few tokens are padding."""
        ids = self.tokenizer(texts, truncation=True).input_ids
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]) > short)
        split = sum(len(row) <= short for row in ids)
        features = []
        for group in filter(None, (order[:split], order[split:])):
            rows = zip_longest(*(ids[i] for i in group), fillvalue=self.tokenizer.pad_token_id)
            padded = torch.tensor(list(rows)).T.to(self.device)
            features.append(self.model.clip.get_text_features(input_ids=padded).pooler_output)
        return F.normalize(torch.cat(features)[torch.tensor(order).argsort()].float(), dim=-1)

    def _images(self, views: Views, imagined: Tensor) -> Tensor:
        """Image features ``(B + imagined, P)``, normalised: the batch's crops and imagined ones of those classes."""
        trained = bool(self.earlier) or self.progress >= self.recipe.trunk_from
        with self.autocast():
            with torch.set_grad_enabled(trained):
                grid = self.views.grid(self.model.stem, views.seen).float()
            loose = self.imagination(grid[: len(imagined)].detach(), imagined.to(self.device))
            count = (grid.shape[-1] * grid.shape[-2]) if trained else self.recipe.tokens
            keep = torch.randperm(grid.shape[-1] * grid.shape[-2])[:count].sort().values
            features = self.model.encode_grid(torch.cat([grid, loose]), keep)
        return F.normalize(features.float(), dim=-1)

    def forward(self) -> tuple[Tensor, int]:
        """The loss of this step's batch, and its size."""
        recipe, batch = self.recipe, self.ahead(self.step)
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        views = self.views.look(batch)
        generator = torch.Generator().manual_seed(recipe.seed * 9_176 + self.step)
        asked = self._asked(views.logits[batch.taught], generator)
        imagined = asked[torch.randint(len(asked), (recipe.imagined,), generator=generator)]
        images = self._images(views, imagined)
        pictures = images[: len(batch.target)]
        sentences, names = self._sentence_side(batch, generator)
        drawn = torch.randint(len(self.names), (recipe.words,), generator=generator)
        words = [self.names[k][0] for k in drawn.tolist()]
        meanings = self._noun_meanings(words)
        said = [self.classes[k].names[0] for k in asked.tolist()]
        with self.autocast():
            texts = self.encode_texts(
                [
                    *batch.sentences,
                    *(phrase(text, lexicon.TEMPLATES, generator) for text in (*said, *words)),
                ]
            )
        own, of_classes, _ = texts.split([len(batch.sentences), len(said), len(words)])
        related = batch.related.to(self.device) | self._alike(batch)
        scale = self.model.clip.logit_scale.clamp(max=math.log(100)).exp()
        sentence_scale = self.model.sentence_scale.clamp(max=math.log(100)).exp()
        target = batch.target.to(self.device)
        loss = contrastive_loss(scale * pictures @ own.T, target, related)
        loss = loss + contrastive_loss(sentence_scale * pictures @ sentences.T, target, related)
        answers, taught_here = views.logits.float().softmax(-1), batch.taught.to(self.device)
        for similarity, columns in ((sentence_scale * images @ names.T, None), (scale * images @ of_classes.T, asked)):
            loss = loss + 0.5 * classifier_loss(similarity, answers, taught_here, imagined, columns)
        taught = torch.cat([sentences, names[asked], meanings]).detach()
        loss = loss + 4 * (1 - (texts * taught).sum(-1)).mean()
        return loss + 2 * self._memory_loss(pictures, views), len(batch.target)

    def _asked(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """ImageNet classes that the text tower names in this step: likely ones of the photographs, whose ``logits``
        these are, and any others."""
        likely = logits.float().topk(2).indices.flatten().unique().cpu()
        likely = likely[torch.randperm(len(likely), generator=generator)[: self.recipe.classes // 2]]
        others = torch.randperm(1000, generator=generator)
        return torch.cat([likely, others[~torch.isin(others, likely)]])[: self.recipe.classes]

    def _sentence_side(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The sentence encoder's features, carried over: of the captions ``(U, P)`` and of the classes ``(1000, P)``,
        by a random one of their names or with their gloss."""
        texts = []
        for noun in self.classes:
            variants = (noun.names[0], *noun.names, noun.described)
            texts.append(variants[int(torch.randint(len(variants), (1,), generator=generator))])
        both = self.model.sentences(self.meanings([*batch.captions, *texts]))
        return both[: len(batch.captions)], both[len(batch.captions) :]

    def _noun_meanings(self, words: list[str]) -> Tensor:
        """What the text tower shall answer to names of nouns ``(n, P)``: the name's feature and its gloss's."""
        head = self.model.sentences
        with torch.no_grad():
            head.eval()
            name, gloss = head(self.meanings(words)), head(self.meanings([self.described[word] for word in words]))
            head.train()
        return F.normalize(name + 0.5 * gloss, dim=-1)

    def _alike(self, batch: Batch) -> Tensor:
        """``(B, U)``: captions that mean nearly the same as the crop's own."""
        meaning = self.meanings(batch.captions)
        return (meaning @ meaning.T > ALIKE)[batch.target.to(self.device)]

    def _remembered(self, views: Views) -> Tensor:
        """What the image features of a batch must contain ``(B, 256)``."""
        return (views.pooled.float() - self._centre) @ self._components

    def _memory_loss(self, pictures: Tensor, views: Views) -> Tensor:
        """Share of the pooled trunk feature's variance that a linear map of the image feature misses."""
        error = self.model.memory(pictures * math.sqrt(pictures.shape[1])) - self._remembered(views)
        return error.square().sum(-1).mean() / self._memory_variance

    def export(self) -> dict[str, float]:
        """Write the averaged weights, fp16, into the output folder, measure them and write their card.

        The weights come first: whatever happens to the measuring, they are there.
        """
        student = self.average.module
        save_file(student.teaching(), self._teaching)
        clip: Any = student.clip.eval()
        write_weights(clip, self.out)
        figures = self.suite.measure(clip, self.tokenizer)
        print(json.dumps({k: round(v, 4) for k, v in figures.items()}), flush=True)
        run = describe_run(asdict(self.recipe), self.images, self.seconds, self.device)
        write_card(self.out, [*self.earlier, run], figures, clip.num_parameters())
        return figures


def write_weights(clip: Any, out: Path) -> None:
    """Save ``config.json``, the weights as fp16 in files below 10 MB, and ``preprocessor_config.json``."""
    from transformers import CLIPImageProcessor

    half = HybridCLIPModel(clip.config)
    half.load_state_dict(clip.state_dict())
    for old in out.glob("model*.safetensors*"):
        old.unlink()
    half.half().save_pretrained(out, max_shard_size="9MB")
    side = clip.config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    ).save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = command_line("pocket-clip", "Train Pocket CLIP, the bundled backbone.", Recipe)
    parser.add_argument("--compile", action="store_true", help="faster steps where a C++ compiler is at hand")
    options = parser.parse_args(arguments)
    recipe, device = chosen(options, Recipe)
    trainer = Trainer(recipe, options.data, options.out, options.work, device, options.start, options.compile)
    trainer.go(options.resume)


if __name__ == "__main__":
    main()
