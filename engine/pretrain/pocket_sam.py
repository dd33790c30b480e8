"""Train Pocket SAM, the bundled segmenter, on one machine.

``python -m engine.pretrain.pocket_sam --data DIR --out assets/pocket-sam --minutes 90``; with
``--start assets/pocket-sam`` it goes on from finished weights.

SAM's recipe in small (Kirillov et al., arXiv 2304.02643): a click or a box, then clicks on what was
wrong, three masks of which the best is trained and one that always is, focal and dice loss, and a
head that predicts each mask's IoU. The image encoder starts from Pocket CLIP's image tower, which
has the same width and depth. Hidden matrices are trained with Muon, everything else with AdamW.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.precision import multiplies_bf16
from engine.pretrain.card import describe_run, read_runs
from engine.pretrain.measure_sam import MEAN, held_out_photos, measure
from engine.pretrain.prompting import correction, decode_masks, first_click, jittered_boxes, round_loss
from engine.pretrain.sam_card import write_card
from engine.pretrain.scenes import Batch, Studio
from engine.pretrain.warm_start import adopt_image_tower
from engine.regions.pocket_sam import (
    PocketSamConfig,
    build_pocket_sam,
    load_pocket_sam,
    normalise,
    parameters,
    save_pocket_sam,
)


@dataclass(frozen=True)
class SamRecipe:
    """Everything that decides the weights besides the model's shape; stored in the checkpoint and the card."""

    minutes: float = 90.0
    """Length of training in minutes; ignored where ``steps`` is set."""
    steps: int = 0
    """Length of training in steps; 0 = by time."""
    seed: int = 0
    batch_size: int = 16
    regions: int = 4
    """Masks prompted for in each picture."""
    rounds: int = 3
    """Most rounds of prompts on one mask; half of the steps have one round less."""
    box_share: float = 0.4
    """Share of steps that begin with a box instead of a click."""
    mask_share: float = 0.5
    """Share of later rounds that are shown the mask of the round before."""
    muon_lr: float = 1.5e-3
    adam_lr: float = 7e-4
    weight_decay: float = 0.05
    warmup: float = 0.03
    """Share of training with a rising learning rate."""
    ema: float = 0.997
    makers: int = 1
    """Threads that make pictures ahead of the training."""

    @classmethod
    def preset(cls, device: str, **changes: Any) -> SamRecipe:
        """Defaults for a machine: a GPU takes larger batches, more masks a picture and more rounds."""
        if device.startswith("cuda"):
            gpu = {"minutes": 25.0, "batch_size": 96, "regions": 8, "rounds": 5, "ema": 0.999, "makers": 14}
            changes = {**gpu, "muon_lr": 2e-3, "adam_lr": 1e-3, **changes}
        return cls(**changes)


class SamTrainer:
    """One training run: model, optimizers, clock; can be stopped and resumed between steps.

    ``start`` is a folder of finished weights to go on from; without it the image encoder starts from
    ``tower``, a CLIP's folder, or from noise.
    """

    def __init__(
        self, recipe: SamRecipe, data: Path, out: Path, work: Path, device: str = "cpu",
        start: Path | None = None, tower: Path | None = None, config: PocketSamConfig | None = None,
    ):  # fmt: skip
        self.recipe, self.data, self.out, self.work, self.device = recipe, data, out, work, device
        self.step, self.seconds = 0, 0.0
        self.bf16 = multiplies_bf16(torch.device(device).type)
        torch.manual_seed(recipe.seed)
        self.earlier: list[dict[str, Any]] = read_runs(start) if start else []
        self.config = config or PocketSamConfig()
        self.studio = Studio(data, self.config.image_size, recipe.batch_size, recipe.regions, recipe.seed, device)
        self.sam: Sam = load_pocket_sam(start) if start else build_pocket_sam(self.config)
        if tower and not start:
            sample = self.studio.batch(0).pixels.cpu()
            adopt_image_tower(self.sam, tower, normalise(self.sam.cpu(), sample))
        self.sam = self.sam.to(device).train()
        self.average: Any = AveragedModel(self.sam, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)).to(device)
        self._make_optimizers()
        self._makers, self._ahead = ThreadPoolExecutor(recipe.makers), dict[int, Future[Batch]]()

    def _make_optimizers(self) -> None:
        blocks = (self.sam.image_encoder.blocks, self.sam.mask_decoder.transformer)
        hidden = [p for part in blocks for p in part.parameters() if p.ndim == 2]
        seen = {id(p) for p in hidden}
        rest = [p for p in self.sam.parameters() if p.requires_grad and id(p) not in seen]
        decay = self.recipe.weight_decay
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                hidden, lr=self.recipe.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adam": torch.optim.AdamW(groups, lr=self.recipe.adam_lr, betas=(0.9, 0.98), fused=True),
        }
        self._base = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.recipe.steps:
            return self.step / self.recipe.steps
        return self.seconds / (60 * self.recipe.minutes)

    def _set_rates(self) -> None:
        p, warm = min(self.progress, 1.0), self.recipe.warmup
        factor = p / warm if p < warm else 0.5 * (1 + math.cos(math.pi * (p - warm) / (1 - warm)))
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
                group["lr"] = base * max(factor, 0.005)

    def _batch(self) -> Batch:
        """This step's batch; the next ones are made meanwhile."""
        for step in range(self.step, self.step + self.recipe.makers + 1):
            if step not in self._ahead:
                self._ahead[step] = self._makers.submit(self.studio.batch, step)
        return self._ahead.pop(self.step).result()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean loss over the rounds of prompts on every mask of a batch."""
        masks, cell = batch.masks.flatten(0, 1), self.config.patch_size // 4  # (R, S, S), R = B * N
        coverage = F.avg_pool2d(masks[:, None].float(), cell)[:, 0]  # (R, h, w)
        truth = coverage > 0.5
        valid = truth.flatten(1).any(1).float()
        features = self._encode(batch).repeat_interleave(batch.masks.shape[1], 0)  # (R, C, h, w)
        boxes = points = labels = None
        if chance(self.recipe.box_share):
            boxes = jittered_boxes(masks).clamp(0, self.config.image_size - 1)
        else:
            points = first_click(truth, cell)
            labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
        losses, low = [], torch.zeros(())
        for k in range(max(1, self.recipe.rounds - int(chance(0.5)))):
            if k:
                point, label = correction(truth, low > 0, cell)
                points = point if points is None else torch.cat([points, point], 1)
                labels = label if labels is None else torch.cat([labels, label], 1)
            given = None if points is None else (points, labels)
            hint = low[:, None] if k and chance(self.recipe.mask_share) else None
            with self._autocast():
                sparse, dense = self.sam.prompt_encoder(given, boxes, hint)
                logits, scores = decode_masks(self.sam, features, sparse.float(), dense)
            loss, low = round_loss(logits, scores, coverage, valid)
            losses.append(loss)
        return torch.stack(losses).mean()

    def _encode(self, batch: Batch) -> torch.Tensor:
        """Image embeddings ``(B, C, h, w)``, padding as ``Sam.preprocess`` has it."""
        pixels = normalise(self.sam, batch.pixels).masked_fill(~batch.inside, 0.0)
        with self._autocast():
            return self.sam.image_encoder(pixels).float()

    def _autocast(self) -> Any:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16)

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        started = time.perf_counter()
        self._set_rates()
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        loss = self.loss(self._batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        self.average.update_parameters(self.sam)
        self.step += 1
        self.seconds += time.perf_counter() - started
        return loss.item()

    def run(self, every: float = 1200.0) -> None:
        """Train to the end, printing progress; checkpoint, measure and export every ``every`` seconds."""
        last, losses = time.perf_counter(), []
        while self.progress < 1:
            losses.append(self.train_step())
            if self.step % 50 == 0:
                mean, losses = sum(losses) / len(losses), []
                rate = self.step * self.recipe.batch_size / self.seconds
                print(f"{self.progress:6.1%} step {self.step} {rate:.1f} images/s loss {mean:.4f}", flush=True)
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
            "recipe": asdict(self.recipe), "earlier": self.earlier, "clock": (self.step, self.seconds),
            "model": self.sam.state_dict(), "average": self.average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
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
        self.earlier = state["earlier"]
        self.sam.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.seconds = state["clock"]
        return True

    def export(self) -> dict[str, dict[str, float]]:
        """Write the averaged weights, fp16, and their card; measure them as they load from the folder."""
        save_pocket_sam(self.average.module, self.config, self.out)
        sam = load_pocket_sam(self.out).to(self.device)
        figures = measure(sam, held_out_photos(self.data))
        print(json.dumps({k: round(v, 4) for k, v in figures[MEAN].items()}), flush=True)
        images = self.step * self.recipe.batch_size
        run = describe_run(asdict(self.recipe), images, self.seconds, self.device)
        write_card(self.out, [*self.earlier, run], figures, parameters(sam), self.config.image_size)
        return figures


def chance(share: float) -> bool:
    """True in ``share`` of the calls."""
    return float(torch.rand(())) < share


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pretrain.pocket_sam", description="Train Pocket SAM, the bundled segmenter."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the parquet files")
    parser.add_argument("--out", type=Path, default=Path("assets/pocket-sam"), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("runs/pocket-sam"), help="where the checkpoint goes")
    parser.add_argument("--start", type=Path, help="folder of finished weights to go on from")
    parser.add_argument(
        "--tower", type=Path, default=Path("assets/pocket-clip"), help="CLIP whose image tower the encoder starts from"
    )
    parser.add_argument("--minutes", type=float, help="length of training in minutes (default: 90, on a GPU 25)")
    parser.add_argument("--steps", type=int, help="length in steps instead of minutes")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--batch-size", type=int, help="pictures a step (default: 16, on a GPU 96)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    given = {name: getattr(options, name) for name in ("minutes", "steps", "seed", "batch_size")}
    recipe = SamRecipe.preset(device, **{name: value for name, value in given.items() if value is not None})
    trainer = SamTrainer(recipe, options.data, options.out, options.work, device, options.start, options.tower)
    if options.resume and trainer.resume():
        print(f"resumed at {trainer.progress:.1%}")
    trainer.run()


if __name__ == "__main__":
    main()
