"""What the trainings of the bundled models share: recipe, optimizers, clock, checkpoint, command line."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.tuning.precision import multiplies_bf16

PATIENCE = 20
"""Steps without finite gradients in a row that end a training."""
WARM_STEPS = 40
"""Steps at least until the full learning rate: where a run is counted in minutes, compiling the first step would use
up the warm-up."""


@dataclass(frozen=True)
class BaseRecipe:
    """What every training is told; a recipe is stored in the checkpoint and in the model card."""

    minutes: float = 90.0
    """Length of training in minutes; ignored where ``images`` is set."""
    images: int = 0
    """Length of training in images seen; 0 = by time. Runs of a set length are repeatable."""
    seed: int = 0
    batch_size: int = 16
    muon_lr: float = 1e-3
    adam_lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.02
    """Share of training with a rising learning rate."""
    ema: float = 0.995
    """Share of the averaged weights that each step keeps."""

    @classmethod
    def preset(cls, device: str, **changes: Any) -> BaseRecipe:
        """Defaults for a machine, with some fields replaced."""
        return cls(**changes)


class Training:
    """One training run: model, optimizers, clock; can be stopped and resumed between steps.

    A subclass says what is trained: it calls :meth:`adopt` with its model and has ``hidden``,
    ``forward`` and ``export``; where its model changes shape on the way, ``state`` and ``restore`` too.
    """

    def __init__(self, recipe: BaseRecipe, out: Path, work: Path, device: str):
        self.recipe, self.out, self.work, self.device = recipe, out, work, device
        self.step, self.images, self.seconds = 0, 0, 0.0
        self._lost = 0
        self.bf16 = multiplies_bf16(torch.device(device).type)
        self.earlier: list[dict[str, Any]] = []
        torch.manual_seed(recipe.seed)

    def hidden(self, model: Any) -> list[nn.Parameter]:
        """The matrices that Muon trains; AdamW has the rest."""
        raise NotImplementedError

    def slow(self, model: Any) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of parameters that learn more slowly, and at which share of AdamW's rate."""
        return []

    def forward(self) -> tuple[torch.Tensor, int]:
        """The loss of this step's batch, and how many images it has."""
        raise NotImplementedError

    def export(self) -> Any:
        """Write the averaged weights, measure them and write their card."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides weights, optimizers and clock."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Give the model the shape that a checkpoint's weights have."""

    def adopt(self, model: Any, average: Any | None = None) -> None:
        """Make ``model`` the one in training, with fresh optimizers; ``average`` goes on from other weights."""
        self.model: Any = model.to(self.device).train()
        averaging = get_ema_multi_avg_fn(self.recipe.ema)
        self.average: Any = AveragedModel(average or model, multi_avg_fn=averaging).to(self.device)
        self.average.n_averaged.fill_(0 if average is None else 1)
        # Muon multiplies in bf16, which takes ten times as long as the rest of a step where that is emulated.
        hidden, slow = self.hidden(model) if self.bf16 else [], self.slow(model)
        seen = {id(p) for group in (hidden, *(group for group, _ in slow)) for p in group}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in seen]
        matrices, vectors = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
        decay = self.recipe.weight_decay
        muon = (
            torch.optim.Muon(hidden, lr=self.recipe.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            if hidden
            else None
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            **({"muon": muon} if muon else {}),
            "adam": torch.optim.AdamW(
                [
                    {"params": matrices, "weight_decay": decay},
                    {"params": vectors, "weight_decay": 0.0},
                    *(
                        {"params": group, "weight_decay": 0.0, "lr": share * self.recipe.adam_lr}
                        for group, share in slow
                    ),
                ],
                lr=self.recipe.adam_lr,
                betas=(0.9, 0.98),
                fused=True,
            ),
        }
        self._base = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.recipe.images:
            return self.images / self.recipe.images
        return self.seconds / (60 * self.recipe.minutes)

    def autocast(self) -> Any:
        """bf16 where this machine multiplies it."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16)

    def _set_rates(self) -> None:
        p, warm = min(self.progress, 1.0), self.recipe.warmup
        factor = p / warm if p < warm else 0.5 * (1 + math.cos(math.pi * (p - warm) / (1 - warm)))
        factor = min(factor, (self.step + 1) / WARM_STEPS)
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
                group["lr"] = base * max(factor, 0.005)

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        started = time.perf_counter()
        loss, images = self.forward()
        self._set_rates()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._update(bool(norm.isfinite()))
        self.step += 1
        self.images += images
        self.seconds += time.perf_counter() - started
        return loss.item()

    def _update(self, finite: bool) -> None:
        """Step the optimizers; gradients that are not ``finite`` cost their step, and the run where they stay so.

        Raises FloatingPointError after ``PATIENCE`` such steps in a row.
        """
        self._lost = 0 if finite else self._lost + 1
        if self._lost == PATIENCE:
            raise FloatingPointError(f"The gradients were not finite {PATIENCE} times in a row, at step {self.step}.")
        for optimizer in self.optimizers.values():
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if finite:
            self.average.update_parameters(self.model)

    def run(self, every: float = 1200.0) -> None:
        """Train to the end, printing progress; checkpoint, measure and export every ``every`` seconds."""
        last, losses = time.perf_counter(), []
        while self.progress < 1:
            losses.append(self.train_step())
            if self.step % 50 == 0 or self.step in (1, 5, 10):
                mean, losses = sum(losses) / len(losses), []
                where = f"{self.progress:6.1%} step {self.step} images {self.images}"
                print(f"{where} {self.images / self.seconds:.1f}/s loss {mean:.3f}", flush=True)
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
            "recipe": asdict(self.recipe),
            "earlier": self.earlier,
            **self.state(),
            "clock": (self.step, self.images, self.seconds),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": {n: o.state_dict() for n, o in self.optimizers.items()},
        }
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
        self.restore(state)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.images, self.seconds = state["clock"]
        return True

    def go(self, resume: bool) -> None:
        """Run to the end, from the checkpoint where that is asked for and there is one."""
        if resume and self.resume():
            print(f"resumed at {self.progress:.1%}")
        self.run()


def command_line(name: str, description: str, recipe: type[BaseRecipe]) -> argparse.ArgumentParser:
    """The options of every training. ``name`` is that of the model's folder in ``assets``."""
    here, gpu = recipe.preset("cpu"), recipe.preset("cuda")
    parser = argparse.ArgumentParser(
        prog=f"python -m engine.pretrain.{name.replace('-', '_')}", description=description
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the parquet files")
    parser.add_argument("--out", type=Path, default=Path("assets", name), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("runs", name), help="where the checkpoint goes")
    parser.add_argument("--start", type=Path, help="folder of finished weights to go on from; default: from scratch")
    lengths = f"(default: {here.minutes:g}, on a GPU {gpu.minutes:g})"
    parser.add_argument("--minutes", type=float, help=f"length of training in minutes {lengths}")
    parser.add_argument("--images", type=int, help="length in images instead of minutes (repeatable)")
    parser.add_argument("--seed", type=int)
    sizes = f"(default: {here.batch_size}, on a GPU {gpu.batch_size})"
    parser.add_argument("--batch-size", type=int, help=f"images a step {sizes}")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    return parser


def chosen(options: argparse.Namespace, recipe: type[BaseRecipe]) -> tuple[Any, str]:
    """The recipe and the device that the options ask for; sets the number of threads."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    given = {name: getattr(options, name) for name in ("minutes", "images", "seed", "batch_size")}
    return recipe.preset(device, **{name: value for name, value in given.items() if value is not None}), device
