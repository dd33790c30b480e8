"""Train Pocket VLM, the bundled vision-language model, on one machine.

``python -m engine.pretrain.pocket_vlm --data DIR --out assets/pocket-vlm --minutes 60``

LLaVA's stages (Liu et al., arXiv 2304.08485) in small. There is no language model to begin with, so one is made: (0)
the language model alone learns the captions and questions; (1) the projection alone, on captions and names; (2) both,
on captions, names and questions about marks. The image tower is never trained. Hidden matrices are trained with Muon,
everything else with AdamW.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from engine.ask import pocket_vlm
from engine.ask.pocket_vlm import PocketVlm, PocketVlmConfig
from engine.backbones import catalog
from engine.pretrain.card import describe_run, read_runs
from engine.pretrain.measure_vlm import measure
from engine.pretrain.training import BaseRecipe, Training, chosen, command_line
from engine.pretrain.vlm_card import write_card
from engine.pretrain.vlm_data import Corpus, padded, train_tokenizer
from engine.pretrain.vlm_scenes import MOST

SHARPNESS = 16.0
"""What similarities of places and words are multiplied by."""


@dataclass(frozen=True)
class VlmRecipe(BaseRecipe):
    """Everything that decides the weights besides the model's shape."""

    minutes: float = 60.0
    batch_size: int = 32
    scenes: int = 9000
    """Marked pictures."""
    words_until: float = 0.06
    """Share of training in which the language model learns alone."""
    projection_until: float = 0.12
    """Share of training at which the projection stops learning alone."""
    captions: float = 0.35
    names: float = 0.1
    marks: float = 0.55
    """Shares of a batch."""
    places: float = 0.5
    """Weight of the loss that reads places by words."""
    muon_lr: float = 3e-3
    adam_lr: float = 1.5e-3
    ema: float = 0.99

    @classmethod
    def preset(cls, device: str, **changes: Any) -> VlmRecipe:
        """Defaults for a machine: a GPU takes larger batches."""
        if device.startswith("cuda"):
            changes = {"minutes": 15.0, "batch_size": 512, "scenes": 40_000, **changes}
        return cls(**changes)


class VlmTrainer(Training):
    """Pocket VLM's training."""

    def __init__(
        self, recipe: VlmRecipe, data: Path, out: Path, work: Path, device: str = "cpu", start: Path | None = None
    ):
        super().__init__(recipe, out, work, device)
        self.recipe: VlmRecipe = recipe
        self.data, self.backbone = data, catalog.load(catalog.POCKET, device)
        self.corpus = Corpus(data, work, self.backbone, recipe.scenes, recipe.seed)  # type: ignore[arg-type]
        if start:
            model, self.tokenizer = pocket_vlm.load(start)
            self.earlier = read_runs(start)
        else:
            config = PocketVlmConfig(backbone=self.backbone.weight_hash)
            self.tokenizer, model = train_tokenizer(self.corpus.texts(), config.vocabulary), PocketVlm(config)
        self.numbers = [self._ids(str(number + 1))[-1:] for number in range(MOST)]
        self.names = [self._ids(kind) for kind in self.corpus.kinds]
        self.adopt(model)

    def _ids(self, text: str) -> torch.Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids, device=self.device)

    def hidden(self, model: Any) -> list[torch.nn.Parameter]:
        """The matrices of the language model's layers."""
        return [p for p in model.language.model.layers.parameters() if p.ndim == 2]

    @property
    def stage(self) -> int:
        """0: words alone, 1: projection alone, 2: both."""
        if self.earlier:
            return 2
        return int(self.progress >= self.recipe.words_until) + int(self.progress >= self.recipe.projection_until)

    def forward(self) -> tuple[torch.Tensor, int]:
        """The loss of this step's batch, and its size."""
        stage, recipe = self.stage, self.recipe
        for p in self.model.language.parameters():
            p.requires_grad_(stage != 1)
        marks = 0.0 if stage == 1 else recipe.marks
        shares = {"captions": recipe.captions, "names": recipe.names, "marks": marks}
        batch = self.corpus.batch(recipe.batch_size, shares)
        parts = padded(self.tokenizer, batch.asked, stage == 0)
        ids, blocks, positions, targets = (part.to(self.device) for part in parts)
        seen = batch.seen.to(self.device)
        with self.autocast():
            logits = self.model.logits_of(None if stage == 0 else seen, ids, blocks, positions)
        loss = F.cross_entropy(logits.float(), targets)
        if stage:
            loss = loss + recipe.places * self.place_loss(
                seen, batch.marks.to(self.device), batch.kinds.to(self.device)
            )
        return loss, len(batch.asked)

    def place_loss(self, seen: torch.Tensor, marks: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Loss of reading marks and kinds from the projected places by the language model's own words: a place is to be
        most like the word of what it shows. Without it the language model has to find out by itself that a number in
        the question and a number drawn in the picture are the same."""
        there = marks > 0
        if not there.any():
            return seen.new_zeros(())
        words = self.model.language.get_input_embeddings().weight
        places = F.normalize(self.model.projector(seen[there]), dim=-1)
        loss = seen.new_zeros(())
        for prototypes, wanted in ((self.numbers, marks[there] - 1), (self.names, kinds[there])):
            mean = torch.stack([words[ids].mean(0) for ids in prototypes])
            loss = loss + F.cross_entropy(SHARPNESS * places @ F.normalize(mean, dim=-1).T, wanted)
        return loss

    def export(self) -> dict[str, Any]:
        """Write the averaged weights, fp16, and their card; measure them as they load from the folder."""
        pocket_vlm.save(self.average.module, self.tokenizer, self.out)
        model, tokenizer = pocket_vlm.load(self.out)
        figures = measure(model.to(self.device), tokenizer, self.backbone, self.data)  # type: ignore[arg-type]
        print(json.dumps(figures), flush=True)
        run = describe_run(asdict(self.recipe), self.images, self.seconds, self.device)
        write_card(self.out, [*self.earlier, run], figures, sum(p.numel() for p in model.parameters()))
        return figures


def main(arguments: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = command_line("pocket-vlm", "Train Pocket VLM, the bundled vision-language model.", VlmRecipe)
    options = parser.parse_args(arguments)
    recipe, device = chosen(options, VlmRecipe)
    VlmTrainer(recipe, options.data, options.out, options.work, device, options.start).go(options.resume)


if __name__ == "__main__":
    main()
