"""One fine-tuned network on the test split: predictions, figures, pictures.

    captchalab evaluate cnn       10,000 images; about 25 s on two cores

Writes reports/<kind>/: metrics.json (the figures to compare), details.json (by position, character,
confidence), confusions.csv, predictions.csv, timing.json and plots/*.png. The test split is looked
at here and nowhere else: no choice during training depends on it.
"""

import csv
import io
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from captchalab import files, statistics
from captchalab.data import dataset
from captchalab.evaluation import plots
from captchalab.networks import backend, models
from captchalab.params import STAGES, EvaluateParams
from captchalab.project import Project
from captchalab.reading import decoding
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.reading.decoding import Prediction
from captchalab.training.journal import read_history

CONFUSABLE = "0O"  # 20 % of all captchas of four from 36 classes hold one of these


def evaluate(kind: Kind, captcha: CaptchaParams, params: EvaluateParams, project: Project) -> dict[str, float]:
    """Test a network; returns the figures of metrics.json.

    Raises:
        UserError: the model or the split is missing, or they do not fit params.yaml.
    """
    device = backend.start()
    data = dataset.load(project.split("test"), captcha)
    model = project.model(kind)
    network = models.load(model)
    histories: dict[str, list[dict[str, float]]] = {
        stage: read_history(project.stage(kind, stage) / "history.csv") for stage in STAGES
    }
    images = np.asarray(data.images)
    network.logits(images[: params.batch_size], params.batch_size)  # compiles; the clock starts after it
    started = time.perf_counter()
    logits = network.logits(images, params.batch_size)
    reads = decoding.greedy(kind, logits, captcha.alphabet)
    seconds = time.perf_counter() - started

    truths = data.texts()
    predictions = [found.text for found in reads]
    metrics = {
        **statistics.exact(truths, predictions).as_metrics("exact"),
        "cer": statistics.cer(truths, predictions),
        "parameters": network.model.count_params(),
        "model_bytes": model.stat().st_size,
        "images_seen": sum(int(rows[-1]["images_seen"]) for rows in histories.values()),
    }
    if kind == "ctc":
        fitted = decoding.exact_length(logits, captcha.alphabet, captcha.length, params.beam_width)
        of_length = statistics.exact(truths, [found.text for found in fitted]).as_metrics("exact_of_length")
        metrics |= {key: value for key, value in of_length.items() if key != "n"}
    details = detail(truths, reads, captcha)
    confusions = confuse(truths, predictions)

    with files.atomic_write(project.report(kind)) as out:
        (out / "plots").mkdir(parents=True)
        files.write_json(out / "metrics.json", metrics)
        files.write_json(out / "details.json", details)
        training = {stage: files.read_json(project.stage(kind, stage) / "timing.json") for stage in STAGES}
        files.write_json(
            out / "timing.json",
            {
                "device": device.name,
                "test_images_per_s": round(len(images) / seconds, 1),
                "trained_on": training["train"]["device"],
                **{f"{stage}_min": round(timing["train_s"] / 60, 1) for stage, timing in training.items()},
            },
        )
        rows = ((i, t, r.text, f"{r.confidence:.6f}") for i, (t, r) in enumerate(zip(truths, reads, strict=True)))
        write_csv(out / "predictions.csv", ("index", "truth", "prediction", "confidence"), rows)
        pairs = ((t, p, count) for (t, p), count in confusions)
        write_csv(out / "confusions.csv", ("truth", "prediction", "count"), pairs)
        draw(kind, captcha, params, network, data, logits, reads, details, confusions, histories, out / "plots")
    return metrics


def detail(truths: list[str], reads: list[Prediction], captcha: CaptchaParams) -> dict[str, Any]:
    """Exact match by position, by character, with and without 0/O, and by confidence.

    A character counts as read where a shortest edit pairs it with itself.
    """
    places = [[0, 0] for _ in range(captcha.length)]  # right, all
    characters = {char: [0, 0] for char in captcha.alphabet}
    for truth, found in zip(truths, reads, strict=True):
        pairs = [pair for pair in statistics.align(truth, found.text) if pair[0]]
        for place, (true, predicted) in enumerate(pairs):
            for counter in (places[place], characters[true]):
                counter[0] += true == predicted
                counter[1] += 1
    right = [truth == found.text for truth, found in zip(truths, reads, strict=True)]
    bins = statistics.reliability([found.confidence for found in reads], right)
    details: dict[str, Any] = {
        "by_position": [statistics.wilson(*counter).as_metrics("accuracy") for counter in places],
        "by_character": {
            char: statistics.wilson(*counter).as_metrics("accuracy") for char, counter in characters.items()
        },
        "calibration_error": statistics.calibration_error(bins),
        "reliability": [
            {"low": b.low, "high": b.high, "confidence": b.confidence, **b.exact.as_metrics("exact")} for b in bins
        ],
    }
    if set(CONFUSABLE) <= set(captcha.alphabet):
        for name, wanted in (("with_0_or_O", True), ("without_0_or_O", False)):
            chosen = [r for truth, r in zip(truths, right, strict=True) if bool(set(truth) & set(CONFUSABLE)) == wanted]
            details[name] = statistics.wilson(sum(chosen), len(chosen)).as_metrics("exact")
    return details


def confuse(truths: list[str], predictions: list[str]) -> list[tuple[tuple[str, str], int]]:
    """Wrong pairs (true, predicted) and how often, most first; "" where one is missing."""
    wrong = Counter(
        pair for t, p in zip(truths, predictions, strict=True) for pair in statistics.align(t, p) if pair[0] != pair[1]
    )
    return sorted(wrong.items(), key=lambda item: (-item[1], item[0]))


def draw(
    kind: Kind,
    captcha: CaptchaParams,
    params: EvaluateParams,
    network: models.Network,
    data: dataset.SplitData,
    logits: np.ndarray,
    reads: list[Prediction],
    details: dict[str, Any],
    confusions: list[tuple[tuple[str, str], int]],
    histories: dict[str, list[dict[str, float]]],
    out: Path,
) -> None:
    """The pictures of plots/."""
    truths = data.texts()
    wrong = [i for i, (truth, found) in enumerate(zip(truths, reads, strict=True)) if truth != found.text]
    worst = sorted(wrong, key=lambda i: -reads[i].confidence)[: params.pictures]
    doubtful = sorted(range(len(reads)), key=lambda i: reads[i].confidence)[: params.pictures]
    plots.curves(histories, kind, out / "curves.png")
    plots.confusions(dict(confusions), captcha.alphabet, out / "confusions.png")
    plots.accuracies(details["by_position"], details["by_character"], out / "accuracies.png")
    plots.reliability(details["reliability"], details["calibration_error"], out / "reliability.png")
    for rows, title, name in (
        (worst, "Wrong, and most confident", "worst.png"),
        (doubtful, "Least certain", "doubtful.png"),
    ):
        shown = [plots.Shown(data.images[i], truths[i], reads[i].text, reads[i].confidence) for i in rows]
        plots.sheet(shown, title, out / name)
    plots.network(
        models.layer_table(network.model),
        f"{kind}: {network.model.count_params():,} parameters",
        out / "network.png",
    )
    if kind == "ctc":
        right = [i for i, (truth, found) in enumerate(zip(truths, reads, strict=True)) if truth == found.text]
        few = [*worst[:2], *right[:2]]
        probabilities = np.exp(decoding.log_softmax(logits[few]))
        shown = [plots.Shown(data.images[i], truths[i], reads[i].text, reads[i].confidence) for i in few]
        plots.ctc_output(shown, probabilities, captcha.alphabet, out / "ctc_output.png")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())
