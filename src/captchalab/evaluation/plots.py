"""Pictures of a history, of mistakes, of confidence, of a network. The only room that knows matplotlib.

Every function draws one PNG; the same data give the same bytes. Figures are objects, not pyplot's
global state, so that any thread may draw.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

from captchalab.evaluation.analysis import align
from captchalab.reading.captcha import Kind

if TYPE_CHECKING:
    from captchalab.networks.models import LayerRow

INK, MUTED, FAINT, WRONG, ACCENT = "#22262b", "#6b7280", "#e3e6ea", "#c62828", "#4b5d78"
COLOURS: dict[Kind, str] = {"cnn": "#2f6db5", "ctc": "#d9822b"}
BLUE, GREEN, VIOLET, SAND, GREY = "#dbe8f6", "#e1efe3", "#ece3f4", "#fae8d3", "#f1f2f4"
LAYER_COLOURS = {"Conv2D": BLUE, "MaxPooling2D": GREEN, "Bidirectional": VIOLET, "Dense": SAND}
FUSED = ("Conv2D", "BatchNormalization", "ReLU")
WIDTH_IN = 8.8  # two fit side by side on a wide screen
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.5  # points
MONO_ADVANCE = 0.602  # of the font size: DejaVu Sans Mono
TOP_PAIRS = 15
SHEET_COLUMNS = 6
MOST_LETTERS = 10  # shown of a text; an untrained network may read many more
SEEN_CLASS = 0.05  # a class this probable at some time step gets a row

Share = Mapping[str, float]  # a metric with its _low, _high and n


class Shown(NamedTuple):
    """A picture and what was read in it."""

    image: np.ndarray  # uint8 (H, W, C)
    truth: str
    prediction: str
    confidence: float


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], kind: Kind, path: Path) -> None:
    """Loss (linear, logarithmic) and exact match over images seen; stages follow one another.

    Args:
        histories: by stage, in their order, the rows of history.csv; at least one has some.
    """
    rows: list[dict[str, float]] = []
    starts: dict[str, float] = {}  # stage -> images seen before it
    title: str = kind
    for stage, history in histories.items():
        if history:
            starts[stage] = rows[-1]["images_seen"] if rows else 0
            rows += [{**row, "images_seen": starts[stage] + row["images_seen"]} for row in history]
            rates = [f"{row['learning_rate']:.2g}" for row in history]
            title += f"     {stage}: learning rate {' → '.join(dict.fromkeys((rates[0], rates[-1])))}"
    seen = [row["images_seen"] for row in rows]
    train, valid = ([row[f"{split}/loss"] for row in rows] for split in ("train", "val"))
    low, middle, high = ([100 * row[f"val/exact{end}"] for row in rows] for end in ("_low", "", "_high"))
    figure = _figure(WIDTH_IN, 3.1, title)
    panels = figure.subplots(1, 3)
    titles = ("loss", "loss, logarithmic", f"exact match on valid, %: best {max(middle):.2f}")
    for axes, name in zip(panels, titles, strict=True):
        _style(axes, name, "images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(0, seen[-1] * 1.04)
        for stage, start in list(starts.items())[1:]:
            axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
            y, va = (0, "bottom") if axes is panels[2] else (1, "top")  # where no curve is
            _note(axes, stage, (start / seen[-1] / 1.04, y), (2, 0), rotation=90, va=va)
    for axes in panels[:2]:
        axes.plot(seen, train, ".--", color=MUTED, linewidth=1, markersize=3, label="train")
        axes.plot(seen, valid, "o-", color=COLOURS[kind], markersize=3, label="valid")
    positive = [loss for loss in (*train, *valid) if loss > 0] or [1]
    panels[0].set_ylim(0, 1.08 * max(positive))
    panels[1].set_ylim(min(positive) / 1.6, max(positive) * 1.6)  # room for one tick at least
    panels[1].set_yscale("log", nonpositive="mask")
    panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[1].minorticks_off()
    panels[1].legend(frameon=False, fontsize=SMALL)
    panels[2].fill_between(seen, low, high, color=COLOURS[kind], alpha=0.2, linewidth=0)
    panels[2].vlines(seen, low, high, color=COLOURS[kind], linewidth=1)
    panels[2].plot(seen, middle, "o-", color=COLOURS[kind], markersize=3)
    panels[2].set_ylim(max(0, min(low) - 1), max(1, max(high) + 1))
    _save(figure, path)


def confusions(pairs: Mapping[tuple[str, str], int], alphabet: str, path: Path) -> None:
    """Which characters are taken for which: a map of the wrong pairs, and the most frequent ones."""
    K = len(alphabet)
    counts = np.full((K, K), np.nan)
    for (true, predicted), count in pairs.items():
        if true and predicted:
            counts[alphabet.index(true), alphabet.index(predicted)] = count
    figure = _figure(WIDTH_IN, 5.4)
    square, bars = figure.subplots(1, 2, width_ratios=(5.2, 3))
    _style(square, "wrong pairs", "read as", "true")
    most = np.nanmax(counts) if np.isfinite(counts).any() else 1
    image = square.imshow(counts, cmap=_shades(ACCENT, INK), norm=LogNorm(0.7, max(2, most)))
    for ticks in (square.set_xticks, square.set_yticks):
        ticks(range(K), list(alphabet), fontsize=min(NORMAL, 280 / K), parse_math=False)
    _cell_borders(square, K, K)
    bar = figure.colorbar(image, ax=square, location="bottom", shrink=0.5, aspect=40, format="%g")
    bar.set_label("times", fontsize=SMALL, color=MUTED)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    top = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:TOP_PAIRS]
    _style(bars, f"most frequent of {sum(pairs.values()):,} wrong characters")
    drawn = bars.barh(range(len(top)), [count for _, count in top], color=ACCENT, height=0.62)
    bars.bar_label(drawn, fontsize=SMALL, color=MUTED, padding=3)
    bars.set_yticks(range(len(top)), [mistake(*pair) for pair, _ in top], parse_math=False)
    bars.set_ylim(TOP_PAIRS - 0.4, -0.6)
    bars.margins(x=0.15)
    bars.set_xticks([])
    bars.tick_params(length=0)
    bars.grid(visible=False)
    bars.spines[:].set_visible(False)
    if not top:
        _note(bars, "none", (0, 1), (0, -14), fontsize=NORMAL)
    _save(figure, path)


def mistake(true: str, predicted: str) -> str:
    """A wrong pair in words; "" stands for a character missed or made up."""
    if not predicted:
        return f"{true} missed"
    return f"{true} read as {predicted}" if true else f"{predicted} made up"


def accuracies(by_position: Sequence[Share], by_character: Mapping[str, Share], path: Path) -> None:
    """How often a character is right, by its place and by what it is, with 95 % intervals."""
    places = [(str(i), share) for i, share in enumerate(by_position, 1)]
    characters = sorted(by_character.items(), key=lambda item: (item[1]["accuracy"], item[0]))
    panels = (("by position", places), ("by character, worst first", [c for c in characters if c[1]["n"]]))
    figure = _figure(WIDTH_IN, 2.9)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 4))
    for axes, (title, rows) in zip((left, right), panels, strict=True):
        _style(axes, title, ylabel="read right, %" if rows is places else "")
        shares = [share for _, share in rows]
        _intervals(axes, range(len(rows)), shares, "accuracy")
        size = min(NORMAL, 380 / max(len(rows), 1))
        axes.set_xticks(range(len(rows)), [label for label, _ in rows], fontsize=size, parse_math=False)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x", visible=False)
    _save(figure, path)


def reliability(bins: Sequence[Share], calibration_error: float, path: Path) -> None:
    """Is a text read with confidence c right in c of all cases? And how many images have which?"""
    figure = _figure(WIDTH_IN / 2, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _style(upper, f"reliability; calibration error {100 * calibration_error:.2f} %", ylabel="exact match, %")
    upper.plot((0, 100), (0, 100), color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    _intervals(upper, [100 * group["confidence"] for group in bins], bins, "exact")
    upper.set(xlim=(-2, 102), ylim=(-2, 102))
    _style(lower, "", "confidence, %", "images")
    edges = [100 * group["low"] for group in bins]
    widths = [100 * (group["high"] - group["low"]) for group in bins]
    lower.bar(edges, [group["n"] for group in bins], widths, align="edge", color=ACCENT, edgecolor="white")
    lower.set_yscale("log", nonpositive="clip")
    lower.set_ylim(bottom=0.8)
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lower.minorticks_off()
    _save(figure, path)


def sheet(shown: Sequence[Shown], title: str, path: Path) -> None:
    """Pictures in a grid, each with its text, what was read (wrong characters red) and the confidence."""
    columns = SHEET_COLUMNS
    rows = -(-len(shown) // columns)
    H, W = shown[0].image.shape[:2] if shown else (0, 1)
    figure = _figure(WIDTH_IN, 0.4 + rows * (0.36 + WIDTH_IN / columns * H / W), title)
    if not shown:
        figure.text(0.01, 0.2, "none", color=MUTED, fontsize=NORMAL)
    for place, one in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, place)
        _picture(axes, one.image)
        _reading(axes, one, (0, 0), -10)
    _save(figure, path)


def ctc_output(shown: Sequence[Shown], probabilities: np.ndarray, alphabet: str, path: Path) -> None:
    """Under each picture the output over time, aligned with it: rows are the classes that show up.

    Args:
        probabilities: (n, T, K+1), the last class blank.
    """
    T, K = probabilities.shape[1], len(alphabet)
    names = [*alphabet, "blank"]
    classes = [[k for k in range(K + 1) if k == K or p[:, k].max() > SEEN_CLASS] for p in probabilities]
    H, W = shown[0].image.shape[:2]
    column_in = WIDTH_IN / 4
    heights = ((column_in - 0.4) * H / W, 0.2 * max(map(len, classes)))
    figure = _figure(column_in * len(shown), sum(heights) + 1)
    grid = figure.subplots(2, len(shown), squeeze=False, height_ratios=heights)
    for upper, lower, one, p, seen in zip(*grid, shown, probabilities, classes, strict=True):
        _picture(upper, one.image, aspect="auto")
        _reading(upper, one, (0, 1), 14)
        _style(lower, "", "time step")
        lower.imshow(p[:, seen].T, cmap=_shades(COLOURS["ctc"]), vmin=0, vmax=1, aspect="auto")
        lower.set_yticks(range(len(seen)), [names[k] for k in seen], parse_math=False)
        steps = range(0, T, max(1, T // 4))
        lower.set_xticks(steps, [str(step + 1) for step in steps])
        _cell_borders(lower, T, len(seen))
    _save(figure, path)


class Box(NamedTuple):
    """What the picture of a network shows as one."""

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
    _text(axes, left, 0.24, title, size=LARGE)
    for x, label, ha in ((right - 1.75, "output", "center"), (right - 0.1, "parameters", "right")):
        _text(axes, x, 0.56, label, size=SMALL, color=MUTED, ha=ha)
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
        _text(axes, left + 0.1, middle, label, size=NORMAL)
        _text(axes, left + 2.1, middle, box.name, size=SMALL, color=MUTED)
        _text(axes, right - 1.75, middle, " × ".join(map(str, box.shape)), size=NORMAL, ha="center")
        if box.parameters:
            _text(axes, right - 0.1, middle, f"{box.parameters:,}", size=NORMAL, ha="right")
            share = bar * box.parameters / most
            axes.barh(middle, share, 0.12, left=right + 0.1, color=ACCENT)
    _save(figure, path)


def _figure(width_in: float, height_in: float, title: str = "") -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, fontsize=NORMAL, color=MUTED, x=0.01, ha="left")
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _style(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=NORMAL, color=INK)
    axes.set_xlabel(xlabel, fontsize=SMALL, color=MUTED)
    axes.set_ylabel(ylabel, fontsize=SMALL, color=MUTED)
    axes.tick_params(labelsize=SMALL, colors=MUTED, length=2, which="both")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _cell_borders(axes: Axes, columns: int, rows: int) -> None:
    """Lines between the cells of a heat map, and none through them."""
    axes.grid(which="major", visible=False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.4)
    axes.tick_params(which="both", length=0, pad=2)


def _shades(*colours: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("shades", ["white", *colours])


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, va="center", parse_math=False, **{"color": INK, **style})


def _intervals(axes: Axes, x: Iterable[float], shares: Sequence[Share], name: str) -> None:
    """Shares in percent as dots, their 95 % intervals as bars."""
    values = [100 * share[name] for share in shares]
    below = [value - 100 * share[f"{name}_low"] for value, share in zip(values, shares, strict=True)]
    above = [100 * share[f"{name}_high"] - value for value, share in zip(values, shares, strict=True)]
    axes.errorbar(list(x), values, (below, above), fmt="o", color=ACCENT, markersize=4, elinewidth=1.2)


def _picture(axes: Axes, image: np.ndarray, aspect: Literal["equal", "auto"] = "equal") -> None:
    H, W, C = image.shape
    pixels = image[..., 0] if C == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, aspect=aspect, extent=(0, W, H, 0))
    axes.axis("off")


def _reading(axes: Axes, shown: Shown, corner: tuple[int, int], y_pt: float) -> None:
    """Truth, what was read and the confidence, in two lines from a corner of the axes."""
    truth = [(true, INK) for true in shown.truth]
    pairs = align(shown.truth, shown.prediction)
    read = [(predicted or "·", INK if true == predicted else WRONG) for true, predicted in pairs]
    most = max(MOST_LETTERS, len(truth))
    if len(read) > most:
        read[most - 1 :] = [("…", WRONG)]
    step = MONO_ADVANCE * NORMAL
    for y, label, letters in ((y_pt, "true", truth), (y_pt - NORMAL - 2, "read", read)):
        _note(axes, label, corner, (0, y))
        for place, (letter, colour) in enumerate(letters):
            at = (20 + place * step, y)
            _note(axes, letter, corner, at, color=colour, fontsize=NORMAL, family="monospace")
    _note(axes, f"{100 * shown.confidence:.1f} %", corner, (26 + len(read) * step, y_pt - NORMAL - 2))


def _note(axes: Axes, text: str, corner: tuple[float, float], offset_pt: tuple[float, float], **style: Any) -> None:
    style = {"color": MUTED, "fontsize": SMALL - 1, "parse_math": False, **style}
    axes.annotate(text, corner, offset_pt, "axes fraction", "offset points", **style)
