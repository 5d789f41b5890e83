"""Plots of several trainings: the luck of seeds, and what accuracy costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from captchalab.evaluation import seeds as luck
from captchalab.evaluation.plots.style import COLOURS, INK, MUTED, SMALL, WIDTH_IN, new_figure, save, style
from captchalab.reading.captcha import KINDS

LINES = ("-", "--", ":", "-.")
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
HIGHEST = 0.9999  # drawn for a share of 1, which this axis has no place for


def seeds(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Test exact match of each run with its interval, and mean and standard deviation of each kind."""
    figure = new_figure(WIDTH_IN, 0.6 + 0.24 * len(runs))
    axes = figure.subplots()
    style(axes, "exact match on the same test captchas, % (bars: 95 % interval; band: mean ± standard deviation)")
    y = 0
    ticks: list[tuple[int, str]] = []
    for kind in KINDS:
        own = sorted((run for run in runs if run["kind"] == kind), key=lambda run: run["seed"])
        top = y
        for run in own:
            value = 100 * run["exact"]
            ends = [[value - 100 * run["exact_low"]], [100 * run["exact_high"] - value]]
            axes.errorbar(value, y, xerr=ends, fmt="o", color=COLOURS[kind], markersize=5, elinewidth=1.2)
            ticks.append((y, f"{kind.upper()}, seed {run['seed']}"))
            y += 1
        one = luck.spread([run["exact"] for run in own])
        axes.vlines(100 * one.mean, top - 0.4, y - 0.6, color=INK, linewidth=1)
        if one.sd is not None:
            sides = (100 * (one.mean - one.sd), 100 * (one.mean + one.sd))
            axes.fill_betweenx((top - 0.4, y - 0.6), *sides, color=COLOURS[kind], alpha=0.2, linewidth=0)
        axes.annotate(
            luck.show(one), (100 * one.mean, y - 0.6), (3, -2), textcoords="offset points", fontsize=SMALL, color=MUTED
        )
        y += 1
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks], fontsize=SMALL)
    axes.set_ylim(y - 0.6, -0.6)
    axes.grid(axis="y", visible=False)
    save(figure, path)


def cost(table: Mapping[str, Any], path: Path) -> None:
    """Exact match against images seen, seconds, and the size of the train split: valid per epoch, test at the end."""
    networks, sizes = table["networks"], table["sizes"]
    if len({row["train_images"] for row in sizes}) < 2:
        sizes = []
    figure = new_figure(WIDTH_IN, 4)
    panels = list(figure.subplots(1, 3 if sizes else 2, sharey=True))
    names = list(dict.fromkeys(network["name"] for network in networks))
    for axes, label, key, scale in (
        (panels[0], "images seen in training", "images_seen", 1),
        (panels[1], "minutes of training, without validation", "seconds", 60),
    ):
        style(axes, "", label, "exact match, %" if axes is panels[0] else "")
        for network in networks:
            colour, line = COLOURS[network["kind"]], LINES[names.index(network["name"]) % len(LINES)]
            x = [epoch[key] / scale for epoch in network["epochs"]]
            y = [min(epoch["val/exact"], HIGHEST) for epoch in network["epochs"]]
            name = f"{network['kind'].upper()} {network['name']}, {network['device']}" if axes is panels[0] else None
            axes.plot(x, y, line, color=colour, linewidth=1.2, marker=".", markersize=4, label=name)
            _tested(axes, x[-1], network["test"], color=colour)
    for point in table["reference"]:
        name = f"{point['kind'].upper()}, the public reference, {point['n']:,} test captchas of its own"
        _tested(panels[0], point["images_seen"], point, color=COLOURS[point["kind"]], mfc="white", label=name)
    for kind in KINDS if sizes else ():
        own = [row for row in sizes if row["kind"] == kind]
        x = [row["train_images"] for row in own]
        panels[2].plot(x, [min(row["exact"], HIGHEST) for row in own], color=COLOURS[kind], linewidth=0.8)
        for row in own:
            _tested(panels[2], row["train_images"], row, color=COLOURS[kind])
    if sizes:
        style(panels[2], "", "images in the train split")
    for axes in panels:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    shares = [epoch["val/exact"] for network in networks for epoch in network["epochs"]]
    ends = [point[end] for point in (*table["reference"], *sizes) for end in ("exact_low", "exact_high")]
    _share_axis(panels[0], min(shares + ends), max(shares + ends))
    figure.legend(
        loc="outside lower left", ncols=2, frameon=False, fontsize=SMALL, alignment="left", title_fontsize=SMALL,
        handlelength=3, title="line: valid split, after each epoch; diamond: test split, once, with its 95 % interval",
    )  # fmt: skip
    save(figure, path)


def _share_axis(axes: Axes, low: float, high: float) -> None:
    """A y axis on which each halving of the errors has the same height."""
    low, high = max(low, SHARES[0]), min(high, HIGHEST)
    axes.set_yscale("function", functions=(lambda y: -np.log(1 - np.minimum(y, 1 - 1e-6)), lambda z: 1 - np.exp(-z)))
    axes.set_ylim(1 - (1 - low) * 1.2, 1 - (1 - high) / 1.3)
    axes.yaxis.set_major_locator(FixedLocator(SHARES))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))


def _tested(axes: Axes, x: float, share: Mapping[str, float], **look: Any) -> None:
    """A test figure with its 95 % interval."""
    value, low, high = (min(share[key], HIGHEST) for key in ("exact", "exact_low", "exact_high"))
    ends = [[value - low], [high - value]]
    axes.errorbar(x, value, yerr=ends, fmt="D", markersize=5, elinewidth=1.2, **look)
