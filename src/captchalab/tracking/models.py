"""A fine-tuned network in MLflow: its test metrics on its run, and its ONNX file as a logged model."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captchalab import files
from captchalab.evaluation import metrics
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.tracking import origin, packaging
from captchalab.tracking.runs import find_run, log_split, sync
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal


def log_test(project: Project, kind: Kind, store: Store, again: bool = True) -> str:
    """Log a fine-tuned network's test metrics, plots and model on its run; returns the model's id.

    The metrics are those of `evaluation.metrics`; they belong to the model too, and to the test split by DVC's md5.

    Args:
        again: also where the run has test metrics already, for the model that is in the workspace.

    Raises:
        UserError: a file of the network or of its report is missing.
    """
    from mlflow.entities import Metric

    run_id = sync(project.stage(kind, "finetune"), store)
    client = store.client()
    run = client.get_run(run_id)
    onnx = project.onnx(kind)
    model = next(iter(_with_file(logged_models(client, run), [onnx])), None)
    if not again and model and any(metric.key == "test/exact" for metric in model.metrics or ()):
        return str(model.model_id)
    project.check_network(kind)
    figures = files.read_json(project.report(kind) / "metrics.json")
    timing = files.read_json(project.report(kind) / "timing.json")
    named = {name: figures[key] for key, name in metrics.logged_names().items() if key in figures}
    named["network/minutes"] = timing["train_min"] + timing["finetune_min"]
    trained = Journal(project.stage(kind, "train"))
    client.log_param(run_id, "train/learning_rate", str(trained.about["params"]["learning_rate"]))
    if train_run_id := find_run(client, trained):  # in this store; the tag may come from another
        client.set_tag(run_id, "train_run_id", train_run_id)
    client.log_artifacts(run_id, str(project.report(kind)), "test")
    md5 = origin.data_md5(project).get("test")
    log_split(client, run_id, "test", md5)
    if model is None:
        model_id = _log_model(client, run, project, kind)
    else:
        model_id = str(model.model_id)
        with tempfile.TemporaryDirectory() as folder:  # the test split may be another one
            packaging.write_test(project, kind, Path(folder))
            client.log_model_artifacts(model_id, folder)
    now = int(datetime.now(UTC).timestamp() * 1000)
    on = {"dataset_name": "test", "dataset_digest": md5} if md5 else {}
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, round(value, 5), now, 0, model_id=model_id, run_id=run_id, **on)  # the table shows all digits
            for key, value in named.items()
        ],
    )
    return model_id


def model_of(client: Any, run: Any, project: Project) -> str | None:
    """The id of a run's logged model; of several, since export ran again, the one whose ONNX file is the workspace's.

    Where none is, as for a run of another day, the newest.
    """
    models = logged_models(client, run)
    chosen = _with_file(models, [project.onnx(kind) for kind in KINDS]) or models
    return str(chosen[0].model_id) if chosen else None


def logged_models(client: Any, run: Any) -> list[Any]:
    """A run's models that are complete, the newest first: MLflow promises no order for a run's outputs."""
    found = client.search_logged_models(
        [run.info.experiment_id],
        f"source_run_id = '{run.info.run_id}'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
    )
    return [model for model in found if str(model.status) == "READY"]


def _with_file(models: list[Any], onnx: list[Path]) -> list[Any]:
    """Those models whose ONNX file is one of these."""
    here = {files.md5(path) for path in onnx if path.exists()}
    return [model for model in models if model.tags.get("onnx_md5") in here]


def _log_model(client: Any, run: Any, project: Project, kind: Kind) -> str:
    from mlflow.entities import LoggedModelOutput

    tags = {"kind": kind, "onnx_md5": files.md5(project.onnx(kind))}
    model = client.create_logged_model(
        run.info.experiment_id, f"captcha-{kind}", run.info.run_id, tags, run.data.params, "captcha reader"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        packaging.package(project, kind, folder, model.model_id, run.info.run_id)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")  # last: a model that is ready is complete
    return str(model.model_id)
