"""Zero-shot CLIP and its prompt ensemble: the two baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.tuning.registry import MethodSpec, register
from engine.tuning.tuner import Config, Tuner, TunerContext


@dataclass(frozen=True)
class ZeroShotConfig(Config):
    """Zero-shot has nothing to set."""

    method = "zero_shot"


class Ensemble(Tuner):
    """Mean of the normalised text features of a template set, normalised again."""

    trains = False


class ZeroShot(Ensemble):
    """One template."""

    def __init__(self, config: Any, setting: TunerContext):
        super().__init__(config, setting)
        self.frozen_text = setting.single.clone()


CLIP_PAPER = (
    "Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020"
)

register(
    MethodSpec(
        id="zero_shot",
        name="Zero-shot",
        family="baseline",
        leading=True,
        sentence="CLIP as it is: every image gets the label whose sentence is most similar to it.",
        use_when="You have no labelled images yet, or want to know what the plain label names are worth.",
        equation="logits = s·f·Wᵀ,  wₖ = text(sentence of label k)",
        paper=CLIP_PAPER,
        config=ZeroShotConfig,
        tuner=lambda: ZeroShot,
        count=lambda shape, config, K, N: 0,
        formula="0",
        runs_on="-",
        failures=("Depends on the wording of the labels.", "Weak on things that captions on the web rarely name."),
        saved="the labels and templates",
        starts_at="zero_shot",
        presets={"budget": lambda shots: ZeroShotConfig()},
    )
)
register(
    MethodSpec(
        id="zero_shot_ensemble",
        name="Zero-shot, prompt ensemble",
        family="baseline",
        sentence="Zero-shot with several sentences a label, averaged: the baseline that tuning has to beat.",
        use_when="Always look at it first: if it is good enough, nothing needs to be tuned.",
        equation="wₖ = normalise(mean over templates of text(sentence of label k)),  logits = s·f·Wᵀ",
        paper=CLIP_PAPER,
        config=ZeroShotConfig,
        tuner=lambda: Ensemble,
        count=lambda shape, config, K, N: 0,
        formula="0",
        runs_on="-",
        failures=("The template set may not suit the images (satellite, texture).",),
        saved="the labels and templates",
        starts_at="zero_shot_ensemble",
        presets={"budget": lambda shots: ZeroShotConfig()},
    )
)
