"""What several seeds say, from figures alone."""

import pytest
from scipy.stats import ttest_rel

from captchalab import files
from captchalab.evaluation import seeds
from captchalab.statistics import wilson


def runs(cnn: list[float], ctc: list[float]) -> list[dict]:
    return [
        {"seed": seed, "kind": kind, **wilson(round(1000 * value), 1000).as_metrics("exact")}
        for kind, values in (("cnn", cnn), ("ctc", ctc))
        for seed, value in enumerate(values)
    ]


def test_mean_spread_and_range():
    one = seeds.spread([0.94, 0.95, 0.96])
    assert (one.mean, one.sd, one.low, one.high, one.n) == (
        pytest.approx(0.95), pytest.approx(0.01), 0.94, 0.96, 3,
    )  # fmt: skip
    assert seeds.show(one) == "95.00 ± 1.00 %"
    assert seeds.show(seeds.spread([0.94])) == "94.00 %"


def test_the_difference_has_the_interval_of_students_paired_t():
    cnn, ctc = [0.94, 0.95, 0.945, 0.951], [0.97, 0.965, 0.972, 0.969]
    found = seeds.difference(cnn, ctc)
    interval = ttest_rel(ctc, cnn).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("cnn", "ctc", "said"),
    [
        ([0.94, 0.942, 0.941], [0.97, 0.971, 0.969], "CTC network is ahead by 2.90 points on average (95 % interval"),
        (
            [0.94, 0.942, 0.941],
            [0.97, 0.971, 0.969],
            "the difference of the networks is larger than that of the seeds.",
        ),
        ([0.97, 0.971, 0.969], [0.94, 0.942, 0.941], "CNN is ahead by 2.90 points on average"),
        ([0.94, 0.97, 0.95], [0.95, 0.96, 0.97], "is not shown to be larger than that of the seeds."),
        ([0.94, 0.95], [0.95, 0.94], "is not shown to be larger than that of the seeds."),
        ([0.94], [0.97], "Each network was trained once: how much of the difference is luck of training, one seed"),
    ],
)
def test_the_verdict_says_whether_the_kinds_differ_by_more_than_the_seeds(cnn, ctc, said):
    assert said in seeds.verdict(runs(cnn, ctc))


def test_only_a_table_that_has_these_very_networks_is_theirs(tmp_path):
    table = {"base_seed": 0, "runs": runs([0.94, 0.95], [0.97, 0.98])}
    files.write_json(tmp_path / "seeds.json", table)
    cnn, ctc = wilson(940, 1000).as_metrics("exact"), wilson(970, 1000).as_metrics("exact")
    assert seeds.load(tmp_path / "seeds.json", {"cnn": cnn, "ctc": ctc}) == table["runs"]
    assert seeds.load(tmp_path / "seeds.json", {"cnn": cnn, "ctc": cnn}) == []
    assert seeds.load(tmp_path / "none.json", {"cnn": cnn, "ctc": ctc}) == []
