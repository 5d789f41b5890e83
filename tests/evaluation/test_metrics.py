"""One list of metrics: what is in it is computed, written, compared, shown and logged."""

import pytest

from captchalab.evaluation import metrics
from captchalab.evaluation.metrics import Evaluated, Metric
from captchalab.reading.decoding import Prediction


def evaluated(kind: str, truths: list[str], predictions: list[str], of_length: list[str] | None = None) -> Evaluated:
    def as_predictions(texts: list[str]) -> list[Prediction]:
        return [Prediction(text=text, confidence=0.5) for text in texts]

    told = None if of_length is None else as_predictions(of_length)
    return Evaluated(kind, truths, as_predictions(predictions), told, parameters=7, model_bytes=1000, images_seen=64)


def test_metrics_json_has_these_keys_in_this_order():
    cnn = metrics.measure(evaluated("cnn", ["AB", "CD"], ["AB", "C"]))
    assert list(cnn) == [
        "exact", "exact_low", "exact_high", "n", "cer", "parameters", "model_bytes", "images_seen",
    ]  # fmt: skip
    assert (cnn["exact"], cnn["n"], cnn["cer"], cnn["images_seen"]) == (0.5, 2, 0.25, 64)


def test_a_ctc_network_is_measured_with_the_length_told_too():
    ctc = metrics.measure(evaluated("ctc", ["AB", "CD"], ["AB", "C"], ["AB", "CD"]))
    assert list(ctc)[-3:] == ["exact_of_length", "exact_of_length_low", "exact_of_length_high"]
    assert ctc["exact_of_length"] == 1


def test_mlflow_separates_what_is_measured_on_the_test_split():
    names = metrics.logged_names()
    assert names["exact_low"] == "test/exact_low"
    assert names["n"] == "test/n"
    assert names["model_bytes"] == "network/model_bytes"
    assert metrics.headline("test") == ["test/exact", "test/exact_low", "test/exact_high", "test/cer"]
    assert metrics.headline("network") == ["network/images_seen"]


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (metrics.percent, 0.97054, "97.05 %"),
        (lambda share: metrics.percent(share, 3), 0.00742, "0.742 %"),
        (metrics.whole, 1234567, "1,234,567"),
        (metrics.megabytes, 2_306_919, "2.3 MB"),
    ],
)
def test_formats(show, value, text):
    assert show(value) == text


def test_a_metric_without_a_value_is_not_written():
    assert Metric("x", lambda evaluated: None, "x").measure(evaluated("cnn", ["A"], ["A"])) == {}


def test_no_two_metrics_share_a_key():
    keys = [key for metric in metrics.METRICS for key in metric.keys]
    assert len(set(keys)) == len(keys)
