"""PEFT's other tuners of linear layers: the class for the rows of :mod:`engine.methods.peft_table`, and those of the
few rows that need more.

Left out, with the reason (more in docs/peft.md):

- LN_TUNING and BEFT: norms and biases have methods of their own here, ``norm_tuning`` and ``bias_tuning``.
- PROMPT_TUNING, P_TUNING, PREFIX_TUNING, MULTITASK_PROMPT_TUNING, CPT, ADAPTION_PROMPT: they put tokens into language
  models that are called with ids; the prompt methods here do so with CLIP's towers.
- TRAINABLE_TOKENS: rows of an embedding table; labels are other words for everyone.
- SHIRA, ADAMSS: what they train depends on real weights, so nothing can be counted or forecast without them.
- FROD: one basis for all layers of a name needs one width.
- LILY: an answer would depend on the other images of its batch.
- SHADOW, CARTRIDGE: a copy of a language model, or its cache.
- XLORA, POLY: mix several adapters by a language model's hidden states or by task ids.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engine.backbones.base import LINEAR, Backbone, Shape
from engine.errors import BadConfig, messages
from engine.methods.lora import LayerChoice, LinearTuner, first_block
from engine.methods.peft_row import Layers, Row
from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import TowerConfig, TunerContext, option

MIN_STEPS = 20
"""AdaLoRA gives out ranks in trainings of at least so many steps: fewer are too few to tell which ranks matter."""

messages(
    not_linear="{method}: layers {targets} of {backbone} are convolutions in some blocks, which it cannot "
    "change. Choose other targets or another method.",
)


@dataclass(frozen=True)
class PeftLayersConfig(LayerChoice, TowerConfig):
    """What the settings of all tuners of the table share."""

    row: ClassVar[Row]
    targets: str = option("q,v", help="linear layers, by comma: q, k, v, out, fc1, fc2")
    towers: str = option("both", choices=("both", "vision", "text"), help="which towers")
    last_blocks: int = option(0, 0, 100, help="only the last n blocks of a tower; 0 = all")
    views: int = option(2, 1, 64, help="versions of each training image: itself and random crops and flips")

    def obstacle(self, backbone: Backbone) -> BadConfig | None:
        found = super().obstacle(backbone)
        if found or self.row.convolutions:
            return found
        modules = [backbone.model.get_submodule(name) for name in self.names(backbone)]
        if all(isinstance(module, nn.Linear) for module in modules):
            return None
        return BadConfig("not_linear", method=self.method, targets=self.targets, backbone=backbone.id)


def make_config(row: Row) -> type[PeftLayersConfig]:
    """Return the settings of a tuner: those that all share, with its own."""
    rate = "peak learning rate" + (" at width 768; grows with the inverse width" if row.by_width else "")
    fields = {
        "lr": option(row.lr, 1e-8, 10, help=rate),
        "targets": option(row.targets, help="linear layers, by comma: q, k, v, out, fc1, fc2"),
        **row.fields,
    }
    return dataclasses.make_dataclass(
        f"{row.id.title()}Config",
        [(name, type(field.default).__name__, field) for name, field in fields.items()],
        bases=(PeftLayersConfig,),
        frozen=True,
        namespace={"method": row.id, "row": row, "__doc__": f"{row.name}'s settings."},
    )


def layers_of(shape: Shape, config: Any) -> Layers:
    """Return the layers that a config targets."""
    found = []
    for tower in config.chosen_towers:
        first = first_block(getattr(shape, f"{tower}_layers"), config.last_blocks)
        for kind in config.kinds:
            sizes = shape.linears(tower, [kind], first)
            found += [(f"{tower}_{kind}_{n}", kind, i, o) for n, (i, o) in enumerate(sizes)]
    return tuple(found)


def peft_config(config: Any, layers: Layers, targets: list[str] | str, hidden: list[str], steps: int) -> Any:
    """PEFT's config of a row.

    Args:
        hidden: those of the targets that end an MLP.
        steps: gradient steps of the training.
    """
    import peft

    row: Row = config.row
    if row.prepare:
        row.prepare()
    arguments = row.arguments(config, layers)
    if row.mlp_outputs:
        arguments[row.mlp_outputs] = hidden
    if row.schedule:
        arguments |= row.schedule(steps)
    return getattr(peft, row.peft)(target_modules=targets, **arguments)


@lru_cache(maxsize=256)
def skeleton_count(shape: Shape, config: Any) -> int:
    """Trained parameters as PEFT reports them, on linear layers without data."""
    import peft

    layers = layers_of(shape, config)
    skeleton = nn.ModuleDict({name: nn.Linear(i, o, device="meta") for name, _, i, o in layers})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [name for name, *_ in layers]
        hidden = [name for name, kind, _, _ in layers if kind == "fc2"]
        model = peft.get_peft_model(skeleton, peft_config(config, layers, names, hidden, 100))
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and "ranknum" not in name)


class PeftTableTuner(LinearTuner):
    """A tuner of the table on a twin of the backbone."""

    def __init__(self, config: Any, setting: TunerContext):
        batch = min(config.batch_size, len(setting.targets))
        self.steps = config.steps_for(len(setting.targets), batch)
        super().__init__(config, setting)
        if not config.row.by_width:
            self.lr_factor = 1.0

    def adapter(self, targets: list[str] | str) -> Any:
        config: Any = self.config
        layers = layers_of(self.backbone.shape, config)
        hidden = [
            name
            for tower in config.chosen_towers
            for name in self.backbone.linear_names(tower, ["fc2"])
            if "fc2" in config.kinds and name in config.tower_names(self.backbone, tower)
        ]
        return peft_config(config, layers, targets, hidden, self.steps)

    def saved(self) -> Mapping[str, Tensor]:
        keeps = self.config.row.keeps
        kept = {name: tensor for name, tensor in self.named_buffers() if keeps & set(name.split("."))}
        return {**self.trained(), **kept}


class VbLora(PeftTableTuner):
    """VB-LoRA in PEFT's evaluation mode: that differs only in a look at the values in each training step, which
    tensors without data do not have."""

    def train(self, mode: bool = True) -> VbLora:
        super().train(mode)
        for module in self.modules():
            if hasattr(module, "vblora_logits_A"):
                module.training = False
        return self


class AdaLora(PeftTableTuner):
    """AdaLoRA's loss keeps the factors orthogonal; after each step ranks are given out anew."""

    step = 0

    def objective(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().objective(x, targets)
        factors = [p for name, p in self.trained().items() if "lora_A" in name or "lora_B" in name]
        grams = [p @ p.T if p.shape[0] < p.shape[1] else p.T @ p for p in factors]
        distances = [torch.linalg.matrix_norm(g - torch.eye(len(g), device=g.device)) for g in grams]
        return loss + self.config.orthogonality * torch.stack(distances).mean(), logits

    def after_step(self) -> None:
        self.step += 1
        if self.steps >= MIN_STEPS:
            self.peft_model.base_model.update_and_allocate(self.step)


def rank_schedule(steps: int) -> dict[str, int]:
    """Return when AdaLoRA gives out ranks, as arguments of PEFT's config."""
    return {"total_step": steps, "tinit": steps // 10, "tfinal": steps // 2, "deltaT": max(1, steps // 50)}


class WaveFt(PeftTableTuner):
    """WaveFT whose update is built without a question to its values, which tensors without data do not have."""

    def attach(self, adapter: Any) -> None:
        super().attach(adapter)
        layer: Any
        for layer in self.modules():
            if hasattr(layer, "waveft_spectrum"):
                layer.get_delta_weight = partial(wavelet_update, layer)


def wavelet_update(layer: Any, adapter: str) -> Tensor:
    """Return the update ``(out, in)`` of a layer: its coefficients in place, transformed back by PEFT's Haar wavelets.

    PEFT looks for places beyond the edge first; of Haar wavelets there are none.
    """
    from peft.tuners.waveft.waverec2d import waverec2d

    height, width = (size + size % 2 for size in (layer.out_features, layer.in_features))
    spectrum = layer.waveft_spectrum[adapter]
    rows, columns = layer.waveft_indices[adapter].to(spectrum.device)
    plane = spectrum.new_zeros(height, width).index_put((rows, columns), spectrum)
    top, bottom = plane.split(height // 2)
    (average, across), (down, diagonal) = (half.split(width // 2, 1) for half in (top, bottom))
    coefficients: Any = (average, (across, down, diagonal))
    update = waverec2d(coefficients, layer.waveft_wavelet_family[adapter])
    return (update * layer.waveft_scaling[adapter])[: layer.out_features, : layer.in_features]


def without_extension() -> None:
    """Keep BOFT from compiling a CUDA extension for every layer: one butterfly factor does without."""
    from peft.tuners.boft import layer

    layer.get_fbd_cuda = lambda: None


def register_row(row: Row) -> None:
    """Make a method of a row."""
    config = make_config(row)
    register(
        MethodSpec(
            id=row.id,
            name=row.name,
            family="weights",
            sentence=row.sentence,
            use_when=row.use_when,
            equation=row.equation,
            paper=row.paper,
            config=config,
            tuner=lambda: row.tuner or PeftTableTuner,
            count=lambda shape, config, K, N: skeleton_count(shape, config),
            formula=row.formula,
            runs_on="both@k",
            failures=(row.failure,),
            saved=row.saved,
            starts_at=row.starts_at,
            needs=frozenset({LINEAR}),
            presets={"budget": lambda shots: config()},
        )
    )
