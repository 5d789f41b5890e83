"""Exact match, character error rate, Wilson's interval, McNemar's test. Pure functions.

Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927;
Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, sqrt
from typing import NamedTuple

Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


class Proportion(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def as_metrics(self, name: str) -> dict[str, float]:
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high, "n": self.n}


def wilson(right: int, n: int) -> Proportion:
    """Share `right / n` with Wilson's 95 % interval; of nothing, nothing is known: (0, 0, 1)."""
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
    """Strict exact match: every character right, and none too many."""
    right = sum(t == p for t, p in zip(truths, predictions, strict=True))
    return wilson(right, len(truths))


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions from a to b."""
    if a == b:
        return 0
    row = list(range(len(b) + 1))
    for i, char_a in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, char_b in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char_a != char_b))
    return row[-1]


def align(truth: str, prediction: str) -> list[tuple[str, str]]:
    """Pairs (true, predicted) along a shortest edit; "" stands for a character missed or made up."""
    if len(truth) == len(prediction) and edit_distance(truth, prediction) == sum(
        t != p for t, p in zip(truth, prediction, strict=True)
    ):
        return list(zip(truth, prediction, strict=True))
    pairs = []
    i, j = len(truth), len(prediction)
    while i or j:
        here = edit_distance(truth[:i], prediction[:j])
        if i and j and here == edit_distance(truth[: i - 1], prediction[: j - 1]) + (truth[i - 1] != prediction[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], prediction[j]))
        elif i and here == edit_distance(truth[: i - 1], prediction[:j]) + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", prediction[j]))
    return pairs[::-1]


def cer(truths: Sequence[str], predictions: Sequence[str]) -> float:
    """Character error rate: edit distances over true characters; above 1 where much is made up."""
    characters = sum(map(len, truths))
    wrong = sum(edit_distance(t, p) for t, p in zip(truths, predictions, strict=True))
    return wrong / characters if characters else 0.0


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p: could the images that just one of two reads be split by a coin?"""
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))


class Bin(NamedTuple):
    """Images whose confidence lies between two edges."""

    low: float
    high: float
    confidence: float  # mean
    exact: Proportion


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Mean confidence and exact match in equal bins of confidence; empty bins are left out."""
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, is_right in zip(confidences, right, strict=True):
        groups[min(int(confidence * bins), bins - 1)].append((confidence, is_right))
    return [
        Bin(
            i / bins,
            (i + 1) / bins,
            sum(c for c, _ in group) / len(group),
            wilson(sum(r for _, r in group), len(group)),
        )
        for i, group in enumerate(groups)
        if group
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the gap between confidence and exact match, weighted by images."""
    n = sum(group.exact.n for group in bins)
    return sum(group.exact.n * abs(group.confidence - group.exact.value) for group in bins) / n if n else 0.0
