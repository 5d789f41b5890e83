"""Two networks on the same captchas: who is right, is one better, and how to say so. Pure functions.

Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captchalab.reading.captcha import Kind

NAMES: dict[Kind, str] = {"cnn": "CNN", "ctc": "CTC network"}
SIGNIFICANT = 0.05  # a p-value from here on shows no difference
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # percent between two lines of the interval chart
MOST_TICKS = 6


class Contingency(NamedTuple):
    """Rows of the test split that both, only one, or neither of two networks reads right."""

    both_right: list[int]
    only_cnn: list[int]
    only_ctc: list[int]
    both_wrong: list[int]


def contingency(truths: Sequence[str], cnn: Sequence[str], ctc: Sequence[str]) -> Contingency:
    """Who reads which captcha."""
    groups = Contingency([], [], [], [])
    for i, (truth, a, b) in enumerate(zip(truths, cnn, ctc, strict=True)):
        groups[2 * (a != truth) + (b != truth)].append(i)
    return groups


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p: could a fair coin split the images that only one of two networks reads?"""
    from scipy.stats import binomtest  # takes a second to import

    n = only_a + only_b
    return float(binomtest(only_a, n).pvalue) if n else 1.0


def better(only_cnn: int, only_ctc: int) -> Kind | None:
    """The network that reads better, if chance alone does not explain the difference."""
    if mcnemar(only_cnn, only_ctc) >= SIGNIFICANT:
        return None
    return "cnn" if only_cnn > only_ctc else "ctc"


def headline(kind: Kind | None) -> str:
    return f"The {NAMES[kind]} reads better" if kind else "Neither network is shown to read better"


def verdict(both_right: int, only_cnn: int, only_ctc: int, both_wrong: int) -> str:
    """Who reads better, by how much, and how sure that is, in words."""
    n, apart = both_right + only_cnn + only_ctc + both_wrong, only_cnn + only_ctc
    # the one that reads more comes first
    (name, alone), (other, other_alone) = sorted(
        ((NAMES["cnn"], only_cnn), (NAMES["ctc"], only_ctc)), key=lambda network: -network[1]
    )
    rate, other_rate = (100 * (both_right + only) / n for only in (alone, other_alone))
    text = f"Of {n:,} test captchas the {name} reads {rate:.2f} %, the {other} {other_rate:.2f} %"
    if not apart:
        return f"{text}: {'they read the very same ones' if both_right else 'they read nothing yet'}."
    p = mcnemar(only_cnn, only_ctc)
    chance = "would hardly" if better(only_cnn, only_ctc) else "may well"
    return (
        f"{text}: {rate - other_rate:.2f} points apart. Only one of the two reads {apart:,} of them: the "
        f"{name} {alone:,}, the {other} {other_alone:,}. Were they equally good, chance {chance} split them "
        f"like that (McNemar's exact test, {'p < 0.0001' if p < 0.0001 else f'p = {p:.2g}'})."
    )


def ticks(low: float, high: float) -> list[float]:
    """At most six round percentages that enclose low..high."""
    for step in TICKS:
        first, last = np.floor(round(low / step, 6)), np.ceil(round(high / step, 6))
        if last - first < MOST_TICKS:
            break
    return [round(float(i * step), 1) for i in np.arange(first, max(last, first + 1) + 1)]


def mistakes(
    cnn: Mapping[tuple[str, str], int], ctc: Mapping[tuple[str, str], int], most: int = 10
) -> list[tuple[str, str, int, int]]:
    """The most frequent wrong pairs of both networks: true, predicted, count of the CNN, count of CTC."""
    pairs = {pair: (cnn.get(pair, 0), ctc.get(pair, 0)) for pair in {**cnn, **ctc}}
    ordered = sorted(pairs.items(), key=lambda item: (-sum(item[1]), item[0]))
    return [(*pair, *counts) for pair, counts in ordered[:most]]
