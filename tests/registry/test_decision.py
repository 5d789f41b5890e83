"""Who becomes champion: tables of cases, and how often chance alone makes one."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from captchalab.params import PromoteParams
from captchalab.reading.captcha import CaptchaParams
from captchalab.registry.decision import Result, better_p, compare, decide, images_to_tell, refuse, spend

CAPTCHA = CaptchaParams(alphabet="AB", length=1, width_px=32, height_px=32, channels=1)
RULES = PromoteParams(min_exact=0.5, max_p=0.1, images=100, max_latency_ms=10.0)  # 0.05 for the first attempt
N = 100


def result(right: range | set[int], md5: str = "new", captcha: CaptchaParams = CAPTCHA, ms: float = 1.0) -> Result:
    """A network that predicts these of 100 captchas."""
    return Result("cnn", captcha, md5, ms, np.array([i in right for i in range(N)]))


CHAMPION = result(range(80), "old")


@pytest.mark.parametrize(
    ("candidate", "champion", "better", "reason"),
    [
        (
            result(range(50)),
            None,
            True,
            "no champion yet, and it predicts 50.00% (40.38 - 59.62) of 100 fresh captchas",
        ),
        (
            result(range(49)),
            None,
            False,
            "fresh captchas, below promote.min_exact = 50.00%: lower that in params.yaml",
        ),
        (result(range(90), ms=11.0), None, False, "takes 11.0 ms per image, above promote.max_latency_ms = 10."),
        (result(range(90)), CHAMPION, True, "the candidate alone is right on 10, the champion alone on 0 (p = 0.00098"),
        (result(range(80)), CHAMPION, False, "the candidate is not ahead, so more captchas would not show"),
        (result(range(70)), CHAMPION, False, "alone is right on 0, the champion alone on 10 (p = 1, and attempt 1"),
        # 4 of 4, p = 0.0625; the next attempt has 0.1 / 6
        (
            result(range(84)),
            CHAMPION,
            False,
            "telling them apart would take about 218 captchas.",
        ),
        (result(range(85)), CHAMPION, True, "p = 0.031, and attempt 1 against this champion needs 0.05 or less)."),
        # ten more right, but as many other ones wrong: it is the pairs that count, not the two shares
        (result({*range(70), *range(80, 97)}), CHAMPION, False, "right on 17, the champion alone on 10 (p = 0.12,"),
        (result(range(80), "old"), CHAMPION, False, "it is the champion already."),
        (result(range(49)), CHAMPION, False, "below promote.min_exact"),
        (
            result(range(100), captcha=CAPTCHA.model_copy(update={"alphabet": "ABC"})),
            CHAMPION,
            False,
            "not comparable with the champion, which reads other captchas: alphabet 'ABC' against 'AB'.",
        ),
        (
            result(range(100), captcha=CAPTCHA.model_copy(update={"length": 2, "width_px": 64})),
            CHAMPION,
            False,
            "other captchas: length 2 against 1, width_px 64 against 32.",
        ),
    ],
)
def test_decide(candidate, champion, better, reason):
    found = decide(RULES, candidate, champion)
    assert (found.better, reason in found.reason) == (better, True), found.reason


@pytest.mark.parametrize(
    ("candidate", "champion", "refused"),
    [
        (result(set(), "old"), CHAMPION, True),
        (result(set(), captcha=CAPTCHA.model_copy(update={"length": 2})), CHAMPION, True),
        (result(set(), ms=11.0), None, True),
        (result(set()), CHAMPION, False),
        (result(set()), None, False),
    ],
)
def test_what_needs_no_captcha_is_refused_before_one_is_drawn(candidate, champion, refused):
    assert bool(refuse(RULES, candidate, champion)) == refused


def test_the_same_lead_is_enough_at_first_and_not_after_many_attempts():
    assert [compare(10, 1, 1000, 0.05, attempt).better for attempt in (1, 2, 3, 4, 100)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_all_attempts_together_spend_no_more_than_max_p():
    spent = [spend(0.05, attempt) for attempt in range(1, 10_001)]
    assert spent == sorted(spent, reverse=True)
    assert 0.04999 < sum(spent) <= 0.05


def test_p_is_mcnemars_exact_one_sided():
    assert better_p(0, 0) == 1.0
    assert better_p(5, 0) == pytest.approx(0.5**5)
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
    n = images_to_tell(30, 15, 1000, 0.05)
    draws = np.random.default_rng(1).multinomial(n, [0.030, 0.015, 0.955], size=1000)
    found = np.mean([better_p(int(a), int(b)) <= 0.05 for a, b, _ in draws])
    assert 0.72 < found < 0.86


# A series is what one person may do to one champion: try network after network, and ask again with as many captchas
# as the refusal names (here up to ten times as many) for as long as it names any.
SERIES, ATTEMPTS, IMAGES, MAX_P = 1000, 20, 20_000, 0.05
Rule = Callable[[int, int, int, int], bool]  # only candidate, only champion, n, attempt -> promoted


def ours(only_a: int, only_b: int, n: int, attempt: int) -> bool:
    return compare(only_a, only_b, n, MAX_P, attempt).better


def fixed(only_a: int, only_b: int, n: int, attempt: int) -> bool:
    """The rule that forgets: the whole of max_p each time."""
    return better_p(only_a, only_b) <= MAX_P


def promoted(random: np.random.Generator, rule: Rule, only_candidate: float, only_champion: float) -> bool:
    """Whether any attempt of a series makes a network champion.

    Args:
        only_candidate: probability that just the candidate predicts a captcha; `only_champion` likewise.
    """
    images = IMAGES
    for attempt in range(1, ATTEMPTS + 1):
        shares = [only_candidate, only_champion, 1 - only_candidate - only_champion]
        a, b, _ = map(int, random.multinomial(images, shares))
        if rule(a, b, images, attempt):
            return True
        again = images_to_tell(a, b, images, spend(MAX_P, attempt + 1))
        images = min(max(again, IMAGES), 10 * IMAGES) if again else IMAGES
    return False


def false_promotions(rule: Rule) -> int:
    """Series of 1,000 in which a network as good as the champion, each wrong on other captchas, replaces it."""
    random = np.random.default_rng(20)
    return sum(promoted(random, rule, 0.012, 0.012) for _ in range(SERIES))


def test_over_1000_series_no_better_networks_are_promoted_in_max_p_of_them_at_most():
    limit = binom.ppf(0.999, SERIES, MAX_P)  # 72: what a rate of exactly max_p stays within 999 times of 1,000
    assert false_promotions(ours) <= limit


def test_a_rule_that_spends_max_p_each_time_would_promote_in_half_of_them():
    assert false_promotions(fixed) > SERIES / 2


def test_a_network_better_by_one_point_is_promoted_even_after_ten_attempts():
    """98 % against 97 %, on 20,000 captchas: 1.8 % that just the candidate predicts, 0.8 % just the champion."""
    random = np.random.default_rng(21)
    draws = random.multinomial(IMAGES, [0.018, 0.008, 0.974], size=200)
    assert all(ours(int(a), int(b), IMAGES, attempt) for a, b, _ in draws for attempt in (1, 10))


def test_a_network_better_by_a_fifth_of_a_point_is_promoted_in_a_few_attempts():
    random = np.random.default_rng(22)
    found = np.mean([promoted(random, ours, 0.013, 0.011) for _ in range(100)])
    assert found > 0.9
