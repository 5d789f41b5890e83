"""Whether a network becomes champion: three rules, one decision in words. Pure functions.

Candidate and champion predict the same captchas, drawn for this attempt alone (`gate`). The candidate is better if
McNemar's exact one-sided p is at most what this attempt may spend of `promote.max_p`.

**Why it spends.** With the whole of max_p = 0.05 at each attempt, twenty tries with networks that are no better put one
of them through with probability 0.64. So attempt k against the same champion has `max_p / (k (k + 1))`, and all of them
together, however many, have max_p. Whatever came before, which network is tried next, and whether the same one is tried
again with more captchas: the captchas are new and their number is fixed before the first is drawn, so an attempt's p is
valid given all that came before. Therefore the probability that one champion is ever replaced by a network that is no
better is at most max_p.

Sources: McNemar's test as in `evaluation.comparison`, one-sided; the split of max_p is alpha-spending (online
Bonferroni), as in D. P. Foster and R. A. Stine, "Alpha-investing: a procedure for sequential control of expected false
discoveries", 2008, and J. Tian and A. Ramdas, "Online control of the familywise error rate", 2021; the number of
captchas that it takes is from R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
design", 1987.
"""

from math import ceil, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from captchalab import statistics
from captchalab.params import PromoteParams
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.statistics import Proportion

POWER = 0.8  # of the attempt with as many captchas as `images_to_tell` says


class Result(NamedTuple):
    """One network at the gate."""

    kind: Kind
    captcha: CaptchaParams
    network_md5: str
    latency_ms: float  # of one image, 95th percentile
    right: np.ndarray  # bool (n,): exact match on each captcha of the attempt; empty before they are drawn

    @property
    def exact(self) -> Proportion:
        return statistics.wilson(int(self.right.sum()), len(self.right))


class Decision(NamedTuple):
    better: bool
    reason: str
    p: float | None = None  # one-sided; None where nothing was compared
    max_p: float | None = None  # what this attempt could spend
    images_to_tell: int | None = None  # that would tell the two apart; None where more would not


def decide(rules: PromoteParams, candidate: Result, champion: Result | None, attempt: int = 1) -> Decision:
    """Whether a candidate becomes champion, and why.

    Args:
        attempt: 1, 2, ...: counts the attempts against this champion.
    """
    if refusal := refuse(rules, candidate, champion):
        return refusal
    exact = candidate.exact
    predicted = f"{exact.value:.2%} ({100 * exact.low:.2f} - {100 * exact.high:.2f}) of {exact.n:,} fresh captchas"
    if exact.value < rules.min_exact:
        return Decision(
            False,
            f"it predicts {predicted}, below promote.min_exact = {rules.min_exact:.2%}: "
            "lower that in params.yaml, or give --force --reason TEXT.",
        )
    if champion is None:
        return Decision(True, f"there is no champion yet, and it predicts {predicted}.")
    only_candidate = int((candidate.right & ~champion.right).sum())
    only_champion = int((champion.right & ~candidate.right).sum())
    return compare(only_candidate, only_champion, exact.n, rules.max_p, attempt)


def refuse(rules: PromoteParams, candidate: Result, champion: Result | None) -> Decision | None:
    """A refusal for which no captcha has to be drawn, so that it spends nothing; None where there is no reason."""
    if champion and champion.network_md5 == candidate.network_md5:
        return Decision(False, "it is the champion already.")
    if champion and champion.captcha != candidate.captcha:
        ours, theirs = candidate.captcha.model_dump(), champion.captcha.model_dump()
        differ = ", ".join(f"{key} {ours[key]!r} against {theirs[key]!r}" for key in ours if ours[key] != theirs[key])
        return Decision(False, f"it is not comparable with the champion, which reads other captchas: {differ}.")
    if candidate.latency_ms > rules.max_latency_ms:
        return Decision(
            False,
            f"it takes {candidate.latency_ms:.1f} ms per image, above promote.max_latency_ms = "
            f"{rules.max_latency_ms:g}.",
        )
    return None


def compare(only_candidate: int, only_champion: int, n: int, max_p: float, attempt: int) -> Decision:
    """Whether the candidate is better, by the captchas (of `n`) that just one of the two predicts."""
    p, spent = better_p(only_candidate, only_champion), spend(max_p, attempt)
    seen = (
        f"on {n:,} fresh captchas the candidate alone is right on {only_candidate:,}, "
        f"the champion alone on {only_champion:,} (p = {p:.2g}, and attempt {attempt} against this champion needs "
        f"{spent:.2g} or less)"
    )
    if p <= spent:
        return Decision(True, f"{seen}.", p, spent)
    needed = images_to_tell(only_candidate, only_champion, n, spend(max_p, attempt + 1))
    if needed is None:
        remedy = "the candidate is not ahead, so more captchas would not show that it is better."
    else:
        remedy = f"telling them apart would take about {needed:,} captchas."
    return Decision(False, f"{seen}; {remedy}", p, spent, needed)


def spend(max_p: float, attempt: int) -> float:
    """The share of `max_p` that attempt 1, 2, ... against one champion may use; all shares sum to `max_p`."""
    return max_p / (attempt * (attempt + 1))


def better_p(only_a: int, only_b: int) -> float:
    """McNemar's exact one-sided p: how often a coin gives `a` at least this many of the images just one predicts."""
    from scipy.stats import binomtest

    n = only_a + only_b
    return float(binomtest(only_a, n, alternative="greater").pvalue) if n else 1.0


def images_to_tell(only_a: int, only_b: int, n: int, p: float, power: float = POWER) -> int | None:
    """Images on which a one-sided test at `p` would find `a` better with this power (Connor's formula).

    Args:
        only_a: of `n` images, those that only a predicts; as many in proportion are expected of more images.

    Returns:
        None where `a` is not ahead at all: more images would not show that it is.
    """
    if only_a <= only_b:
        return None
    z_p, z_power = NormalDist().inv_cdf(1 - p), NormalDist().inv_cdf(power)
    discordant, ahead = (only_a + only_b) / n, (only_a - only_b) / n
    return ceil((z_p * sqrt(discordant) + z_power * sqrt(discordant - ahead**2)) ** 2 / ahead**2)
