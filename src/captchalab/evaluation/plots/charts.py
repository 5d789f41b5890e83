"""Charts of metrics: a training history, confused characters, accuracies, reliability."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

from captchalab.evaluation.plots.style import (
    ACCENT,
    COLOURS,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    WIDTH_IN,
    cell_borders,
    new_figure,
    note,
    save,
    shades,
    style,
)
from captchalab.reading.captcha import Kind

TOP_PAIRS = 15

Share = Mapping[str, float]  # a metric with its _low, _high and n


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
    figure = new_figure(WIDTH_IN, 3.1, title)
    panels = figure.subplots(1, 3)
    titles = ("loss", "loss, logarithmic", f"exact match on valid, %: best {max(middle):.2f}")
    for axes, name in zip(panels, titles, strict=True):
        style(axes, name, "images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(0, seen[-1] * 1.04)
        for stage, start in list(starts.items())[1:]:
            axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
            y, va = (0, "bottom") if axes is panels[2] else (1, "top")  # where no curve is
            note(axes, stage, (start / seen[-1] / 1.04, y), (2, 0), rotation=90, va=va)
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
    save(figure, path)


def confusions(pairs: Mapping[tuple[str, str], int], alphabet: str, path: Path) -> None:
    """Which characters are taken for which: a map of the wrong pairs, and the most frequent ones."""
    K = len(alphabet)
    counts = np.full((K, K), np.nan)
    for (true, predicted), count in pairs.items():
        if true and predicted:
            counts[alphabet.index(true), alphabet.index(predicted)] = count
    figure = new_figure(WIDTH_IN, 5.4)
    square, bars = figure.subplots(1, 2, width_ratios=(5.2, 3))
    style(square, "wrong pairs", "read as", "true")
    most = np.nanmax(counts) if np.isfinite(counts).any() else 1
    image = square.imshow(counts, cmap=shades(ACCENT, INK), norm=LogNorm(0.7, max(2, most)))
    for ticks in (square.set_xticks, square.set_yticks):
        ticks(range(K), list(alphabet), fontsize=min(NORMAL, 280 / K), parse_math=False)
    cell_borders(square, K, K)
    bar = figure.colorbar(image, ax=square, location="bottom", shrink=0.5, aspect=40, format="%g")
    bar.set_label("times", fontsize=SMALL, color=MUTED)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    top = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:TOP_PAIRS]
    style(bars, f"most frequent of {sum(pairs.values()):,} wrong characters")
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
        note(bars, "none", (0, 1), (0, -14), fontsize=NORMAL)
    save(figure, path)


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
    figure = new_figure(WIDTH_IN, 2.9)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 4))
    for axes, (title, rows) in zip((left, right), panels, strict=True):
        style(axes, title, ylabel="read right, %" if rows is places else "")
        shares = [share for _, share in rows]
        _intervals(axes, range(len(rows)), shares, "accuracy")
        size = min(NORMAL, 380 / max(len(rows), 1))
        axes.set_xticks(range(len(rows)), [label for label, _ in rows], fontsize=size, parse_math=False)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x", visible=False)
    save(figure, path)


def reliability(bins: Sequence[Share], calibration_error: float, path: Path) -> None:
    """Is a text read with confidence c right in c of all cases? And how many images have which?"""
    figure = new_figure(WIDTH_IN / 2, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    style(upper, f"reliability; calibration error {100 * calibration_error:.2f} %", ylabel="exact match, %")
    upper.plot((0, 100), (0, 100), color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    _intervals(upper, [100 * group["confidence"] for group in bins], bins, "exact")
    upper.set(xlim=(-2, 102), ylim=(-2, 102))
    style(lower, "", "confidence, %", "images")
    edges = [100 * group["low"] for group in bins]
    widths = [100 * (group["high"] - group["low"]) for group in bins]
    lower.bar(edges, [group["n"] for group in bins], widths, align="edge", color=ACCENT, edgecolor="white")
    lower.set_yscale("log", nonpositive="clip")
    lower.set_ylim(bottom=0.8)
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lower.minorticks_off()
    save(figure, path)


def _intervals(axes: Axes, x: Iterable[float], shares: Sequence[Share], name: str) -> None:
    """Shares in percent as dots, their 95 % intervals as bars."""
    values = [100 * share[name] for share in shares]
    below = [value - 100 * share[f"{name}_low"] for value, share in zip(values, shares, strict=True)]
    above = [100 * share[f"{name}_high"] - value for value, share in zip(values, shares, strict=True)]
    axes.errorbar(list(x), values, (below, above), fmt="o", color=ACCENT, markersize=4, elinewidth=1.2)
