"""The comparison: both networks on the same test captchas, as figures and as one page to look at.

    captchalab compare            a few seconds

Reads what `evaluate` left in reports/<kind>/. Writes reports/comparison.json (no times in it: the same
in every run) and reports/index.html, one file with all its pictures inside.
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

from captchalab import files, statistics
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind
from captchalab.reading.decoding import Prediction

NAMES: dict[Kind, str] = {"cnn": "CNN", "ctc": "CTC network"}
SIGNIFICANT = 0.05  # a p-value from here on shows no difference
COMPARED = ("exact", "exact_low", "exact_high", "cer", "parameters", "model_bytes", "images_seen")
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # percent between two lines of the interval chart
MOST_TICKS = 6
CHARTS = {
    "curves": "Training",
    "confusions": "Characters taken for others",
    "accuracies": "Right characters",
    "reliability": "Is it as sure as it should be?",
    "network": "Layers and shapes",
}
SHEETS = {
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
    reads: list[Prediction]
    confusions: dict[tuple[str, str], int]


class Contingency(NamedTuple):
    """Rows of the test split that both, only one, or neither of two networks reads right."""

    both_right: list[int]
    only_cnn: list[int]
    only_ctc: list[int]
    both_wrong: list[int]


class Interval(NamedTuple):
    """A line of the interval chart; shares in percent."""

    label: str
    kind: Kind
    value: float
    low: float
    high: float
    n: int


def compare(captcha: CaptchaParams, pictures: int, project: Project) -> dict[str, Any]:
    """Write comparison.json and index.html; returns the content of the former.

    Args:
        pictures: shown at most of each group of captchas.

    Raises:
        UserError: a file is missing, or a network was tested on another split.
    """
    data = dataset.load(project.split("test"), captcha)
    truths = data.texts()
    cnn, ctc = (load_network(kind, truths, project) for kind in KINDS)
    groups = contingency(truths, [r.text for r in cnn.reads], [r.text for r in ctc.reads])
    counts = [len(rows) for rows in groups]
    comparison: dict[str, Any] = {
        "n": len(truths),
        "cnn": figures(cnn),
        "ctc": figures(ctc),
        **dict(zip(Contingency._fields, counts, strict=True)),
        "mcnemar_p": statistics.mcnemar(counts[1], counts[2]),
        "better": better(counts[1], counts[2]),
    }
    shown = {
        name: [photo(data.images[i], truths[i], cnn.reads[i], ctc.reads[i]) for i in rows[:pictures]]
        for name, rows in groups._asdict().items()
        if name != "both_right"
    }
    lines = intervals(cnn, ctc)
    page = _environment().get_template("report.html.j2").render(
        comparison=comparison,
        headline=headline(comparison["better"]),
        verdict=verdict(*counts),
        networks=[cnn, ctc],
        names=NAMES,
        captcha=captcha,
        intervals=lines,
        ticks=ticks(min(line.low for line in lines), max(line.high for line in lines)),
        groups=groups,
        shown=shown,
        mistakes=mistakes(cnn.confusions, ctc.confusions),
        charts={title: _embedded(project, name) for name, title in CHARTS.items()},
        sheets={title: _embedded(project, name) for name, title in SHEETS.items()},
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


def figures(network: Network) -> dict[str, float]:
    """What comparison.json says of a network."""
    chosen = {key: network.metrics[key] for key in COMPARED}
    of_length = {key: value for key, value in network.metrics.items() if key.startswith("exact_of_length")}
    return {**chosen, **of_length}


def contingency(truths: Sequence[str], cnn: Sequence[str], ctc: Sequence[str]) -> Contingency:
    """Who reads which captcha."""
    groups = Contingency([], [], [], [])
    for i, (truth, a, b) in enumerate(zip(truths, cnn, ctc, strict=True)):
        groups[2 * (a != truth) + (b != truth)].append(i)
    return groups


def better(only_cnn: int, only_ctc: int) -> Kind | None:
    """The network that reads better, if chance alone does not explain the difference."""
    if statistics.mcnemar(only_cnn, only_ctc) >= SIGNIFICANT:
        return None
    return "cnn" if only_cnn > only_ctc else "ctc"


def headline(kind: Kind | None) -> str:
    return f"The {NAMES[kind]} reads better" if kind else "Neither network is shown to read better"


def verdict(both_right: int, only_cnn: int, only_ctc: int, both_wrong: int) -> str:
    """Who reads better, by how much, and how sure that is, in words."""
    n, apart = both_right + only_cnn + only_ctc + both_wrong, only_cnn + only_ctc
    # the one that reads more comes first
    (name, alone), (other, other_alone) = sorted(
        ((NAMES["cnn"], only_cnn), (NAMES["ctc"], only_ctc)), key=lambda network: -network[1]
    )
    rate, other_rate = (100 * (both_right + only) / n for only in (alone, other_alone))
    text = f"Of {n:,} test captchas the {name} reads {rate:.2f} %, the {other} {other_rate:.2f} %"
    if not apart:
        return f"{text}: {'they read the very same ones' if both_right else 'they read nothing yet'}."
    p = statistics.mcnemar(only_cnn, only_ctc)
    chance = "would hardly" if better(only_cnn, only_ctc) else "may well"
    return (
        f"{text}: {rate - other_rate:.2f} points apart. Only one of the two reads {apart:,} of them: the "
        f"{name} {alone:,}, the {other} {other_alone:,}. Were they equally good, chance {chance} split them "
        f"like that (McNemar's exact test, {'p < 0.0001' if p < 0.0001 else f'p = {p:.2g}'})."
    )


def intervals(cnn: Network, ctc: Network) -> list[Interval]:
    """The lines of the interval chart: exact match on all captchas and on parts of them."""

    def line(label: str, network: Network, metrics: dict[str, Any], name: str = "exact") -> Interval:
        value, low, high = (100 * metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        return Interval(label, network.kind, value, low, high, metrics["n"])

    lines = [line("all", network, network.metrics) for network in (cnn, ctc)]
    lines.append(line("told the length", ctc, ctc.metrics, "exact_of_length"))
    for key, label in (("with_0_or_O", "with 0 or O"), ("without_0_or_O", "without 0 and O")):
        parts = [(network, network.details.get(key)) for network in (cnn, ctc)]
        lines += [line(label, network, part) for network, part in parts if part and part["n"]]
    return lines


def ticks(low: float, high: float) -> list[float]:
    """At most six round percentages that enclose low..high."""
    for step in TICKS:
        first, last = np.floor(round(low / step, 6)), np.ceil(round(high / step, 6))
        if last - first < MOST_TICKS:
            break
    return [round(float(i * step), 1) for i in np.arange(first, max(last, first + 1) + 1)]


def mistakes(
    cnn: dict[tuple[str, str], int], ctc: dict[tuple[str, str], int], most: int = 10
) -> list[tuple[str, str, int, int]]:
    """The most frequent wrong pairs of both networks: true, read, by the CNN, by CTC."""
    pairs = {pair: (cnn.get(pair, 0), ctc.get(pair, 0)) for pair in cnn | ctc}
    ordered = sorted(pairs.items(), key=lambda item: (-sum(item[1]), item[0]))
    return [(*pair, *counts) for pair, counts in ordered[:most]]


def photo(image: np.ndarray, truth: str, *reads: Prediction) -> dict[str, Any]:
    """A captcha uint8 (H, W, C), its text and how it is read."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return {"png": png(picture), "truth": truth, "reads": [marked(truth, found) for found in reads]}


def marked(truth: str, found: Prediction) -> dict[str, Any]:
    """A reading, character by character: what stands there and whether it is right."""
    letters = [(read or "·", true == read) for true, read in statistics.align(truth, found.text)]
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
    """A picture as an address that holds it; of colours, the 256 that tell most."""
    content = io.BytesIO()
    (image if image.mode == "L" else image.convert("RGB").quantize()).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def embed(path: Path) -> str:
    """A PNG file as an address that holds it.

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
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f}\u00a0%"
    environment.filters["whole"] = lambda number: f"{number:,}"
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.1f}\u00a0MB"
    return environment


def results_table(project: Project) -> str:
    """The README's table of results, in Markdown, from the files of reports/."""
    rows = ["| network | exact match (95 % interval) | n | parameters | images seen | training | trained on |"]
    rows.append("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        metrics = files.read_json(project.report(kind) / "metrics.json")
        timing = files.read_json(project.report(kind) / "timing.json")
        share, low, high = (f"{100 * metrics[f'exact{end}']:.2f}" for end in ("", "_low", "_high"))
        rows.append(
            f"| {kind.upper()} | **{share} %** ({low} – {high}) | {metrics['n']:,} | {metrics['parameters']:,} | "
            f"{metrics['images_seen']:,} | {timing['train_min']:.1f} + {timing['finetune_min']:.1f} min | "
            f"{timing['trained_on']} |"
        )
    return "\n".join(rows)
