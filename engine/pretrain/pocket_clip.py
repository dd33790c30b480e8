"""Train Pocket CLIP, the bundled backbone, on one machine.

``python -m engine.pretrain.pocket_clip --data DIR --out assets/pocket-clip --minutes 90`` starts
from scratch; with ``--start assets/pocket-clip`` it goes on from finished weights.

The model is a transformers ``CLIPModel``. Training starts with few image tokens and ends at full
resolution (FLIP, arXiv 2212.00794, and progressive resizing); hidden matrices are trained with
Muon, everything else with AdamW; images whose captions fit each other are not negatives.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from engine.backbones import vocabulary
from engine.pretrain.card import describe_run, read_runs, write_card
from engine.pretrain.corpus import Batch, Mixer, all_captions, load_sources
from engine.pretrain.measure import MEAN, STD, Suite
from engine.pretrain.model import Recipe, build_model, grow
from engine.pretrain.tokenizer import copy_tokenizer, train_tokenizer
from engine.pretrain.training import Training, chosen, command_line


def contrastive_loss(logits: torch.Tensor, target: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
    """InfoNCE between B images and the batch's U distinct sentences, ``logits (B, U)``.

    ``target (B,)`` is each image's own sentence. A sentence that also fits the image
    (``related (B, U)``) is neither its positive nor its negative. From text to image every image
    that drew the sentence is a positive.
    """
    own = F.one_hot(target, logits.shape[1]).bool()
    masked = logits.masked_fill(related & ~own, float("-inf"))
    to_text = F.cross_entropy(masked, target)
    log_p = masked.log_softmax(dim=0)
    to_image = -(log_p.masked_fill(~own, 0).sum(0) / own.sum(0).clamp(min=1)).mean()
    return (to_text + to_image) / 2


class Trainer(Training):
    """Pocket CLIP's training.

    ``start`` is a folder of finished weights to go on from; None starts from scratch. ``compiled``
    runs the transformer layers through ``torch.compile`` (a third faster on a CPU; needs a C++ compiler).
    """

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, work: Path, device: str,
        start: Path | None = None, compiled: bool = False,
    ):  # fmt: skip
        super().__init__(recipe, out, work, device)
        self.recipe: Recipe = recipe
        self.compiled = compiled
        self.mixer = Mixer(load_sources(data, device), recipe.batch_size, recipe.seed)
        self.suite = Suite(data)
        self._maker, self._ahead = ThreadPoolExecutor(1), dict[tuple[int, int], Future[Batch]]()
        self.size = recipe.small_size
        if start:
            self.earlier = read_runs(start)
            self.tokenizer = copy_tokenizer(start, out)
            self.adopt(grow(CLIPModel.from_pretrained(start, dtype=torch.float32), recipe, self.size))
        else:
            self.tokenizer = train_tokenizer(all_captions(self.mixer.sources), out, context=recipe.context)
            self.adopt(build_model(recipe, len(self.tokenizer), self.size))
        said = (a + b for source in self.mixer.sources for a, b in zip(source.captions, source.broader, strict=True))
        vocabulary.write(vocabulary.count(said), out)

    def adopt(self, model: Any, average: Any | None = None) -> None:
        """Make ``model`` the one in training, its layers compiled where that is asked for."""
        super().adopt(model, average)
        if self.compiled:
            for layer in (*model.vision_model.encoder.layers, *model.text_model.encoder.layers):
                layer.compile(dynamic=layer in list(model.text_model.encoder.layers))

    def hidden(self, model: Any) -> list[torch.nn.Parameter]:
        """The layers' matrices."""
        return [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]

    def _grow_if_due(self) -> None:
        if self.size < self.recipe.image_size and self.progress >= self.recipe.small_share:
            self.size = self.recipe.image_size
            self.adopt(*(grow(m, self.recipe, self.size) for m in (self.model, self.average.module)))

    def logits(self, batch: Batch) -> torch.Tensor:
        """Scaled cosine similarities ``(B, U)`` of a batch."""
        pixels = (batch.pixels - MEAN.to(self.device)) / STD.to(self.device)
        with self.autocast():
            image = self.model.get_image_features(pixel_values=pixels).pooler_output.float()
            text = self.encode_texts(batch.texts).float()
        scale = self.model.logit_scale.clamp(max=math.log(100)).exp()
        return scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T

    def encode_texts(self, texts: list[str], short: int = 12) -> torch.Tensor:
        """Text features ``(U, P)``; short and long texts run apart, so that few tokens are padding."""
        ids = self.tokenizer(texts, truncation=True).input_ids
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]) > short)
        split = sum(len(row) <= short for row in ids)
        features = []
        for group in filter(None, (order[:split], order[split:])):
            padded = self.tokenizer.pad({"input_ids": [ids[i] for i in group]}, return_tensors="pt").input_ids
            features.append(self.model.get_text_features(input_ids=padded.to(self.device)).pooler_output)
        return torch.cat(features)[torch.tensor(order).argsort()]

    def _batch(self) -> Batch:
        """This step's batch; the next one is made meanwhile."""
        wanted = (self.step, self.size)
        batch = self._ahead.pop(wanted).result() if wanted in self._ahead else self._make(*wanted)
        self._ahead = {(self.step + 1, self.size): self._maker.submit(self._make, self.step + 1, self.size)}
        return batch

    def _make(self, step: int, size: int) -> Batch:
        return self.mixer.batch(step, size, self.recipe.min_area, self.recipe.jitter)

    def forward(self) -> tuple[torch.Tensor, int]:
        """The loss of this step's batch, and its size."""
        self._grow_if_due()
        batch = self._batch()
        loss = contrastive_loss(self.logits(batch), batch.target.to(self.device), batch.related.to(self.device))
        return loss, len(batch.target)

    def state(self) -> dict[str, Any]:
        """The images' side, which grows on the way."""
        return {"size": self.size}

    def restore(self, state: dict[str, Any]) -> None:
        """A model for images of the checkpoint's size."""
        self.size = state["size"]
        self.adopt(build_model(self.recipe, len(self.tokenizer), self.size))

    def export(self) -> dict[str, float]:
        """Measure the averaged weights and write them, fp16, with a card, into the output folder."""
        model: Any = self.average.module
        if self.size < self.recipe.image_size:
            model = grow(model, self.recipe, self.recipe.image_size).to(self.device)
        model = model.eval()
        figures = self.suite.measure(model, self.tokenizer)
        print(json.dumps({k: round(v, 4) for k, v in figures.items()}), flush=True)
        write_weights(model, self.out)
        run = describe_run(asdict(self.recipe), self.images, self.seconds, self.device)
        write_card(self.out, [*self.earlier, run], figures, model.num_parameters())
        return figures


def write_weights(model: Any, out: Path) -> None:
    """Save ``config.json``, ``model.safetensors`` (fp16) and ``preprocessor_config.json``."""
    from transformers import CLIPImageProcessor

    half = CLIPModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    side = model.config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side},
        image_mean=MEAN.flatten().tolist(), image_std=STD.flatten().tolist(),
    ).save_pretrained(out)  # fmt: skip


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
