"""Every reported metric, in one list: to add one, add an entry to METRICS.

From the list come metrics.json, comparison.json and its page, the README's table of results, MLflow's metrics
and columns, `captchalab lineage` and the model card. Training knows nothing of it: a new entry reruns
evaluate and compare, and no training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from captchalab import statistics
from captchalab.reading.captcha import Kind
from captchalab.reading.decoding import Prediction
from captchalab.statistics import Proportion

Group = Literal["test", "network"]


class Evaluated(NamedTuple):
    """A network and what it predicts on the test split: all that a metric is computed from."""

    kind: Kind
    truths: Sequence[str]
    predictions: Sequence[Prediction]
    of_length: Sequence[Prediction] | None  # the best texts of exactly L characters; CTC only
    parameters: int
    model_bytes: int
    images_seen: int  # in training, both stages

    @property
    def texts(self) -> list[str]:
        return [found.text for found in self.predictions]


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def whole(number: float) -> str:
    return f"{number:,}"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


@dataclass(frozen=True)
class Metric:
    """How a metric is computed, named and shown."""

    name: str  # key in metrics.json
    compute: Callable[[Evaluated], float | Proportion | None]  # None: this network has none
    label: str  # of its row on the comparison page, {L} for the length; "": neither there nor in comparison.json
    show: Callable[[float], str] = percent
    group: Group = "test"  # in MLflow: test/<name> is measured on the test split, network/<name> is not
    interval: bool = False  # `compute` gives a Proportion: <name>_low and <name>_high too
    note: str = ""  # small print under the label; its row comes after those without
    missing: str = "–"  # stands for None, {L} for the length
    column: bool = True  # a column of MLflow's table; shown by `lineage` and on the model card too
    heading: str = ""  # of its column in the README's table of results; "": none

    @property
    def keys(self) -> tuple[str, ...]:
        """Its keys in metrics.json."""
        ends = ("", "_low", "_high") if self.interval else ("",)
        return tuple(self.name + end for end in ends)

    def measure(self, evaluated: Evaluated) -> dict[str, float]:
        """Its part of metrics.json."""
        match self.compute(evaluated):
            case None:
                return {}
            case Proportion() as share:
                return dict(zip(self.keys, (share.value, share.low, share.high), strict=True))
            case value:
                return {self.name: value}


def of_length(evaluated: Evaluated) -> Proportion | None:
    """Exact match of the best texts of exactly L characters."""
    if evaluated.of_length is None:
        return None
    return statistics.exact(evaluated.truths, [found.text for found in evaluated.of_length])


METRICS = (
    Metric(
        "exact",
        lambda evaluated: statistics.exact(evaluated.truths, evaluated.texts),
        "exact match",
        interval=True,
        heading="exact match (95 % interval)",
    ),
    Metric("n", lambda evaluated: len(evaluated.truths), "", whole, column=False, heading="n"),
    Metric(
        "cer",
        lambda evaluated: statistics.cer(evaluated.truths, evaluated.texts),
        "character error rate",
        lambda v: percent(v, 3),
    ),
    Metric(
        "parameters",
        lambda evaluated: evaluated.parameters,
        "parameters",
        whole,
        "network",
        column=False,
        heading="parameters",
    ),
    Metric(
        "model_bytes", lambda evaluated: evaluated.model_bytes, "size of the file", megabytes, "network", column=False
    ),
    Metric(
        "images_seen",
        lambda evaluated: evaluated.images_seen,
        "images seen in training",
        whole,
        "network",
        heading="images seen",
    ),
    Metric(
        "exact_of_length",
        of_length,
        "best text of exactly {L}",
        interval=True,
        note="reported apart: it is told the length",
        missing="always of {L}",
        column=False,
    ),
)


def measure(evaluated: Evaluated) -> dict[str, float]:
    """The content of metrics.json."""
    return {key: value for metric in METRICS for key, value in metric.measure(evaluated).items()}


def logged_names() -> dict[str, str]:
    """What MLflow calls each key of metrics.json."""
    return {key: f"{metric.group}/{key}" for metric in METRICS for key in metric.keys}


def headline(group: Group) -> list[str]:
    """MLflow's names of the metrics that a network is read by: columns of the table, lineage, model card."""
    return [f"{group}/{key}" for metric in METRICS if metric.column and metric.group == group for key in metric.keys]
