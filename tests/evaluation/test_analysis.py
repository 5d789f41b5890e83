import math

import pytest

from captchalab.evaluation.analysis import align, calibration_error, confuse, detail, parts, reliability
from captchalab.reading.decoding import Prediction


@pytest.mark.parametrize(
    ("truth", "prediction", "pairs"),
    [
        ("AB", "AB", [("A", "A"), ("B", "B")]),
        ("AB", "AC", [("A", "A"), ("B", "C")]),
        ("ABCD", "BCD", [("A", ""), ("B", "B"), ("C", "C"), ("D", "D")]),
        ("AB", "AXB", [("A", "A"), ("", "X"), ("B", "B")]),
        ("AAB", "AB", [("A", ""), ("A", "A"), ("B", "B")]),  # of two shortest edits the one whose gap comes first
        ("ABCD", "BCDE", [("A", ""), ("B", "B"), ("C", "C"), ("D", "D"), ("", "E")]),
        ("", "A", [("", "A")]),
    ],
)
def test_alignment_pairs_characters_along_a_shortest_edit(truth, prediction, pairs):
    assert align(truth, prediction) == pairs


def test_reliability_groups_by_confidence_and_leaves_empty_bins_out():
    bins = reliability([0.05, 0.95, 0.97, 1.0], [False, True, True, False], bins=10)
    assert [(b.low, b.high, b.exact.n) for b in bins] == [(0.0, 0.1, 1), (0.9, 1.0, 3)]
    assert bins[1].exact.value == pytest.approx(2 / 3)


def test_a_calibrated_reader_has_no_calibration_error():
    assert calibration_error(reliability([0.5] * 4, [True, False, True, False])) == 0.0
    assert calibration_error(reliability([1.0] * 4, [False] * 4)) == 1.0
    assert calibration_error([]) == 0.0
    assert math.isfinite(calibration_error(reliability([0.3], [True])))


def predictions(*texts: str, confidence: float = 0.9) -> list[Prediction]:
    return [Prediction(text=text, confidence=confidence) for text in texts]


def test_characters_are_counted_where_they_stand(smoke):
    found = detail(["AB12", "AB12"], predictions("AB12", "AX12"), smoke.captcha)
    assert [place["accuracy"] for place in found["by_position"]] == [1.0, 0.5, 1.0, 1.0]
    assert found["by_character"]["B"]["accuracy"] == 0.5
    assert found["by_character"]["A"]["n"] == 2


def test_a_missed_character_does_not_spoil_those_after_it(smoke):
    found = detail(["AB12"], predictions("B12"), smoke.captcha)
    assert [place["accuracy"] for place in found["by_position"]] == [0.0, 1.0, 1.0, 1.0]


def test_captchas_with_a_zero_or_an_o_are_apart(smoke):
    found = detail(["0AAA", "AAAO", "AAAA"], predictions("OAAA", "AAAO", "AAAA"), smoke.captcha)
    assert (found["with_0_or_O"]["exact"], found["with_0_or_O"]["n"]) == (0.5, 2)
    assert (found["without_0_or_O"]["exact"], found["without_0_or_O"]["n"]) == (1.0, 1)


@pytest.mark.parametrize(
    ("alphabet", "expected"),
    [
        (
            "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            [("with_0_or_O", "with 0 or O"), ("without_0_or_O", "without 0 and O")],
        ),
        ("0o1", [("with_0_or_o", "with 0 or o"), ("without_0_or_o", "without 0 and o")]),
        ("aOo", [("with_O_or_o", "with O or o"), ("without_O_or_o", "without O and o")]),
        ("oO0", [("with_0_or_O_or_o", "with 0, O or o"), ("without_0_or_O_or_o", "without 0, O and o")]),
        ("0123456789", []),
        ("abcdefghijklmnopqrstuvwxyz", []),
        ("AB", []),
    ],
)
def test_characters_drawn_alike_are_those_the_alphabet_has(alphabet, expected):
    assert [(part.key, part.label) for part in parts(alphabet)] == expected


def test_lower_case_o_is_drawn_like_zero_too(smoke):
    captcha = smoke.captcha.model_copy(update={"alphabet": "0oab", "length": 2})
    found = detail(["0a", "ob", "ab"], predictions("oa", "ob", "ab"), captcha)
    assert (found["with_0_or_o"]["exact"], found["with_0_or_o"]["n"]) == (0.5, 2)
    assert (found["without_0_or_o"]["exact"], found["without_0_or_o"]["n"]) == (1.0, 1)


def test_an_alphabet_without_them_has_no_such_keys(smoke):
    captcha = smoke.captcha.model_copy(update={"alphabet": "AB", "length": 2})
    assert not any(key.startswith("with") for key in detail(["AB"], predictions("AB"), captcha))


def test_confidence_is_held_against_what_is_right(smoke):
    found = detail(["AAAA", "BBBB"], predictions("AAAA", "BBBX", confidence=0.95), smoke.captcha)
    [group] = found["reliability"]
    assert (group["low"], group["exact"], group["n"]) == (0.9, 0.5, 2)
    assert round(found["calibration_error"], 6) == 0.45


def test_confusions_count_wrong_pairs_most_first():
    found = confuse(["0O", "0A", "AB"], ["OO", "OA", "B"])
    assert found == [(("0", "O"), 2), (("A", ""), 1)]
