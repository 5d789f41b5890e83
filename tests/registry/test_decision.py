"""Who becomes champion: a table of cases, nothing but numbers."""

import pytest

from captchalab.params import PromoteParams
from captchalab.reading.captcha import CaptchaParams
from captchalab.registry.decision import Standing, better_p, decide, images_to_tell

CAPTCHA = CaptchaParams(alphabet="AB", length=1, width_px=32, height_px=32, channels=1)
RULES = PromoteParams(min_exact=0.5, max_p=0.05, max_latency_ms=10.0)
N = 100


def standing(right: range | set[int], md5: str = "new", captcha: CaptchaParams = CAPTCHA, ms: float = 1.0) -> Standing:
    """A network that reads these of 100 captchas."""
    truths = ["A"] * N
    return Standing("cnn", captcha, md5, "digest", truths, ["A" if i in right else "B" for i in range(N)], ms)


CHAMPION = standing(range(80), "old")


@pytest.mark.parametrize(
    ("candidate", "champion", "better", "reason"),
    [
        (standing(range(50)), None, True, "there is no champion yet"),
        (standing(range(49)), None, False, "reads 49.00% of the test captchas, below promote.min_exact = 50.00%"),
        (standing(range(90), ms=11.0), None, False, "takes 11.0 ms a picture, above promote.max_latency_ms = 10."),
        (standing(range(90)), CHAMPION, True, "it alone reads 10, the champion alone 0 (p = 0.00098)"),
        (standing(range(80)), CHAMPION, False, "it is not ahead, so more test images would not show"),
        (standing(range(70)), CHAMPION, False, "it alone reads 0, the champion alone 10 (p = 1); it is not ahead"),
        (standing(range(84)), CHAMPION, False, "(p = 0.062); telling them apart would take about 153 test images."),
        (standing(range(85)), CHAMPION, True, "(p = 0.031)"),
        # ten more right, but as many other ones wrong: it is the pairs that count, not the two shares
        (
            standing({*range(70), *range(80, 97)}),
            CHAMPION,
            False,
            "it alone reads 17, the champion alone 10 (p = 0.12)",
        ),
        (standing(range(80), "old"), CHAMPION, False, "it is the champion already."),
        (standing(range(49)), CHAMPION, False, "below promote.min_exact"),
        (
            standing(range(100), captcha=CAPTCHA.model_copy(update={"alphabet": "ABC"})),
            CHAMPION,
            False,
            "not comparable with the champion, which reads other captchas: alphabet 'ABC' against 'AB'.",
        ),
        (
            standing(range(100), captcha=CAPTCHA.model_copy(update={"length": 2, "width_px": 64})),
            CHAMPION,
            False,
            "other captchas: length 2 against 1, width_px 64 against 32.",
        ),
    ],
)
def test_decide(candidate, champion, better, reason):
    found = decide(RULES, candidate, champion)
    assert (found.better, reason in found.reason) == (better, True), found.reason


def test_p_is_mcnemars_exact_one_sided():
    assert better_p(0, 0) == 1.0
    assert better_p(5, 0) == 0.5**5
    assert better_p(2, 1) == pytest.approx(0.5)
    assert better_p(352, 132) < 1e-20
    assert better_p(132, 352) == pytest.approx(1.0)


def test_the_smaller_the_lead_the_more_images_it_takes():
    assert images_to_tell(5, 5, 100, 0.05) is None
    assert images_to_tell(4, 5, 100, 0.05) is None
    needed = [images_to_tell(lead + 10, 10, 1000, 0.05) for lead in (20, 10, 5, 1)]
    assert needed == sorted(needed)
    # a worked example: 15 % against 5 % discordant, one-sided 5 %, power 80 %
    assert images_to_tell(15, 5, 100, 0.05) == pytest.approx(122, abs=2)


def test_that_many_images_do_tell_them_apart_four_times_of_five():
    import numpy as np

    n = images_to_tell(30, 15, 1000, 0.05)
    draws = np.random.default_rng(1).multinomial(n, [0.030, 0.015, 0.955], size=1000)
    found = np.mean([better_p(int(a), int(b)) <= 0.05 for a, b, _ in draws])
    assert 0.72 < found < 0.86
