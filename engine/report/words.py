"""The report's English sentences; a caller with another language passes a function that says the same keys in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import messages, sentence

Say = Callable[[str, Mapping[str, Any]], str]
"""From a key of ``engine.errors.MESSAGES`` and its fields to a sentence, as plain text."""


def english(key: str, values: Mapping[str, Any]) -> str:
    """Return the engine's own words."""
    return sentence(key, values)


messages(
    report_title="Comparison: {task}",
    report_facts="{labels} labels, {images} images, backbone {backbone}",
    report_made="Made on {when} with CLIP Tuning Lab",
    report_stopped="The comparison was stopped early; this is what was finished.",
    report_advice="Recommendation",
    report_excluded="Left out by your limits",
    report_images="Images",
    report_images_more="and {count} more",
    report_methods="Methods",
    report_methods_note="Accuracy on {tested} test images at {shots} training images per label, mean over {seeds} "
    "random draws, with 95 % interval. Methods of one group are too close to call.",
    report_group="Group {number}",
    report_group_close="Group {number}: too close to call",
    report_method="Method",
    report_name="{name}",
    report_family="Family",
    report_accuracy="Accuracy",
    report_over="Against zero-shot",
    report_parameters="Trained parameters",
    report_memory="Memory",
    report_unknown="unknown",
    report_seconds="Time",
    report_file="File",
    report_loss="Other labels",
    report_family_baseline="Baseline",
    report_family_head="Head",
    report_family_text_prompt="Text prompt",
    report_family_visual_prompt="Visual prompt",
    report_family_weights="Weights",
    report_better="better",
    report_worse="worse",
    report_close="too close to call",
    report_pareto="Cost and accuracy",
    report_pareto_note="Faded: another method is at least as accurate and costs no more.",
    report_axis_accuracy="Accuracy on test images, %",
    report_axis_seconds="Time of a run, s",
    report_axis_shots="Training images per label",
    report_shots="More photos",
    report_shots_note="How accuracy grows with the number of training images, with 95 % intervals for the "
    "recommended method and for zero-shot.",
    report_calibration="Is it as sure as it is right?",
    report_calibration_note="On the dashed line confidence equals accuracy. ECE is the mean distance from it, the "
    "Brier score the mean squared error of the probabilities; for both, less is better. With few images the ECE of "
    "even a perfect model is above zero.",
    report_axis_confidence="Confidence, %",
    report_axis_right="Right, %",
    report_ece="ECE",
    report_brier="Brier score",
    report_confidence="Mean confidence",
    report_damage="Labels that were not tuned on",
    report_damage_note="Each method was tuned on some of the labels ({tuned_on}) and then had to tell the others "
    "({others}) apart.",
    report_damage_tuned="Tuned labels: zero-shot, tuned",
    report_damage_others="Other labels: zero-shot, tuned",
    report_damage_verdict="On other labels",
    report_drift="Drift: images, texts",
    report_drift_note="Drift is how far tuning moved the embeddings (mean of 1 - cosine, 0 is not at all): the "
    "farther, the less of what the original model knew about other labels is left to rely on.",
    report_mixing="WiSE-FT: share of the tuned weights",
    report_mixing_note="Between the original weights (0 %) and the tuned ones (100 %) there is often a share that "
    "keeps most of the gain and loses little on other labels.",
    report_axis_share="Share of the tuned weights, %",
    report_axis_plain="Accuracy, %",
    report_line_tuned="{method}: tuned labels",
    report_line_other="{method}: other labels",
    report_mislabelled="Images whose label may be wrong",
    report_mislabelled_note="Methods that never saw an image agree that it shows something else. Look at each one; "
    "only you know.",
    report_mislabelled_judges="Judged by: {methods}",
    report_no_judges="None of the methods agrees with enough of the labels to judge them.",
    report_none_suspect="No label looks wrong.",
    report_given="Labelled",
    report_suggested="Probably",
    report_agree="Methods that agree",
    report_image="Image",
    report_failed="What could not run",
    report_repeat="How to repeat it",
    report_repeat_note="With the same images, machine and versions this gives the same numbers.",
    report_setting="Setting",
    report_value="Value",
    report_seeds="Seeds",
    report_preset="Preset",
    report_templates="Templates",
    report_shots_used="Training images per label",
    report_precision="Precision",
    report_duration="Duration of the comparison",
)
