"""The only room that imports mlflow for runs; it writes them from the journal.

`tell()` brings MLflow up to date with a journal and may be called at any time, any number of times.
While a stage trains, `Background` calls it in a thread of its own: training never waits for MLflow,
and a store that is away costs a warning. `captchalab sync` tells it later.
"""

import getpass
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captchalab import files
from captchalab.evaluation import metrics
from captchalab.params import SPLITS
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.tracking import origin, packaging
from captchalab.tracking.store import Store, attempt, experiment_id
from captchalab.training.journal import FILES, Journal

SYSTEM_EVERY_S = 10.0


class Telling:
    """One journal and the run that is told of it."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self.journal, self.store = journal, store
        self.run_id: str | None = None
        self.told_epochs = 0
        self.monitor: Any = None
        self.client: Any = None

    def tell(self) -> str:
        """Bring the run up to date with the journal; returns its id."""
        if self.client is None:
            self.client = self.store.client()
        if self.run_id is None:
            self.run_id = find_run(self.client, self.journal) or self._create()
            if self.journal.run_id != self.run_id:
                files.write_json(self.journal.folder / "run.json", {"run_id": self.run_id})
            told = self.client.get_metric_history(self.run_id, "val/loss")
            self.told_epochs = len(told)
            self.client.update_run(self.run_id, status="RUNNING")
        epochs = self.journal.epochs()
        for epoch in epochs[self.told_epochs :]:
            figures = {**epoch.figures, "train/images_per_s": epoch.images_per_s, "epoch_s": epoch.seconds}
            self._log(figures, int(epoch.figures["epoch"]), epoch.ended_at)
        self.told_epochs = len(epochs)
        return self.run_id

    def end(self, status: str) -> None:
        """The last figures, the artifacts, and how the run ended."""
        from captchalab.evaluation import plots

        run_id = self.tell()
        about = self.journal.about
        if outcome := about.get("outcome"):
            best = {f"best/{key}": value for key, value in outcome["best"].items() if key.startswith("val/")}
            timing = files.read_json(self.journal.folder / "timing.json")
            epochs = self.journal.epochs()
            totals = {
                "best/epoch": outcome["best_epoch"],
                "train_min": timing["train_s"] / 60,
            }
            self._log({**best, **totals}, len(epochs), epochs[-1].ended_at)
            self.client.set_tag(run_id, "stopped", outcome["stopped"])
            with files.atomic_write(self.journal.folder / "curves.png") as picture:
                plots.curves({about["stage"]: [epoch.figures for epoch in epochs]}, about["kind"], picture)
            self.client.log_artifact(run_id, str(self.journal.folder / "curves.png"), "plots")
        for name in FILES:
            self.client.log_artifact(run_id, str(self.journal.folder / name), "journal")
        model = self.journal.folder / "model.keras"
        if model.exists():
            self.client.log_artifact(run_id, str(model), "model")
            self.client.set_tag(run_id, "model_md5", files.md5(model))  # `lineage` finds a copy's run by it
        self.client.set_terminated(run_id, status)

    def watch_system(self) -> None:
        """CPU, memory, disk, network and GPU of this machine, as metrics of the run."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.monitor = SystemMetricsMonitor(
            self.run_id, sampling_interval=SYSTEM_EVERY_S, resume_logging=True, tracking_uri=self.store.uri
        )
        self.monitor.start()

    def unwatch_system(self) -> None:
        if self.monitor is not None:
            self.monitor.finish()
            self.monitor = None

    def _create(self) -> str:
        from mlflow.entities import Param

        about = self.journal.about
        experiment = experiment_id(self.client, self.store, about["experiment"])
        started = int(datetime.fromisoformat(about["started_at"]).timestamp() * 1000)
        tags = {
            **about["tags"],
            "journal_id": about["id"],
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": f"captchalab {about['stage']} {about['kind']}",
        }
        run = self.client.create_run(experiment, started, tags, run_name(about))
        run_id = str(run.info.run_id)
        params = [Param(key, str(value)) for key, value in about["params"].items()]
        self.client.log_batch(run_id, params=params)
        for split in SPLITS[:2]:
            log_split(self.client, run_id, split, about["tags"].get(f"data_md5_{split}"))
        return run_id

    def _log(self, figures: dict[str, float], step: int, at: str) -> None:
        from mlflow.entities import Metric

        ms = int(datetime.fromisoformat(at).timestamp() * 1000)
        skipped = ("epoch", "step")
        metrics = [Metric(key, value, ms, step) for key, value in figures.items() if key not in skipped]
        self.client.log_batch(self.run_id, metrics=metrics)


class Background:
    """Follows a journal in a thread of its own; a store that is away costs one warning."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.thread = ThreadPoolExecutor(1, "mlflow")
        self.warned = False

    def begin(self, journal: Journal) -> None:
        self.telling = Telling(journal, self.store)
        self._do(lambda: self.telling.tell())
        self._do(lambda: self.telling.watch_system())

    def epoch(self) -> None:
        self._do(lambda: self.telling.tell())

    def end(self, status: str) -> None:
        self._do(lambda: self.telling.unwatch_system())
        self._do(lambda: self.telling.end(status))
        self.thread.shutdown()

    def _do(self, action: Callable[[], object]) -> None:
        def first_warning_only() -> None:
            self.warned = not attempt(self.store, action, quiet=self.warned) or self.warned

        self.thread.submit(first_warning_only)


def find_run(client: Any, journal: Journal) -> str | None:
    """The run that was told of a journal: the one it names, or one tagged with its id."""
    from mlflow.exceptions import MlflowException

    if run_id := journal.run_id:
        try:
            return str(client.get_run(run_id).info.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiment = client.get_experiment_by_name(journal.about["experiment"])
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.journal_id = '{journal.about['id']}'")
    return found[0].info.run_id if found else None


def sync(folder: Path, store: Store) -> str:
    """Tell MLflow of a finished stage in models/<kind>/<stage> if it does not know it; its run's id."""
    journal = Journal(folder)
    client = store.client()
    if run_id := find_run(client, journal):
        return run_id
    with tempfile.TemporaryDirectory() as copy:  # the stage's own files are DVC's, and read-only
        for name in ("model.keras", *FILES):
            shutil.copyfile(folder / name, Path(copy) / name)
        telling = Telling(Journal(Path(copy)), store)
        telling.end("FINISHED")
        assert telling.run_id
        return telling.run_id


def run_name(about: dict[str, Any]) -> str:
    """What a run is, in as few words as a chart's legend has room for."""
    params, tags = about["params"], about["tags"]
    rnn = f" rnn {params['rnn_size']}" if "rnn_size" in params else ""
    experiment = f" {tags['dvc_exp_name']}" if "dvc_exp_name" in tags else ""
    return f"{about['name']}{rnn} depth {params['conv_depth']} lr {params['learning_rate']:g}{experiment}"


def log_split(client: Any, run_id: str, split: str, md5: str | None) -> None:
    """A split as an input of a run; its digest is DVC's md5 (MLflow's own looks at the first rows alone)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if md5:
        source = files.to_json({"uri": f"data/{split}"})
        dataset = Dataset(name=split, digest=md5, source_type="local", source=source)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", split)])])


def log_test(project: Project, kind: Kind, store: Store, again: bool = True) -> str:
    """A fine-tuned network's test figures, pictures and model, onto its run; the model's id.

    The metrics are those of `evaluation.metrics`; they hang on the model too, and on the test split by DVC's md5.

    Args:
        again: also where the run has test figures already.
    """
    from mlflow.entities import Metric

    run_id = sync(project.stage(kind, "finetune"), store)
    client = store.client()
    run = client.get_run(run_id)
    model_id = logged_model(run)
    if not again and model_id and "test/exact" in run.data.metrics:
        return model_id
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
    if model_id is None or client.get_logged_model(model_id).tags["onnx_md5"] != files.md5(project.onnx(kind)):
        model_id = _log_model(client, run, project, kind)
    else:
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


def logged_model(run: Any) -> str | None:
    """The id of the model a run has logged last."""
    outputs = run.outputs.model_outputs if run.outputs else []
    return str(outputs[-1].model_id) if outputs else None


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
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)
