"""Exact match with its interval, and character error rate: what training validates with. Pure functions.

A metric that is only reported belongs in `evaluation.metrics`: training depends on this module, so a change
here makes every trained network stale.

Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


class Proportion(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def as_metrics(self, name: str) -> dict[str, float]:
        """The share as `name`, its interval as `name`_low and `name`_high, and n."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high, "n": self.n}


def wilson(right: int, n: int) -> Proportion:
    """Share `right / n` with Wilson's 95 % interval; (0, 0, 1) where n is 0.

    The same as `scipy.stats.binomtest(right, n).proportion_ci(0.95, "wilson")` but for the last bit, which
    history.csv keeps: a test compares the two.
    """
    if n == 0:
        return Proportion(0.0, 0.0, 1.0, 0)
    share = right / n
    spread = Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # at 0 and n the bound is exact; the formula leaves it short by a rounding error
    low = 0.0 if right == 0 else centre - half
    high = 1.0 if right == n else centre + half
    return Proportion(share, low, high, n)


def exact(truths: Sequence[str], predictions: Sequence[str]) -> Proportion:
    """Strict exact match: every character right, and no extra characters."""
    right = sum(t == p for t, p in zip(truths, predictions, strict=True))
    return wilson(right, len(truths))


def cer(truths: Sequence[str], predictions: Sequence[str]) -> float:
    """Character error rate: Levenshtein distances over true characters; above 1 with many extra characters."""
    characters = sum(map(len, truths))
    wrong = sum(Levenshtein.distance(t, p) for t, p in zip(truths, predictions, strict=True))
    return wrong / characters if characters else 0.0
