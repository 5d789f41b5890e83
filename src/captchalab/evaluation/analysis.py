"""Where a network is right: by position, by character, by confidence; and what it takes for what. Pure functions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein

from captchalab.reading.captcha import CaptchaParams
from captchalab.reading.decoding import Prediction
from captchalab.statistics import Proportion, wilson

CONFUSABLE = "0Oo"  # drawn alike; one of four characters from 36 classes is 0 or O in 20 % of all captchas


class Part(NamedTuple):
    """The captchas with, or those without, characters that are drawn alike."""

    key: str  # in details.json
    label: str
    characters: str
    has_them: bool


def parts(alphabet: str) -> list[Part]:
    """With 0 or O, and without 0 and O; none where the alphabet has only one of the characters drawn alike."""
    found = "".join(char for char in CONFUSABLE if char in alphabet)
    if len(found) < 2:
        return []
    key = "_or_".join(found)
    first, last = ", ".join(found[:-1]), found[-1]
    return [
        Part(f"with_{key}", f"with {first} or {last}", found, True),
        Part(f"without_{key}", f"without {first} and {last}", found, False),
    ]


def align(truth: str, prediction: str) -> list[tuple[str, str]]:
    """Pairs (true, predicted) along a shortest edit; "" stands for a missed or an extra character.

    Of several shortest edits it takes the one without gaps, else the one whose gaps come first
    (rapidfuzz's `editops` puts them elsewhere, and confusions.csv must not depend on its version).
    """
    distance = Levenshtein.distance
    if len(truth) == len(prediction) and distance(truth, prediction) == sum(
        t != p for t, p in zip(truth, prediction, strict=True)
    ):
        return list(zip(truth, prediction, strict=True))
    pairs = []
    i, j = len(truth), len(prediction)
    while i or j:
        here = distance(truth[:i], prediction[:j])
        if i and j and here == distance(truth[: i - 1], prediction[: j - 1]) + (truth[i - 1] != prediction[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], prediction[j]))
        elif i and here == distance(truth[: i - 1], prediction[:j]) + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", prediction[j]))
    return pairs[::-1]


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


def detail(truths: Sequence[str], predictions: Sequence[Prediction], captcha: CaptchaParams) -> dict[str, Any]:
    """The content of details.json: accuracy by position and by character, exact match by confidence and by `parts`.

    A character counts as right where a shortest edit pairs it with itself.
    """
    positions = [[0, 0] for _ in range(captcha.length)]  # right, all
    characters = {char: [0, 0] for char in captcha.alphabet}
    for truth, found in zip(truths, predictions, strict=True):
        pairs = [pair for pair in align(truth, found.text) if pair[0]]
        for position, (true, predicted) in enumerate(pairs):
            for counter in (positions[position], characters[true]):
                counter[0] += true == predicted
                counter[1] += 1
    right = [truth == found.text for truth, found in zip(truths, predictions, strict=True)]
    bins = reliability([found.confidence for found in predictions], right)
    details: dict[str, Any] = {
        "by_position": [wilson(*counter).as_metrics("accuracy") for counter in positions],
        "by_character": {char: wilson(*counter).as_metrics("accuracy") for char, counter in characters.items()},
        "calibration_error": calibration_error(bins),
        "reliability": [
            {"low": b.low, "high": b.high, "confidence": b.confidence, **b.exact.as_metrics("exact")} for b in bins
        ],
    }
    for part in parts(captcha.alphabet):
        chosen = [
            is_right
            for truth, is_right in zip(truths, right, strict=True)
            if bool(set(truth) & set(part.characters)) == part.has_them
        ]
        details[part.key] = wilson(sum(chosen), len(chosen)).as_metrics("exact")
    return details


def confuse(truths: Sequence[str], predictions: Sequence[str]) -> list[tuple[tuple[str, str], int]]:
    """Wrong pairs (true, predicted) and their counts, most frequent first; "" where one is missing."""
    wrong = Counter(
        pair for t, p in zip(truths, predictions, strict=True) for pair in align(t, p) if pair[0] != pair[1]
    )
    return sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
