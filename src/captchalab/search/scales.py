"""Axes for pictures of a study.

Exact match goes in even steps of the logarithm of its error: 0, 90 and 99 % are all told apart from their neighbours.
A parameter has the axis of its distribution.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from optuna.trial import FrozenTrial

from captchalab.tracking.searches import short_names

TICKS = (0, 40, 60, 80, 90, 95, 98, 99, 99.5, 100)  # %
LEAST_ERROR = 0.1  # %: 100 % lies as far above 99 % as 99 % above 90 %


class Parameter(NamedTuple):
    """What was searched: an axis of its values."""

    key: str
    label: str  # in two lines where it has a stage in front
    distribution: Any

    @property
    def choices(self) -> tuple[Any, ...]:
        return getattr(self.distribution, "choices", ())

    @property
    def is_log(self) -> bool:
        return getattr(self.distribution, "log", False)

    @property
    def ends(self) -> tuple[float, float]:
        d = self.distribution
        return (0, max(1, len(self.choices) - 1)) if self.choices else (d.low, d.high)

    def at(self, value: Any) -> float:
        """A value's place; that of a choice is its index."""
        return self.choices.index(value) if self.choices else float(value)

    def share(self, at: float) -> float:
        """How far along the axis a place is, from 0 to 1."""
        low, high, here = (math.log(x) if self.is_log else x for x in (*self.ends, at))
        return (here - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """A few places and what is written there: all choices, all of few whole numbers, or ends and decades."""
        low, high = self.ends
        if self.choices:
            return [(i, _short(choice)) for i, choice in enumerate(self.choices)]
        if isinstance(self.distribution, optuna.distributions.IntDistribution) and high - low <= 6:
            return [(i, str(i)) for i in range(int(low), int(high) + 1)]
        between = [10.0**e for e in range(-9, 9)] if self.is_log else [(low + high) / 2]
        return [(x, _compact(x)) for x in (low, *(x for x in between if 0.15 < self.share(x) < 0.85), high)]


def searched(trials: Sequence[FrozenTrial]) -> list[Parameter]:
    """All that was searched, in the order of the space."""
    found = {key: distribution for trial in trials for key, distribution in trial.distributions.items()}
    names = short_names(found)
    return [Parameter(key, names[key].replace(".", "\n", 1), distribution) for key, distribution in found.items()]


def steps(exact: Any) -> Any:
    """Exact match in percent on the scale of its error's logarithm."""
    return -np.log10(np.maximum(100 - np.asarray(exact, float), 0) + LEAST_ERROR)


def unsteps(at: Any) -> Any:
    return 100 + LEAST_ERROR - 10 ** -np.asarray(at, float)


def exact_ends(scores: Sequence[float]) -> tuple[float, float]:
    """Where an axis of these begins and ends: at ticks, with one at least in between."""
    low, high = min(scores, default=0), max(scores, default=100)
    below = [i for i, tick in enumerate(TICKS[:-2]) if tick <= low]
    above = [i for i, tick in enumerate(TICKS) if tick >= high]
    return TICKS[below[-1]], TICKS[max(above[0], below[-1] + 2)]


def shown_ticks(low: float, high: float) -> list[float]:
    return [tick for tick in TICKS if low <= tick <= high]


def exact_axis(axes: Axes, scores: Sequence[float]) -> None:
    low, high = exact_ends(scores)
    axes.set_yscale("function", functions=(steps, unsteps))
    axes.set_yticks(shown_ticks(low, high), [f"{tick:g}" for tick in shown_ticks(low, high)])
    axes.minorticks_off()
    room = 0.04 * float(steps(high) - steps(low))
    axes.set_ylim(float(unsteps(steps(low) - room)), float(unsteps(steps(high) + room)))


def value_axis(axes: Axes, parameter: Parameter) -> None:
    low, high = parameter.ends
    if parameter.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _compact(x)))
        axes.minorticks_off()
        room = (high / low) ** 0.06
        axes.set_xlim(low / room, high * room)
    else:
        axes.set_xticks(*zip(*parameter.ticks(), strict=True), parse_math=False)
        room = 0.12 * (high - low)
        axes.set_xlim(low - room, high + room)


def _compact(x: float) -> str:
    """3e-4 for 0.0003; what is neither small nor large as it is."""
    if x and not 0.01 <= abs(x) < 1e5:
        mantissa, exponent = f"{x:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{x:g}"


def _short(choice: Any) -> str:
    words = _compact(choice) if isinstance(choice, int | float) and not isinstance(choice, bool) else str(choice)
    return words if len(words) <= 12 else f"{words[:11]}…"
