import math

import pytest

from captchalab.statistics import (
    align,
    calibration_error,
    cer,
    edit_distance,
    exact,
    mcnemar,
    reliability,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (12579, 12800, 0.9803, 0.9849),  # the public reference's CNN
        (2540, 2560, 0.9880, 0.9949),  # and its CTC network
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_gives_published_intervals(right, n, low, high):
    found = wilson(right, n)
    assert found.n == n
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
    assert found.low <= found.value <= found.high


def test_exact_match_is_strict():
    found = exact(["AB", "AB", "AB", "AB"], ["AB", "ABC", "A", "ab"])
    assert (found.value, found.n) == (0.25, 4)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "AB", 2),
        ("AB", "", 2),
        ("0O0O", "0000", 2),
        ("ABCD", "BCD", 1),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance_counts_the_fewest_edits(a, b, distance):
    assert edit_distance(a, b) == distance


def test_character_error_rate_weighs_characters_not_texts():
    assert cer(["ABCD", "AB"], ["ABCX", "AB"]) == pytest.approx(1 / 6)
    assert cer(["A"], ["BCD"]) == 3.0


@pytest.mark.parametrize(
    ("truth", "prediction", "pairs"),
    [
        ("AB", "AB", [("A", "A"), ("B", "B")]),
        ("AB", "AC", [("A", "A"), ("B", "C")]),
        ("ABCD", "BCD", [("A", ""), ("B", "B"), ("C", "C"), ("D", "D")]),
        ("AB", "AXB", [("A", "A"), ("", "X"), ("B", "B")]),
        ("ABCD", "BCDE", [("A", ""), ("B", "B"), ("C", "C"), ("D", "D"), ("", "E")]),
        ("", "A", [("", "A")]),
    ],
)
def test_alignment_pairs_characters_along_a_shortest_edit(truth, prediction, pairs):
    assert align(truth, prediction) == pairs


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_mcnemar_is_the_exact_two_sided_binomial(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p)


def test_mcnemar_stays_exact_for_many_images():
    assert 0 < mcnemar(4000, 4300) < 0.01
    assert mcnemar(4000, 4300) == mcnemar(4300, 4000)


def test_reliability_groups_by_confidence_and_leaves_empty_bins_out():
    bins = reliability([0.05, 0.95, 0.97, 1.0], [False, True, True, False], bins=10)
    assert [(b.low, b.high, b.exact.n) for b in bins] == [(0.0, 0.1, 1), (0.9, 1.0, 3)]
    assert bins[1].exact.value == pytest.approx(2 / 3)


def test_a_calibrated_reader_has_no_calibration_error():
    assert calibration_error(reliability([0.5] * 4, [True, False, True, False])) == 0.0
    assert calibration_error(reliability([1.0] * 4, [False] * 4)) == 1.0
    assert calibration_error([]) == 0.0
    assert math.isfinite(calibration_error(reliability([0.3], [True])))
