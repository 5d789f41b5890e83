import pytest
from scipy.stats import binomtest

from captchalab.statistics import cer, exact, wilson


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


@pytest.mark.parametrize("n", [1, 7, 5_000, 10_000])
def test_wilson_is_scipys_but_for_the_last_bit(n):
    for right in range(0, n + 1, max(1, n // 200)):
        interval = binomtest(right, n).proportion_ci(0.95, "wilson")
        assert wilson(right, n)[1:3] == pytest.approx(interval, abs=1e-15)


@pytest.mark.parametrize(
    ("truth", "prediction", "edits"),
    [
        ("AB", "", 2),
        ("0O0O", "0000", 2),
        ("ABCD", "BCD", 1),
        ("kitten", "sitting", 3),
    ],
)
def test_character_error_rate_counts_the_fewest_edits(truth, prediction, edits):
    assert cer([truth], [prediction]) == edits / len(truth)


def test_character_error_rate_weighs_characters_not_texts():
    assert cer(["ABCD", "AB"], ["ABCX", "AB"]) == pytest.approx(1 / 6)
    assert cer(["A"], ["BCD"]) == 3.0
