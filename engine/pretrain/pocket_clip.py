"""Train Pocket CLIP, the bundled backbone, on one machine.

``python -m engine.pretrain.pocket_clip --data DIR --out assets/pocket-clip --minutes 90`` starts
from scratch; with ``--start assets/pocket-clip`` it goes on from finished weights.

The model is a transformers ``CLIPModel``. Training starts with few image tokens and ends at full
resolution (FLIP, arXiv 2212.00794, and progressive resizing); hidden matrices are trained with
Muon, everything else with AdamW; images whose captions fit each other are not negatives.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPModel

from engine import vocabulary
from engine.precision import multiplies_bf16
from engine.pretrain.card import describe_run, read_runs, write_card
from engine.pretrain.corpus import Batch, Mixer, all_captions, load_sources
from engine.pretrain.measure import MEAN, STD, Suite
from engine.pretrain.model import Recipe, build_model, grow
from engine.pretrain.tokenizer import copy_tokenizer, train_tokenizer


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


class Trainer:
    """One training run: model, optimizers, clock; can be stopped and resumed between steps.

    ``start`` is a folder of finished weights to go on from; None starts from scratch. ``compiled``
    runs the transformer layers through ``torch.compile`` (a third faster on a CPU; needs a C++ compiler).
    """

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, work: Path, device: str,
        start: Path | None = None, compiled: bool = False,
    ):  # fmt: skip
        self.compiled = compiled
        self.recipe, self.out, self.work, self.device = recipe, out, work, device
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.mixer = Mixer(load_sources(data, device), recipe.batch_size, recipe.seed)
        self.bf16 = multiplies_bf16(torch.device(device).type)
        self.suite = Suite(data)
        self.earlier: list[dict[str, Any]] = []
        self._maker, self._ahead = ThreadPoolExecutor(1), dict[tuple[int, int], Future[Batch]]()
        torch.manual_seed(recipe.seed)
        self.size = recipe.small_size
        if start:
            self.earlier = read_runs(start)
            self.tokenizer = copy_tokenizer(start, out)
            self._adopt(grow(CLIPModel.from_pretrained(start, dtype=torch.float32), recipe, self.size))
        else:
            self.tokenizer = train_tokenizer(all_captions(self.mixer.sources), out, context=recipe.context)
            self._adopt(build_model(recipe, len(self.tokenizer), self.size))
        said = (a + b for source in self.mixer.sources for a, b in zip(source.captions, source.broader, strict=True))
        vocabulary.write(vocabulary.count(said), out)

    def _adopt(self, model: Any, average: Any | None = None) -> None:
        """Make ``model`` the one in training, with fresh optimizers."""
        self.model: Any = model.to(self.device).train()
        self.average: Any = AveragedModel(average or model, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema)).to(
            self.device
        )
        self.average.n_averaged.fill_(0 if average is None else 1)
        if self.compiled:
            for layer in (*model.vision_model.encoder.layers, *model.text_model.encoder.layers):
                layer.compile(dynamic=layer in list(model.text_model.encoder.layers))
        hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
        seen = {id(p) for p in hidden}
        rest = [p for p in model.parameters() if id(p) not in seen]
        matrices = [p for p in rest if p.ndim >= 2]
        vectors = [p for p in rest if p.ndim < 2]
        decay = self.recipe.weight_decay
        self.optimizers = {
            "muon": torch.optim.Muon(
                hidden, lr=self.recipe.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adam": torch.optim.AdamW(
                [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
                lr=self.recipe.adam_lr, betas=(0.9, 0.98), fused=True,
            ),
        }  # fmt: skip
        self._base = {n: [g["lr"] for g in o.param_groups] for n, o in self.optimizers.items()}

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.recipe.images:
            return self.images / self.recipe.images
        return self.seconds / (60 * self.recipe.minutes)

    def _set_rates(self) -> None:
        p, warm = min(self.progress, 1.0), self.recipe.warmup
        factor = p / warm if p < warm else 0.5 * (1 + math.cos(math.pi * (p - warm) / (1 - warm)))
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
                group["lr"] = base * max(factor, 0.005)

    def _grow_if_due(self) -> None:
        if self.size < self.recipe.image_size and self.progress >= self.recipe.small_share:
            self.size = self.recipe.image_size
            self._adopt(*(grow(m, self.recipe, self.size) for m in (self.model, self.average.module)))

    def logits(self, batch: Batch) -> torch.Tensor:
        """Scaled cosine similarities ``(B, U)`` of a batch."""
        pixels = (batch.pixels - MEAN.to(self.device)) / STD.to(self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
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

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        started = time.perf_counter()
        self._grow_if_due()
        self._set_rates()
        batch = self._batch()
        loss = contrastive_loss(self.logits(batch), batch.target.to(self.device), batch.related.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        self.average.update_parameters(self.model)
        self.step += 1
        self.images += len(batch.target)
        self.seconds += time.perf_counter() - started
        return loss.item()

    def run(self, every: float = 1200.0) -> None:
        """Train to the end, printing progress; checkpoint, measure and export every ``every`` seconds."""
        last, losses = time.perf_counter(), []
        while self.progress < 1:
            losses.append(self.train_step())
            if self.step % 50 == 0:
                mean, losses = sum(losses) / len(losses), []
                rate = self.images / self.seconds
                where = f"{self.progress:6.1%} step {self.step} images {self.images}"
                print(f"{where} {rate:.0f}/s loss {mean:.3f}", flush=True)
            if time.perf_counter() - last > every:
                self.save()
                self.export()
                last = time.perf_counter()
        self.save()
        self.export()

    def save(self) -> None:
        """Write the checkpoint that ``resume`` reads; replaced in one move."""
        self.work.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": asdict(self.recipe), "size": self.size, "earlier": self.earlier,
            "clock": (self.step, self.images, self.seconds),
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimizers": {n: o.state_dict() for n, o in self.optimizers.items()},
        }  # fmt: skip
        torch.save(state, self.work / "checkpoint.tmp")
        (self.work / "checkpoint.tmp").replace(self.work / "checkpoint.pt")

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; raises ValueError if its recipe differs."""
        path = self.work / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if {**state["recipe"], "minutes": 0} != {**asdict(self.recipe), "minutes": 0}:
            raise ValueError(
                f"{path} was made with another recipe: {state['recipe']}. Use its options or another --work folder."
            )
        self.size, self.earlier = state["size"], state["earlier"]
        self._adopt(build_model(self.recipe, len(self.tokenizer), self.size))
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.images, self.seconds = state["clock"]
        return True

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


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pretrain.pocket_clip", description="Train Pocket CLIP, the bundled backbone."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the parquet files")
    parser.add_argument("--out", type=Path, default=Path("assets/pocket-clip"), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("runs/pocket-clip"), help="where the checkpoint goes")
    parser.add_argument("--start", type=Path, help="folder of finished weights to go on from; default: from scratch")
    parser.add_argument("--minutes", type=float, help="length of training in minutes (default: 90, on a GPU 25)")
    parser.add_argument("--images", type=int, help="length in images instead of minutes (repeatable)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--batch-size", type=int, help="images a step (default: 512, on a GPU 2048)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="faster steps where a C++ compiler is at hand")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    given = {name: getattr(options, name) for name in ("minutes", "images", "seed", "batch_size")}
    recipe = Recipe.preset(device, **{name: value for name, value in given.items() if value is not None})
    trainer = Trainer(recipe, options.data, options.out, options.work, device, options.start, options.compile)
    if options.resume and trainer.resume():
        print(f"resumed at {trainer.progress:.1%}")
    trainer.run()


if __name__ == "__main__":
    main()
