"""Results -> plotly figures. Pure functions: no gradio, no torch, no visible string of their own.

Each takes ``t``, the translator (``t("plot.zero_shot")``), and ``dark`` (True, False or None where
the page's theme is not known). Names may be anything a user types; they are escaped and shortened.
"""

from demo.plots.bars import scores
from demo.plots.compared import Dot, Growth, pareto, reliability, shot_curves
from demo.plots.curve import training
from demo.plots.maps import embedding_map
from demo.plots.mixing import Mixture, mixing
from demo.plots.style import TUNED, ZERO_SHOT, empty
from demo.plots.tables import confusion, heat_map

__all__ = [
    "TUNED",
    "ZERO_SHOT",
    "Dot",
    "Growth",
    "Mixture",
    "confusion",
    "embedding_map",
    "empty",
    "heat_map",
    "mixing",
    "pareto",
    "reliability",
    "scores",
    "shot_curves",
    "training",
]
