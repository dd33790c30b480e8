"""Train Pocket SAM, the bundled segmenter, on one machine.

``python -m engine.pretrain.pocket_sam --data DIR --out assets/pocket-sam --minutes 90``; with
``--start assets/pocket-sam`` it goes on from finished weights.

SAM's recipe in small (Kirillov et al., arXiv 2304.02643): a click or a box, then clicks on what was
wrong, three masks of which the best is trained and one that always is, focal and dice loss, and a
head that predicts each mask's IoU. The image encoder starts from Pocket CLIP's image tower, which
has the same width and depth. Hidden matrices are trained with Muon, everything else with AdamW.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam

from engine.pretrain.card import describe_run, read_runs
from engine.pretrain.measure_sam import MEAN, held_out_photos, measure
from engine.pretrain.prompting import correction, decode_masks, first_click, jittered_boxes, round_loss
from engine.pretrain.sam_card import write_card
from engine.pretrain.scenes import Batch, Studio
from engine.pretrain.training import BaseRecipe, Training, chosen, command_line
from engine.pretrain.warm_start import adopt_image_tower
from engine.regions.pocket_sam import (
    PocketSamConfig,
    build_pocket_sam,
    load_pocket_sam,
    parameters,
    save_pocket_sam,
)


@dataclass(frozen=True)
class SamRecipe(BaseRecipe):
    """Everything that decides the weights besides the model's shape."""

    regions: int = 4
    """Masks prompted for in each picture."""
    rounds: int = 3
    """Most rounds of prompts on one mask; half of the steps have one round less."""
    box_share: float = 0.5
    """Share of steps that begin with a box instead of a click."""
    mask_share: float = 0.5
    """Share of later rounds that are shown the mask of the round before."""
    muon_lr: float = 1.5e-3
    adam_lr: float = 7e-4
    warmup: float = 0.03
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


class SamTrainer(Training):
    """Pocket SAM's training.

    ``start`` is a folder of finished weights to go on from; without it the image encoder starts from
    ``tower``, a CLIP's folder, or from noise.
    """

    def __init__(
        self,
        recipe: SamRecipe,
        data: Path,
        out: Path,
        work: Path,
        device: str = "cpu",
        start: Path | None = None,
        tower: Path | None = None,
        config: PocketSamConfig | None = None,
    ):
        super().__init__(recipe, out, work, device)
        self.recipe: SamRecipe = recipe
        self.data, self.config = data, config or PocketSamConfig()
        self.studio = Studio(data, self.config.image_size, recipe.batch_size, recipe.regions, recipe.seed, device)
        sam: Sam = load_pocket_sam(start) if start else build_pocket_sam(self.config)
        if start:
            self.earlier = read_runs(start)
        elif tower:
            adopt_image_tower(sam, tower, sam.preprocess(self.studio.batch(0).pixels.cpu()))
        self.adopt(sam)
        self._makers, self._ahead = ThreadPoolExecutor(recipe.makers), dict[int, Future[Batch]]()

    def hidden(self, model: Any) -> list[torch.nn.Parameter]:
        """The matrices of the encoder's blocks and of the decoder's transformer."""
        parts = (model.image_encoder.blocks, model.mask_decoder.transformer)
        return [p for part in parts for p in part.parameters() if p.ndim == 2]

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
            with self.autocast():
                sparse, dense = self.model.prompt_encoder(given, boxes, hint)
                logits, scores = decode_masks(self.model, features, sparse.float(), dense)
            loss, low = round_loss(logits, scores, coverage, valid)
            losses.append(loss)
        return torch.stack(losses).mean()

    def _encode(self, batch: Batch) -> torch.Tensor:
        """Image embeddings ``(B, C, h, w)``, padding as ``Sam.preprocess`` has it."""
        pixels = self.model.preprocess(batch.pixels).masked_fill(~batch.inside, 0.0)
        with self.autocast():
            return self.model.image_encoder(pixels).float()

    def forward(self) -> tuple[torch.Tensor, int]:
        """The loss of this step's batch, and its size."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        return self.loss(self._batch()), self.recipe.batch_size

    def export(self) -> dict[str, dict[str, float]]:
        """Write the averaged weights, fp16, and their card; measure them as they load from the folder."""
        save_pocket_sam(self.average.module, self.config, self.out)
        sam = load_pocket_sam(self.out).to(self.device)
        figures = measure(sam, held_out_photos(self.data))
        print(json.dumps({k: round(v, 4) for k, v in figures[MEAN].items()}), flush=True)
        run = describe_run(asdict(self.recipe), self.images, self.seconds, self.device)
        write_card(self.out, [*self.earlier, run], figures, parameters(sam), self.config.image_size)
        return figures


def chance(share: float) -> bool:
    """True in ``share`` of the calls."""
    return float(torch.rand(())) < share


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = command_line("pocket-sam", "Train Pocket SAM, the bundled segmenter.", SamRecipe)
    tower = "CLIP of the same width and depth whose image tower the encoder starts from"
    parser.add_argument("--tower", type=Path, help=tower)
    options = parser.parse_args(arguments)
    recipe, device = chosen(options, SamRecipe)
    trainer = SamTrainer(recipe, options.data, options.out, options.work, device, options.start, options.tower)
    trainer.go(options.resume)


if __name__ == "__main__":
    main()
