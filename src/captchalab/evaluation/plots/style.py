"""Colours, sizes and axes that all plots share."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from captchalab.reading.captcha import Kind

INK, MUTED, FAINT, WRONG, ACCENT = "#22262b", "#6b7280", "#e3e6ea", "#c62828", "#4b5d78"
COLOURS: dict[Kind, str] = {"cnn": "#2f6db5", "ctc": "#d9822b"}
WIDTH_IN = 8.8  # two fit side by side on a wide screen
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.5  # points


def new_figure(width_in: float, height_in: float, title: str = "") -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, fontsize=NORMAL, color=MUTED, x=0.01, ha="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})


def style(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=NORMAL, color=INK)
    axes.set_xlabel(xlabel, fontsize=SMALL, color=MUTED)
    axes.set_ylabel(ylabel, fontsize=SMALL, color=MUTED)
    axes.tick_params(labelsize=SMALL, colors=MUTED, length=2, which="both")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def cell_borders(axes: Axes, columns: int, rows: int) -> None:
    """Lines between the cells of a heat map, and none through them."""
    axes.grid(which="major", visible=False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.4)
    axes.tick_params(which="both", length=0, pad=2)


def shades(*colours: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("shades", ["white", *colours])


def text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, va="center", parse_math=False, **{"color": INK, **style})


def note(axes: Axes, text: str, corner: tuple[float, float], offset_pt: tuple[float, float], **style: Any) -> None:
    style = {"color": MUTED, "fontsize": SMALL - 1, "parse_math": False, **style}
    axes.annotate(text, corner, offset_pt, "axes fraction", "offset points", **style)
