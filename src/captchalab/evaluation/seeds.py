"""How much of a figure is luck: the same networks trained with several seeds, on one test split. Pure functions.

Source: Student, "The probable error of a mean", 1908; here of paired differences, a pair per seed.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from captchalab import files
from captchalab.evaluation.comparison import NAMES
from captchalab.reading.captcha import KINDS, Kind


class Spread(NamedTuple):
    """Test exact match of one kind over the seeds."""

    mean: float
    sd: float | None  # sample standard deviation; None for one seed
    low: float  # the worst run
    high: float  # the best run
    n: int  # seeds


class Difference(NamedTuple):
    """CTC less CNN, seed by seed: the mean and its 95 % interval; None for one seed."""

    mean: float
    low: float | None
    high: float | None

    @property
    def is_more_than_luck(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and range."""
    sd = stdev(values) if len(values) > 1 else None
    return Spread(fmean(values), sd, min(values), max(values), len(values))


def difference(cnn: Sequence[float], ctc: Sequence[float]) -> Difference:
    """What the kinds differ by; runs at the same place have the same seed."""
    from scipy.stats import t  # takes a second to import

    pairs = [b - a for a, b in zip(cnn, ctc, strict=True)]
    mean, n = fmean(pairs), len(pairs)
    if n == 1:
        return Difference(mean, None, None)
    half = float(t.ppf(0.975, n - 1)) * stdev(pairs) / sqrt(n)
    return Difference(mean, mean - half, mean + half)


def by_kind(runs: Sequence[Mapping[str, Any]]) -> dict[Kind, list[float]]:
    """Test exact match of the runs of seeds.json, in the order of their seeds."""
    ordered = sorted(runs, key=lambda run: run["seed"])
    return {kind: [run["exact"] for run in ordered if run["kind"] == kind] for kind in KINDS}


def load(path: Path, tested: Mapping[Kind, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs of a seeds.json of which these networks are one; none where it is of others, or there is none.

    Args:
        tested: the metrics of both networks.
    """
    if not path.exists():
        return []
    table = files.read_json(path)
    base = {run["kind"]: run for run in table["runs"] if run["seed"] == table["base_seed"]}
    same = all(base[kind][key] == tested[kind][key] for kind in KINDS for key in ("exact", "n"))
    return list(table["runs"]) if same else []


def verdict(runs: Sequence[Mapping[str, Any]]) -> str:
    """Whether the difference of the kinds is larger than that of the seeds, in words."""
    exact = by_kind(runs)
    spreads = {kind: spread(values) for kind, values in exact.items()}
    n = spreads["cnn"].n
    if n == 1:
        return "Each network was trained once: how much of the difference is luck of training, one seed cannot say."
    found = difference(exact["cnn"], exact["ctc"])
    assert found.low is not None and found.high is not None
    ahead, sign = (NAMES["ctc"], 1) if found.mean >= 0 else (NAMES["cnn"], -1)
    ends = sorted(100 * sign * end for end in (found.low, found.high))
    ranges = " and ".join(f"{NAMES[kind]} {show(one)}" for kind, one in spreads.items())
    larger = "larger than" if found.is_more_than_luck else "not shown to be larger than"
    return (
        f"Trained with {n} seeds, tested on the same captchas: {ranges}. The {ahead} is ahead by "
        f"{100 * abs(found.mean):.2f} points on average (95 % interval over the seeds {ends[0]:.2f} to {ends[1]:.2f}): "
        f"the difference of the networks is {larger} that of the seeds."
    )


def show(one: Spread) -> str:
    """Mean and standard deviation, in percent."""
    return f"{100 * one.mean:.2f} %" if one.sd is None else f"{100 * one.mean:.2f} ± {100 * one.sd:.2f} %"
