from captchalab.evaluation.evaluate import confuse, detail
from captchalab.reading.decoding import Prediction


def reads(*texts: str, confidence: float = 0.9) -> list[Prediction]:
    return [Prediction(text=text, confidence=confidence) for text in texts]


def test_characters_are_counted_where_they_stand(smoke):
    found = detail(["AB12", "AB12"], reads("AB12", "AX12"), smoke.captcha)
    assert [place["accuracy"] for place in found["by_position"]] == [1.0, 0.5, 1.0, 1.0]
    assert found["by_character"]["B"]["accuracy"] == 0.5
    assert found["by_character"]["A"]["n"] == 2


def test_a_missed_character_does_not_spoil_those_after_it(smoke):
    found = detail(["AB12"], reads("B12"), smoke.captcha)
    assert [place["accuracy"] for place in found["by_position"]] == [0.0, 1.0, 1.0, 1.0]


def test_captchas_with_a_zero_or_an_o_are_apart(smoke):
    found = detail(["0AAA", "AAAO", "AAAA"], reads("OAAA", "AAAO", "AAAA"), smoke.captcha)
    assert (found["with_0_or_O"]["exact"], found["with_0_or_O"]["n"]) == (0.5, 2)
    assert (found["without_0_or_O"]["exact"], found["without_0_or_O"]["n"]) == (1.0, 1)


def test_an_alphabet_without_them_has_no_such_figures(smoke):
    captcha = smoke.captcha.model_copy(update={"alphabet": "AB", "length": 2})
    assert "with_0_or_O" not in detail(["AB"], reads("AB"), captcha)


def test_confidence_is_held_against_what_is_right(smoke):
    found = detail(["AAAA", "BBBB"], reads("AAAA", "BBBX", confidence=0.95), smoke.captcha)
    [group] = found["reliability"]
    assert (group["low"], group["exact"], group["n"]) == (0.9, 0.5, 2)
    assert round(found["calibration_error"], 6) == 0.45


def test_confusions_count_wrong_pairs_most_first():
    found = confuse(["0O", "0A", "AB"], ["OO", "OA", "B"])
    assert found == [(("0", "O"), 2), (("A", ""), 1)]
