"""Plots of training, of mistakes, of confidence, of a network: each function draws one PNG.

The same data give the same bytes. Only this package knows matplotlib. Figures are objects, not pyplot's global
state, so that any thread may draw.
"""

from captchalab.evaluation.plots.architecture import fuse, network
from captchalab.evaluation.plots.charts import accuracies, confusions, curves, mistake, reliability
from captchalab.evaluation.plots.images import Shown, ctc_output, image_grid

__all__ = [
    "Shown",
    "accuracies",
    "confusions",
    "ctc_output",
    "curves",
    "fuse",
    "image_grid",
    "mistake",
    "network",
    "reliability",
]
