"""A workspace as the chain leaves it, small: networks that are exported for real, with chosen predictions."""

import csv
import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx

from captchalab import files, params
from captchalab.data import dataset
from captchalab.evaluation import metrics
from captchalab.params import Params
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.reading.decoding import Prediction
from captchalab.reading.sealing import PLACEHOLDER, seal
from captchalab.tracking import relocation
from captchalab.training.journal import HISTORY, Journal

N = 200  # test captchas
counter = itertools.count()


def make(root: Path, text: str, database: Path) -> Project:
    """A project without networks: parameters, a test split, an empty MLflow store."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(text)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "dvc.lock").write_text("stages: {generate@test: {outs: [{path: data/test, md5: 123.dir}]}}\n")
    (root / "mlruns").mkdir()
    shutil.copyfile(database, root / "mlruns" / "mlflow.db")
    relocation.relocate(root / "mlruns")
    captcha = params.load(root / "params.yaml").captcha
    dataset.generate(captcha, "test", params.SplitParams(images=N), 7, root / "data" / "test", workers=1)
    return Project(root)


def export_untrained(params: Params, kind: Kind, project: Project) -> Path:
    """An untrained network, saved and exported for real: the project's models/<kind>."""
    from captchalab.networks import backend

    backend.start(1)
    from captchalab.networks import export, models

    model = project.model(kind)
    models.save(models.build(kind, params.captcha, params.network(kind)), model)
    export.export(model, project.split("test"), project.export(kind))
    return project.models / kind


def put(project: Project, kind: Kind, model: Path, right: int, val_exact: float = 0.5, name: str = "") -> None:
    """A fine-tuned network in the workspace whose predictions of the first `right` test captchas are right.

    Args:
        model: models/<kind> of `export_untrained`; each call makes another network of it.
    """
    number = next(counter)
    for stage in params.STAGES:
        folder = project.stage(kind, stage)
        shutil.rmtree(folder, ignore_errors=True)
        about = {
            "name": f"{kind} {stage}",
            "kind": kind,
            "stage": stage,
            "experiment": "tests",
            "device": "a CPU",
            "params": {"learning_rate": 1e-3 if stage == "train" else 1e-4, "conv_depth": 1, "seed": 7},
            "tags": {"kind": kind, "stage": stage, "git_sha": "abc", "name": name},
        }
        journal = Journal.begin(folder, about)
        row = {**dict.fromkeys(HISTORY, 0.5), "epoch": 1, "step": 8, "images_seen": 64}
        journal.add(row, 2.0, 64)
        journal.end({"stopped": "all epochs", "best_epoch": 1, "best": {"val/exact": val_exact, "val/loss": 1.0}})
        (folder / "model.keras").write_bytes(
            (model / "finetune" / "model.keras").read_bytes() + f"{stage} {number}".encode()
        )
    shutil.rmtree(project.export(kind), ignore_errors=True)
    shutil.copytree(model / "export", project.export(kind))
    exported = onnx.load(project.onnx(kind))
    about = {p.key: p.value for p in exported.metadata_props} | {"network_md5": files.md5(project.model(kind))}
    sealed = "digest" in about  # as `export` writes it; the guesser's file carries none
    onnx.helper.set_model_props(exported, about | ({"digest": PLACEHOLDER} if sealed else {}))
    content = exported.SerializeToString()
    project.onnx(kind).write_bytes(seal(content) if sealed else content)
    put_reports(project, kind, right)


def put_reports(project: Project, kind: Kind, right: int) -> None:
    labels = np.load(project.split("test") / "labels.npy")
    truths = dataset.SplitData(labels, labels, files.read_json(project.split("test") / "meta.json")).texts()
    predictions = [truth if i < right else "" for i, truth in enumerate(truths)]
    project.report(kind).mkdir(parents=True, exist_ok=True)
    with (project.report(kind) / "predictions.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("index", "truth", "prediction", "confidence"))
        rows.writerows((i, t, p, 0.5) for i, (t, p) in enumerate(zip(truths, predictions, strict=True)))
    evaluated = metrics.Evaluated(
        kind,
        truths,
        [Prediction(text=text, confidence=0.5) for text in predictions],
        of_length=None,
        parameters=7,
        model_bytes=1000,
        images_seen=128,
    )
    files.write_json(project.report(kind) / "metrics.json", metrics.measure(evaluated))
    files.write_json(
        project.report(kind) / "timing.json", {"train_min": 1.0, "finetune_min": 0.5, "trained_on": "a CPU"}
    )
