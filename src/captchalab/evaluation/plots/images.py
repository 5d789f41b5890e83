"""Captchas with their predictions: in a grid, and above the output of a CTC network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from captchalab.evaluation.analysis import align
from captchalab.evaluation.plots.style import (
    COLOURS,
    INK,
    MUTED,
    NORMAL,
    WIDTH_IN,
    WRONG,
    cell_borders,
    new_figure,
    note,
    save,
    shades,
    style,
)

COLUMNS = 6
MONO_ADVANCE = 0.602  # of the font size: DejaVu Sans Mono
MOST_LETTERS = 10  # shown of a text; an untrained network may predict many more
SEEN_CLASS = 0.05  # a class this probable at some time step gets a row


class Shown(NamedTuple):
    """A captcha, its text and what was predicted."""

    image: np.ndarray  # uint8 (H, W, C)
    truth: str
    prediction: str
    confidence: float


def image_grid(shown: Sequence[Shown], title: str, path: Path) -> None:
    """Captchas in a grid, each with its text, the prediction (wrong characters red) and the confidence."""
    columns = COLUMNS
    rows = -(-len(shown) // columns)
    H, W = shown[0].image.shape[:2] if shown else (0, 1)
    figure = new_figure(WIDTH_IN, 0.4 + rows * (0.36 + WIDTH_IN / columns * H / W), title)
    if not shown:
        figure.text(0.01, 0.2, "none", color=MUTED, fontsize=NORMAL)
    for place, one in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, place)
        _image(axes, one.image)
        _caption(axes, one, (0, 0), -10)
    save(figure, path)


def ctc_output(shown: Sequence[Shown], probabilities: np.ndarray, alphabet: str, path: Path) -> None:
    """Under each captcha the output over time, aligned with it: rows are the classes that show up.

    Args:
        probabilities: (n, T, K+1), the last class blank.
    """
    T, K = probabilities.shape[1], len(alphabet)
    names = [*alphabet, "blank"]
    classes = [[k for k in range(K + 1) if k == K or p[:, k].max() > SEEN_CLASS] for p in probabilities]
    H, W = shown[0].image.shape[:2]
    column_in = WIDTH_IN / 4
    heights = ((column_in - 0.4) * H / W, 0.2 * max(map(len, classes)))
    figure = new_figure(column_in * len(shown), sum(heights) + 1)
    grid = figure.subplots(2, len(shown), squeeze=False, height_ratios=heights)
    for upper, lower, one, p, seen in zip(*grid, shown, probabilities, classes, strict=True):
        _image(upper, one.image, aspect="auto")
        _caption(upper, one, (0, 1), 14)
        style(lower, "", "time step")
        lower.imshow(p[:, seen].T, cmap=shades(COLOURS["ctc"]), vmin=0, vmax=1, aspect="auto")
        lower.set_yticks(range(len(seen)), [names[k] for k in seen], parse_math=False)
        steps = range(0, T, max(1, T // 4))
        lower.set_xticks(steps, [str(step + 1) for step in steps])
        cell_borders(lower, T, len(seen))
    save(figure, path)


def _image(axes: Axes, image: np.ndarray, aspect: Literal["equal", "auto"] = "equal") -> None:
    H, W, C = image.shape
    pixels = image[..., 0] if C == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, aspect=aspect, extent=(0, W, H, 0))
    axes.axis("off")


def _caption(axes: Axes, shown: Shown, corner: tuple[int, int], y_pt: float) -> None:
    """Truth, prediction and confidence, in two lines from a corner of the axes."""
    truth = [(true, INK) for true in shown.truth]
    pairs = align(shown.truth, shown.prediction)
    read = [(predicted or "·", INK if true == predicted else WRONG) for true, predicted in pairs]
    most = max(MOST_LETTERS, len(truth))
    if len(read) > most:
        read[most - 1 :] = [("…", WRONG)]
    step = MONO_ADVANCE * NORMAL
    for y, label, letters in ((y_pt, "true", truth), (y_pt - NORMAL - 2, "read", read)):
        note(axes, label, corner, (0, y))
        for place, (letter, colour) in enumerate(letters):
            at = (20 + place * step, y)
            note(axes, letter, corner, at, color=colour, fontsize=NORMAL, family="monospace")
    note(axes, f"{100 * shown.confidence:.1f} %", corner, (26 + len(read) * step, y_pt - NORMAL - 2))
