"""The comparison: both networks on the same test captchas, as metrics and as one page to look at.

    captchalab compare            a few seconds

Reads what `evaluate` left in reports/<kind>/. Writes reports/comparison.json (no times in it: the same
in every run) and reports/index.html, one file with all its images inside.
"""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from captchalab import files
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.evaluation import metrics, seeds
from captchalab.evaluation.analysis import align, parts
from captchalab.evaluation.comparison import (
    NAMES,
    Contingency,
    better,
    contingency,
    headline,
    mcnemar,
    mistakes,
    ticks,
    verdict,
)
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind
from captchalab.reading.decoding import Prediction

CHARTS = {
    "curves": "Training",
    "confusions": "Characters taken for others",
    "accuracies": "Right characters",
    "reliability": "Is it as sure as it should be?",
    "network": "Layers and shapes",
}
IMAGE_GRIDS = {
    "worst": "Wrong, and most confident",
    "doubtful": "Least certain",
    "ctc_output": "What CTC sees over time",
}


class Network(NamedTuple):
    """All that is known of one tested network."""

    kind: Kind
    metrics: dict[str, Any]
    details: dict[str, Any]
    timing: dict[str, Any]
    predictions: list[Prediction]
    confusions: dict[tuple[str, str], int]


class Interval(NamedTuple):
    """A line of the interval chart; shares in percent."""

    label: str
    kind: Kind
    value: float
    low: float
    high: float
    n: int


def compare(captcha: CaptchaParams, images: int, project: Project) -> dict[str, Any]:
    """Write comparison.json and index.html; returns the content of the former.

    Args:
        images: how many of each group of captchas are shown at most.

    Raises:
        UserError: a file is missing, or a network was tested on another split.
    """
    data = dataset.load(project.split("test"), captcha)
    truths = data.texts()
    cnn, ctc = (load_network(kind, truths, project) for kind in KINDS)
    groups = contingency(truths, [p.text for p in cnn.predictions], [p.text for p in ctc.predictions])
    counts = [len(rows) for rows in groups]
    comparison: dict[str, Any] = {
        "n": len(truths),
        "cnn": compared(cnn),
        "ctc": compared(ctc),
        **dict(zip(Contingency._fields, counts, strict=True)),
        "mcnemar_p": float(f"{mcnemar(counts[1], counts[2]):.6g}"),  # further digits depend on the machine
        "better": better(counts[1], counts[2]),
    }
    shown = {
        name: [captcha_image(data.images[i], truths[i], cnn.predictions[i], ctc.predictions[i]) for i in rows[:images]]
        for name, rows in groups._asdict().items()
        if name != "both_right"
    }
    lines = intervals(cnn, ctc, captcha.alphabet)
    page = _environment().get_template("report.html.j2").render(
        comparison=comparison,
        headline=headline(comparison["better"]),
        verdict=verdict(*counts),
        luck=(runs := seeds.load(project.seeds, {"cnn": cnn.metrics, "ctc": ctc.metrics})) and seeds.verdict(runs),
        networks=[cnn, ctc],
        names=NAMES,
        captcha=captcha,
        rows={
            (group, noted): table_rows(group, noted, captcha.length, cnn, ctc)
            for group in ("test", "network")
            for noted in (False, True)
        },
        parts=parts(captcha.alphabet),
        intervals=lines,
        ticks=ticks(min(line.low for line in lines), max(line.high for line in lines)),
        groups=groups,
        shown=shown,
        mistakes=mistakes(cnn.confusions, ctc.confusions),
        charts={title: _embedded(project, name) for name, title in CHARTS.items()},
        image_grids={title: _embedded(project, name) for name, title in IMAGE_GRIDS.items()},
        samples=embed(project.split("test") / "samples.png"),
    )  # fmt: skip
    files.write_json(project.reports / "comparison.json", comparison)
    files.write_text(project.reports / "index.html", page)
    return comparison


def load_network(kind: Kind, truths: Sequence[str], project: Project) -> Network:
    """What `evaluate` wrote of a network.

    Raises:
        UserError: a file is missing, or the predictions are of other captchas than `truths`.
    """
    folder = project.report(kind)
    predictions = read_csv(folder / "predictions.csv")
    if [row["truth"] for row in predictions] != list(truths):
        raise UserError(
            f"{folder / 'predictions.csv'} holds other captchas than {project.split('test')}: "
            "run `dvc repro` to test both networks on the same ones."
        )
    confusions = read_csv(folder / "confusions.csv")
    return Network(
        kind,
        files.read_json(folder / "metrics.json"),
        files.read_json(folder / "details.json"),
        files.read_json(folder / "timing.json"),
        [Prediction(text=row["prediction"], confidence=float(row["confidence"])) for row in predictions],
        {(row["truth"], row["prediction"]): int(row["count"]) for row in confusions},
    )


def compared(network: Network) -> dict[str, float]:
    """What comparison.json says of a network."""
    keys = [key for metric in metrics.METRICS if metric.label for key in metric.keys]
    return {key: network.metrics[key] for key in keys if key in network.metrics}


class Row(NamedTuple):
    """A line of the table that has both networks side by side."""

    label: str
    note: str
    cells: list[tuple[str, str]]  # the value and its interval, of each network


def table_rows(group: metrics.Group, noted: bool, L: int, *networks: Network) -> list[Row]:
    """The metrics of a group, those with a note or those without, as text."""
    return [
        Row(metric.label.format(L=L), metric.note, [_cell(metric, network.metrics, L) for network in networks])
        for metric in metrics.METRICS
        if metric.label and metric.group == group and bool(metric.note) == noted
    ]


def _cell(metric: metrics.Metric, values: dict[str, Any], L: int) -> tuple[str, str]:
    if metric.name not in values:
        return "", metric.missing.format(L=L)
    value, *interval = (_unbroken(metric.show(values[key])) for key in metric.keys)
    return value, " – ".join(interval)


def _unbroken(text: str) -> str:
    """A number and its unit on one line."""
    return text.replace(" ", "\u00a0")


def intervals(cnn: Network, ctc: Network, alphabet: str) -> list[Interval]:
    """The lines of the interval chart: exact match on all captchas and on parts of them."""

    def line(label: str, network: Network, metrics: dict[str, Any], name: str = "exact") -> Interval:
        value, low, high = (100 * metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        return Interval(label, network.kind, value, low, high, metrics["n"])

    lines = [line("all", network, network.metrics) for network in (cnn, ctc)]
    lines.append(line("told the length", ctc, ctc.metrics, "exact_of_length"))
    for part in parts(alphabet):
        exact = [(network, network.details[part.key]) for network in (cnn, ctc)]
        lines += [line(part.label, network, values) for network, values in exact if values["n"]]
    return lines


def captcha_image(image: np.ndarray, truth: str, *predictions: Prediction) -> dict[str, Any]:
    """A captcha uint8 (H, W, C), its text and its predictions."""
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return {"png": png(pixels), "truth": truth, "predictions": [marked(truth, found) for found in predictions]}


def marked(truth: str, found: Prediction) -> dict[str, Any]:
    """A prediction, character by character: which one it is and whether it is right."""
    letters = [(read or "·", true == read) for true, read in align(truth, found.text)]
    return {"letters": letters, "confidence": found.confidence, "right": truth == found.text}


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file.

    Raises:
        UserError: the file is missing.
    """
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.") from None


def png(image: Image.Image) -> str:
    """An image as a data URI; of colours, the 256 that matter most."""
    content = io.BytesIO()
    (image if image.mode == "L" else image.convert("RGB").quantize()).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def embed(path: Path) -> str:
    """A PNG file as a data URI.

    Raises:
        UserError: the file is missing.
    """
    try:
        with Image.open(path) as image:
            return png(image)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with `dvc repro`.") from None


def _embedded(project: Project, name: str) -> dict[Kind, str]:
    kinds: tuple[Kind, ...] = ("ctc",) if name == "ctc_output" else KINDS
    return {kind: embed(project.report(kind) / "plots" / f"{name}.png") for kind in kinds}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=2: _unbroken(metrics.percent(share, digits))
    environment.filters["whole"] = metrics.whole
    return environment


def results_table(project: Project, kinds: Sequence[Kind] = KINDS) -> str:
    """The README's table of results, in Markdown, from the files of reports/ and, where it is of them, seeds.json."""
    columns = [metric for metric in metrics.METRICS if metric.heading]
    tested = {kind: files.read_json(project.report(kind) / "metrics.json") for kind in kinds}
    runs = seeds.load(project.seeds, tested) if set(kinds) == set(KINDS) else []
    exact = seeds.by_kind(runs)
    headings = ["network", *(metric.heading for metric in columns), "training", "trained on"]
    headings += [f"over {len(exact['cnn'])} seeds (mean ± standard deviation)"] if runs else []
    rows = [headings, ["---"] * len(headings)]
    for kind, values in tested.items():
        timing = files.read_json(project.report(kind) / "timing.json")
        minutes = f"{timing['train_min']:.1f} + {timing['finetune_min']:.1f} min"
        cells = [_markdown(metric, values) for metric in columns]
        luck = [seeds.show(seeds.spread(exact[kind]))] if runs else []
        rows.append([kind.upper(), *cells, minutes, timing["trained_on"], *luck])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("| --- ", "|---").replace("--- |", "---|")


def _markdown(metric: metrics.Metric, values: dict[str, Any]) -> str:
    if metric.name not in values:
        return "–"
    value, *interval = (metric.show(values[key]) for key in metric.keys)
    return f"**{value}** ({' – '.join(end.removesuffix(' %') for end in interval)})" if interval else value
