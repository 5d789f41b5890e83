"""Whether a network becomes champion: two networks on the same test images, three rules, one decision in words.

`decide()` is pure. `stand()` brings a network to it: what it reads in the test split, and how fast.

Sources: McNemar's test as in `statistics`, one-sided; R. J. Connor, "Sample size for testing differences in
proportions for the paired-sample design", 1987.
"""

import csv
import time
from fractions import Fraction
from math import ceil, comb, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from captchalab import files, statistics
from captchalab.data import dataset
from captchalab.params import PromoteParams
from captchalab.reading import decoding, predictor
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.statistics import Proportion

LATENCY_READS = 60


class Standing(NamedTuple):
    """One network on the test split."""

    kind: Kind
    captcha: CaptchaParams
    network_md5: str
    digest: str  # of the test split
    truths: list[str]
    predictions: list[str]
    latency_ms: float  # one picture, 95th percentile

    @property
    def exact(self) -> Proportion:
        return statistics.exact(self.truths, self.predictions)

    @property
    def right(self) -> list[bool]:
        return [t == p for t, p in zip(self.truths, self.predictions, strict=True)]


class Decision(NamedTuple):
    better: bool
    reason: str
    p: float | None = None  # one-sided; None where nothing was compared


def decide(rules: PromoteParams, candidate: Standing, champion: Standing | None) -> Decision:
    """Whether a candidate becomes champion, and why."""
    exact = candidate.exact
    if champion and champion.network_md5 == candidate.network_md5:
        return Decision(False, "it is the champion already.")
    if champion and champion.captcha != candidate.captcha:
        ours, theirs = candidate.captcha.model_dump(), champion.captcha.model_dump()
        differ = ", ".join(f"{key} {ours[key]!r} against {theirs[key]!r}" for key in ours if ours[key] != theirs[key])
        return Decision(False, f"it is not comparable with the champion, which reads other captchas: {differ}.")
    if exact.value < rules.min_exact:
        return Decision(
            False, f"it reads {exact.value:.2%} of the test captchas, below promote.min_exact = {rules.min_exact:.2%}."
        )
    if candidate.latency_ms > rules.max_latency_ms:
        return Decision(
            False,
            f"it takes {candidate.latency_ms:.1f} ms a picture, above promote.max_latency_ms = "
            f"{rules.max_latency_ms:g}.",
        )
    if champion is None:
        return Decision(True, "there is no champion yet, and it passes the rules.")
    only_candidate = sum(a and not b for a, b in zip(candidate.right, champion.right, strict=True))
    only_champion = sum(b and not a for a, b in zip(candidate.right, champion.right, strict=True))
    p = better_p(only_candidate, only_champion)
    seen = f"on {exact.n:,} captchas it alone reads {only_candidate}, the champion alone {only_champion} (p = {p:.2g})"
    if p <= rules.max_p:
        return Decision(True, f"{seen}.", p)
    needed = images_to_tell(only_candidate, only_champion, exact.n, rules.max_p)
    if needed is None:
        return Decision(False, f"{seen}; it is not ahead, so more test images would not show that it is better.", p)
    return Decision(False, f"{seen}; telling them apart would take about {needed:,} test images.", p)


def better_p(only_a: int, only_b: int) -> float:
    """McNemar's exact one-sided p: how often a coin gives `a` at least this many of the images just one reads."""
    n = only_a + only_b
    return float(Fraction(sum(comb(n, k) for k in range(only_a, n + 1)), 2**n))


def images_to_tell(only_a: int, only_b: int, n: int, p: float, power: float = 0.8) -> int | None:
    """Images on which a one-sided test at `p` would find `a` better with this power (Connor's formula).

    Args:
        only_a: of `n` images, those that only a reads; as many in proportion are expected of more images.

    Returns:
        None where `a` is not ahead at all: more images would not show that it is.
    """
    if only_a <= only_b:
        return None
    z_p, z_power = NormalDist().inv_cdf(1 - p), NormalDist().inv_cdf(power)
    discordant, ahead = (only_a + only_b) / n, (only_a - only_b) / n
    return ceil((z_p * sqrt(discordant) + z_power * sqrt(discordant - ahead**2)) ** 2 / ahead**2)


def stand(onnx: Path, meta: dict[str, Any], predictions: Path, test: Path) -> Standing:
    """A network on the test split of the workspace: as it was stored, or read again where it is another split.

    Where the workspace has none, or one of captchas it cannot read: on the split it was tested on.

    Args:
        meta: of the split that `predictions` are of.
    """
    network = predictor.load(onnx)
    here = files.read_json(test / "meta.json") if (test / "meta.json").exists() else meta
    if here["digest"] == meta["digest"] or not _fits(here, network.captcha):
        with predictions.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        truths, texts = [row["truth"] for row in rows], [row["prediction"] for row in rows]
        here = meta
    else:
        split = dataset.load(test, network.captcha)
        logits = network.logits(np.asarray(split.images))
        truths = split.texts()
        texts = [found.text for found in decoding.greedy(network.kind, logits, network.captcha.alphabet)]
    return Standing(
        network.kind, network.captcha, network.network_md5, here["digest"], truths, texts, latency_ms(network)
    )


def _fits(meta: dict[str, Any], captcha: CaptchaParams) -> bool:
    return all(meta[key] == value for key, value in captcha.model_dump().items())


def latency_ms(network: predictor.Predictor) -> float:
    """Milliseconds one picture takes, 95th percentile; what is on it makes no difference."""
    picture = np.zeros((1, *network.captcha.image_shape), np.uint8)
    seconds = []
    for _ in range(LATENCY_READS):
        started = time.perf_counter()
        list(network.predict(picture))
        seconds.append(time.perf_counter() - started)
    return 1000 * sorted(seconds[LATENCY_READS // 6 :])[-LATENCY_READS // 24]
