"""One fine-tuned network on the test split: predictions, metrics, plots.

    captchalab evaluate cnn       10,000 images; about 25 s on two cores

Writes reports/<kind>/: metrics.json (the list in `metrics`), details.json (by position, character,
confidence), confusions.csv, predictions.csv, timing.json and plots/*.png. Training never reads the test
split, so nothing it chooses depends on it; after training `export` checks ONNX against Keras on it.
"""

import csv
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from captchalab import files
from captchalab.data import dataset
from captchalab.evaluation import metrics, plots
from captchalab.evaluation.analysis import confuse, detail
from captchalab.networks import backend, models
from captchalab.params import STAGES, EvaluateParams
from captchalab.project import Project
from captchalab.reading import decoding
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.reading.decoding import Prediction
from captchalab.training.journal import read_history


def evaluate(kind: Kind, captcha: CaptchaParams, params: EvaluateParams, project: Project) -> dict[str, float]:
    """Test a network; returns the content of metrics.json.

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
    predictions = decoding.greedy(kind, logits, captcha.alphabet)
    seconds = time.perf_counter() - started

    truths = data.texts()
    told_length = (
        decoding.exact_length(logits, captcha.alphabet, captcha.length, params.beam_width) if kind == "ctc" else None
    )
    measured = metrics.measure(
        metrics.Evaluated(
            kind,
            truths,
            predictions,
            told_length,
            parameters=network.model.count_params(),
            model_bytes=model.stat().st_size,
            images_seen=sum(int(rows[-1]["images_seen"]) for rows in histories.values()),
        )
    )
    details = detail(truths, predictions, captcha)
    confusions = confuse(truths, [found.text for found in predictions])

    with files.atomic_write(project.report(kind)) as out:
        (out / "plots").mkdir(parents=True)
        files.write_json(out / "metrics.json", measured)
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
        rows = ((i, t, p.text, f"{p.confidence:.6f}") for i, (t, p) in enumerate(zip(truths, predictions, strict=True)))
        write_csv(out / "predictions.csv", ("index", "truth", "prediction", "confidence"), rows)
        pairs = ((t, p, count) for (t, p), count in confusions)
        write_csv(out / "confusions.csv", ("truth", "prediction", "count"), pairs)
        draw(kind, captcha, params, network, data, logits, predictions, details, confusions, histories, out / "plots")
    return measured


def draw(
    kind: Kind,
    captcha: CaptchaParams,
    params: EvaluateParams,
    network: models.Network,
    data: dataset.SplitData,
    logits: np.ndarray,
    predictions: list[Prediction],
    details: dict[str, Any],
    confusions: list[tuple[tuple[str, str], int]],
    histories: dict[str, list[dict[str, float]]],
    out: Path,
) -> None:
    """The images of plots/."""
    truths = data.texts()
    wrong = [i for i, (truth, found) in enumerate(zip(truths, predictions, strict=True)) if truth != found.text]
    worst = sorted(wrong, key=lambda i: -predictions[i].confidence)[: params.grid_images]
    doubtful = sorted(range(len(predictions)), key=lambda i: predictions[i].confidence)[: params.grid_images]
    plots.curves(histories, kind, out / "curves.png")
    plots.confusions(dict(confusions), captcha.alphabet, out / "confusions.png")
    plots.accuracies(details["by_position"], details["by_character"], out / "accuracies.png")
    plots.reliability(details["reliability"], details["calibration_error"], out / "reliability.png")
    for rows, title, name in (
        (worst, "Wrong, and most confident", "worst.png"),
        (doubtful, "Least certain", "doubtful.png"),
    ):
        shown = [plots.Shown(data.images[i], truths[i], predictions[i].text, predictions[i].confidence) for i in rows]
        plots.image_grid(shown, title, out / name)
    plots.network(
        models.layer_table(network.model),
        f"{kind}: {network.model.count_params():,} parameters",
        out / "network.png",
    )
    if kind == "ctc":
        right = [i for i, (truth, found) in enumerate(zip(truths, predictions, strict=True)) if truth == found.text]
        few = [*worst[:2], *right[:2]]
        probabilities = np.exp(decoding.log_softmax(logits[few]))
        shown = [plots.Shown(data.images[i], truths[i], predictions[i].text, predictions[i].confidence) for i in few]
        plots.ctc_output(shown, probabilities, captcha.alphabet, out / "ctc_output.png")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())
