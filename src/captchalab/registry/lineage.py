"""From a model to all it comes from: run, parameters, git, data; and from a file to its run.

    captchalab lineage models/ctc/finetune/model.keras
    captchalab lineage models:/captcha@champion

A stage's run id lies beside its model (run.json, an out of DVC's): a stage that was cached or taken
from the run-cache still leads to the run that made the file. A copy elsewhere is found by its md5.
"""

from pathlib import Path
from typing import Any

from captchalab import files
from captchalab.errors import UserError
from captchalab.evaluation import metrics
from captchalab.project import Project
from captchalab.reading import predictor
from captchalab.registry.registry import Registry
from captchalab.registry.versions import NAME, Version
from captchalab.tracking import models, runs
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal

PARAMS = ("learning_rate", "train/learning_rate", "conv_depth", "rnn_size", "batch_size", "seed", "images_at_most")
METRICS = (*metrics.headline("test"), "best/val/exact", *metrics.headline("network"))
TAGS = (
    "git_sha",
    "git_dirty",
    "dvc_stage",
    "dvc_exp_name",
    "data_md5_train",
    "data_md5_valid",
    "data_md5_test",
    "device",
)


def trace(project: Project, store: Store, start: str) -> dict[str, Any]:
    """What a file, a registered version or a run comes from, nearest first.

    Args:
        start: a model.keras, a model.onnx, `models:/captcha/3`, `models:/captcha@champion`, or a run's id.

    Raises:
        UserError: there is no such thing, or no run that made it.
    """
    registry = Registry(project, store)
    path = Path(start)
    if start.startswith("models:/"):
        run_id = registry.find(start).run_id
    elif path.exists():
        run_id = _run_of_file(registry.client, store, path)
    elif path.suffix or "/" in start:
        raise UserError(f"{start} is missing: name a model's file, models:/{NAME}/VERSION, or a run's id.")
    else:
        run_id = start
    run = _run(registry.client, store, run_id)
    found = {
        "start": start,
        "versions": [_called(version) for version in registry.versions() if version.run_id == run_id],
        "model": models.model_of(registry.client, run, project),
        "run": {"id": run_id, "name": run.info.run_name, "status": run.info.status},
        "trained from": run.data.tags.get("train_run_id"),
        "params": {key: run.data.params[key] for key in PARAMS if key in run.data.params},
        "metrics": {key: run.data.metrics[key] for key in METRICS if key in run.data.metrics},
        "origin": {key: run.data.tags[key] for key in TAGS if key in run.data.tags},
        "inputs": {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs},
    }
    return {key: value for key, value in found.items() if value}


def lines(found: dict[str, Any]) -> str:
    """What `trace` found, a thing per line."""
    rows = []
    for key, value in found.items():
        if isinstance(value, dict):
            rows += [(key if i == 0 else "", f"{name} {inner}") for i, (name, inner) in enumerate(value.items())]
        else:
            rows.append((key, ", ".join(value) if isinstance(value, list) else str(value)))
    return "\n".join(f"{key:<14}{value}" for key, value in rows)


def _called(version: Version) -> str:
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    forced = f" (forced: {version.tags['forced']})" if "forced" in version.tags else ""
    return f"{version.name}{aliases}{forced}"


def _run(client: Any, store: Store, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"{run_id} is no run of {store}: name one that exists, or log the workspace's with `captchalab sync`."
        ) from None


def _run_of_file(client: Any, store: Store, path: Path) -> str:
    """The run that made a file: the one recorded beside it, or one whose model has the same md5."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file in it, model.keras or model.onnx.")
    md5 = predictor.load(path).network_md5 if path.suffix == ".onnx" else files.md5(path)
    beside = path.parent if path.suffix == ".keras" else path.parent.parent / "finetune"
    if (beside / "journal.json").exists():
        run_id = runs.find_run(client, Journal(beside))
        # the run says what it made: the file may have been replaced or damaged since
        if run_id and client.get_run(run_id).data.tags.get("model_md5") == md5:
            return run_id
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.model_md5 = '{md5}'", max_results=1)
    if not found:
        raise UserError(
            f"No run in {store} has made {path} (md5 {md5}): if it is the workspace's, log it with `captchalab sync`."
        )
    return str(found[0].info.run_id)
