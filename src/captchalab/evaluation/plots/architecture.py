"""A network, layer under layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from captchalab.evaluation.plots.style import (
    ACCENT,
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    save,
    text,
)

if TYPE_CHECKING:
    from captchalab.networks.models import LayerRow

BLUE, GREEN, VIOLET, SAND, GREY = "#dbe8f6", "#e1efe3", "#ece3f4", "#fae8d3", "#f1f2f4"
LAYER_COLOURS = {"Conv2D": BLUE, "MaxPooling2D": GREEN, "Bidirectional": VIOLET, "Dense": SAND}
FUSED = ("Conv2D", "BatchNormalization", "ReLU")


class Box(NamedTuple):
    """What the plot of a network shows as one."""

    types: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    parameters: int


def fuse(rows: Sequence["LayerRow"]) -> list[Box]:
    """Layers as boxes; a convolution, its batch norm and its ReLU become one."""
    boxes, i = [], 0
    while i < len(rows):
        n = len(FUSED) if tuple(row.type for row in rows[i : i + len(FUSED)]) == FUSED else 1
        group = rows[i : i + n]
        name = group[0].name.removesuffix("_conv")
        parameters = sum(row.parameters for row in group)
        boxes.append(Box(tuple(row.type for row in group), name, group[-1].shape, parameters))
        i += n
    return boxes


def network(rows: Sequence["LayerRow"], title: str, path: Path) -> None:
    """Layer under layer: type, name, output shape, and where the parameters are."""
    boxes = fuse(rows)
    width, pitch, height, head, bar = 7.2, 0.44, 0.32, 0.75, 0.9  # inches
    figure = Figure(figsize=(width, head + pitch * len(boxes)), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(head + pitch * len(boxes), 0))
    axes.axis("off")
    right, left = width - bar - 0.3, 0.15
    most = max((box.parameters for box in boxes), default=0) or 1
    text(axes, left, 0.24, title, size=LARGE)
    for x, label, ha in ((right - 1.75, "output", "center"), (right - 0.1, "parameters", "right")):
        text(axes, x, 0.56, label, size=SMALL, color=MUTED, ha=ha)
    for i, box in enumerate(boxes):
        top = head + pitch * i
        middle = top + height / 2
        colour = LAYER_COLOURS.get(box.types[0], GREY)
        place, size = (left, top), (right - left, height)
        rounded = "round,pad=0,rounding_size=0.06"
        axes.add_patch(FancyBboxPatch(place, *size, rounded, facecolor=colour, edgecolor=MUTED, linewidth=0.5))
        if i:
            axes.plot((left + 0.3,) * 2, (top - pitch + height, top), color=MUTED, linewidth=0.8)
        label = " + ".join(box.types).replace("BatchNormalization", "BatchNorm")
        text(axes, left + 0.1, middle, label, size=NORMAL)
        text(axes, left + 2.1, middle, box.name, size=SMALL, color=MUTED)
        text(axes, right - 1.75, middle, " × ".join(map(str, box.shape)), size=NORMAL, ha="center")
        if box.parameters:
            text(axes, right - 0.1, middle, f"{box.parameters:,}", size=NORMAL, ha="right")
            share = bar * box.parameters / most
            axes.barh(middle, share, 0.12, left=right + 0.1, color=ACCENT)
    save(figure, path)
