"""Decisions of the comparison, as tables."""

import pytest

from captchalab.evaluation import comparison
from captchalab.reading.captcha import Kind


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_mcnemar_is_the_exact_two_sided_binomial(only_a, only_b, p):
    assert comparison.mcnemar(only_a, only_b) == pytest.approx(p)


def test_mcnemar_stays_exact_for_many_images():
    assert 0 < comparison.mcnemar(4000, 4300) < 0.01
    assert comparison.mcnemar(4000, 4300) == comparison.mcnemar(4300, 4000)


class TestContingency:
    def test_says_who_reads_which(self) -> None:
        truths = ["AA", "BB", "AB", "BA"]
        cnn = ["AA", "BB", "XX", ""]
        ctc = ["AA", "B", "AB", "BAA"]
        assert comparison.contingency(truths, cnn, ctc) == ([0], [1], [2], [3])

    def test_of_nothing_is_nothing(self) -> None:
        assert comparison.contingency([], [], []) == ([], [], [], [])


@pytest.mark.parametrize(
    ("only_cnn", "only_ctc", "expected"),
    [(0, 0, None), (5, 5, None), (0, 5, None), (0, 6, "ctc"), (6, 0, "cnn"), (60, 50, None), (70, 40, "cnn")],
)
def test_a_network_is_better_where_chance_does_not_explain_it(
    only_cnn: int, only_ctc: int, expected: Kind | None
) -> None:
    assert comparison.better(only_cnn, only_ctc) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            (9_400, 100, 300, 200),
            "Of 10,000 test captchas the CTC network reads 97.00 %, the CNN 95.00 %: 2.00 points apart. "
            "Only one of the two reads 400 of them: the CTC network 300, the CNN 100. Were they equally "
            "good, chance would hardly split them like that (McNemar's exact test, p < 0.0001).",
        ),
        (
            (90, 2, 1, 7),
            "Of 100 test captchas the CNN reads 92.00 %, the CTC network 91.00 %: 1.00 points apart. "
            "Only one of the two reads 3 of them: the CNN 2, the CTC network 1. Were they equally "
            "good, chance may well split them like that (McNemar's exact test, p = 1).",
        ),
        (
            (3, 0, 0, 1),
            "Of 4 test captchas the CNN reads 75.00 %, the CTC network 75.00 %: they read the very same ones.",
        ),
        (
            (0, 0, 0, 4),
            "Of 4 test captchas the CNN reads 0.00 %, the CTC network 0.00 %: they read nothing yet.",
        ),
    ],
)
def test_the_verdict_in_words(counts: tuple[int, int, int, int], expected: str) -> None:
    assert comparison.verdict(*counts) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (95.1, 97.4, [95, 95.5, 96, 96.5, 97, 97.5]),
        (83.2, 98.1, [80, 85, 90, 95, 100]),
        (100, 100, [100, 100.1]),
    ],
)
def test_ticks_are_round_few_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert comparison.ticks(low, high) == expected


def test_mistakes_of_both_together_most_first() -> None:
    cnn, ctc = {("0", "O"): 3, ("A", "B"): 1}, {("0", "O"): 2, ("", "1"): 4}
    assert comparison.mistakes(cnn, ctc, most=2) == [("0", "O", 3, 2), ("", "1", 0, 4)]
