"""A training stage as a run in MLflow, written from the stage's journal.

`RunWriter.update()` logs what the journal has and the run has not; it may be called at any time, any
number of times. While a stage trains, `Background` calls it in a thread of its own: training never waits
for MLflow, and a store that is unreachable costs a warning. `captchalab sync` logs the run later.

The step of a metric is the number of captchas the network has seen, over both stages. The run of a
fine-tuned network begins with the epochs of stage 1: one row of MLflow's table has the network's whole curve.
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
from captchalab.errors import UserError
from captchalab.params import SPLITS
from captchalab.tracking.curve import Point, continues, curve
from captchalab.tracking.store import Store, attempt, experiment_id
from captchalab.training.journal import FILES, Journal

SYSTEM_EVERY_S = 10.0
BATCH = 1000  # metrics that MLflow takes in one call


class RunWriter:
    """One journal and its run.

    Args:
        journal: the stage's own.
        store: where the run is.
        stage_1: where a journal of stage 1 may be; used where it is the one that `journal` continues.
    """

    def __init__(self, journal: Journal, store: Store, stage_1: Journal | None = None) -> None:
        self.journal, self.store = journal, store
        self.stage_1 = stage_1 if stage_1 and continues(journal, stage_1) else None
        self.run_id: str | None = None
        self.logged_steps: set[int] = set()
        self.monitor: Any = None
        self.client: Any = None

    def update(self) -> str:
        """Log every epoch that the run does not have yet; returns the run's id."""
        if self.client is None:
            self.client = self.store.client()
        if self.run_id is None:
            self.run_id = find_run(self.client, self.journal) or self._create()
            if self.journal.run_id != self.run_id:
                files.write_json(self.journal.folder / "run.json", {"run_id": self.run_id})
            self.logged_steps = {metric.step for metric in self.client.get_metric_history(self.run_id, "val/loss")}
            self.client.update_run(self.run_id, status="RUNNING")
        new = [point for point in self._curve() if point.images_seen not in self.logged_steps]
        self._log(new)
        self.logged_steps |= {point.images_seen for point in new}
        return self.run_id

    def end(self, status: str) -> None:
        """The best epoch's metrics, the artifacts, and how and when the stage ended."""
        from captchalab.evaluation import plots

        run_id = self.update()
        about = self.journal.about
        ended: int | None = None  # now
        if outcome := about.get("outcome"):
            best = {f"best/{key}": value for key, value in outcome["best"].items() if key.startswith("val/")}
            timing = files.read_json(self.journal.folder / "timing.json")
            totals = {"best/epoch": outcome["best_epoch"], "train_min": timing["train_s"] / 60}
            self._log([self._curve()[-1]._replace(metrics={**best, **totals})])
            self.client.set_tag(run_id, "stopped", outcome["stopped"])
            histories = {part.about["stage"]: [e.figures for e in part.epochs()] for part in self._parts()}
            with files.atomic_write(self.journal.folder / "curves.png") as plot:
                plots.curves(histories, about["kind"], plot)
            self.client.log_artifact(run_id, str(self.journal.folder / "curves.png"), "plots")
            ended = _ms(self.journal.ended_at)  # not now: a run may be synced long after
        for name in FILES:
            self.client.log_artifact(run_id, str(self.journal.folder / name), "journal")
        model = self.journal.folder / "model.keras"
        if model.exists():
            self.client.log_artifact(run_id, str(model), "model")
            self.client.set_tag(run_id, "model_md5", files.md5(model))  # `lineage` finds a copy's run by it
        self.client.set_terminated(run_id, status, end_time=ended)

    def start_monitor(self) -> None:
        """Log CPU, memory, disk, network and GPU of this machine as metrics of the run."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.monitor = SystemMetricsMonitor(
            self.run_id, sampling_interval=SYSTEM_EVERY_S, resume_logging=True, tracking_uri=self.store.uri
        )
        self.monitor.start()

    def stop_monitor(self) -> None:
        if self.monitor is not None:
            self.monitor.finish()
            self.monitor = None

    def _parts(self) -> list[Journal]:
        return [self.stage_1, self.journal] if self.stage_1 else [self.journal]

    def _curve(self) -> list[Point]:
        return curve([part.epochs() for part in self._parts()])

    def _create(self) -> str:
        from mlflow.entities import Param

        about = self.journal.about
        experiment = experiment_id(self.client, self.store, about["experiment"])
        tags = {
            **about["tags"],
            "journal_id": about["id"],
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": f"captchalab {about['stage']} {about['kind']}",
        }
        run = self.client.create_run(experiment, _ms(about["started_at"]), tags, run_name(about))
        run_id = str(run.info.run_id)
        params = [Param(key, str(value)) for key, value in about["params"].items()]
        self.client.log_batch(run_id, params=params)
        for split in SPLITS[:2]:
            log_split(self.client, run_id, split, about["tags"].get(f"data_md5_{split}"))
        return run_id

    def _log(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, _ms(point.ended_at), point.images_seen)
            for point in points
            for key, value in point.metrics.items()
        ]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])


class Background:
    """Logs a journal in a thread of its own while it grows; a store that is unreachable costs one warning.

    Args:
        store: where the run is.
        stage_1: as for `RunWriter`.
    """

    def __init__(self, store: Store, stage_1: Journal | None = None) -> None:
        self.store, self.stage_1 = store, stage_1
        self.thread = ThreadPoolExecutor(1, "mlflow")
        self.warned = False

    def begin(self, journal: Journal) -> None:
        self.writer = RunWriter(journal, self.store, self.stage_1)
        self._do(lambda: self.writer.update())
        self._do(lambda: self.writer.start_monitor())

    def epoch(self) -> None:
        self._do(lambda: self.writer.update())

    def end(self, status: str) -> None:
        self._do(lambda: self.writer.stop_monitor())
        self._do(lambda: self.writer.end(status))
        self.thread.shutdown()

    def _do(self, action: Callable[[], object]) -> None:
        def first_warning_only() -> None:
            self.warned = not attempt(self.store, action, quiet=self.warned) or self.warned

        self.thread.submit(first_warning_only)


def find_run(client: Any, journal: Journal) -> str | None:
    """The run of a journal: the one it names, or one tagged with its id."""
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


def sync(folder: Path, store: Store, weights: bool = True) -> str:
    """Log a finished stage in models/<kind>/<stage>, or what its run lacks of it; returns the run's id.

    Args:
        weights: its model.keras too; results/ keeps none of stage 1.

    Raises:
        UserError: a file of the stage is missing.
    """
    client = store.client()
    run_id = find_run(client, Journal(folder))
    if run_id and client.get_run(run_id).info.status == "FINISHED":
        return run_id
    with tempfile.TemporaryDirectory() as copy:  # the stage's own files are DVC's, and read-only
        for name in ("model.keras", *FILES) if weights else FILES:
            if not (folder / name).exists():
                raise UserError(f"{folder / name} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.")
            shutil.copyfile(folder / name, Path(copy) / name)
        journal = Journal(Path(copy))
        stage_1 = Journal(folder.parent / "train") if journal.about["stage"] == "finetune" else None
        writer = RunWriter(journal, store, stage_1)
        writer.end("FINISHED")
        assert writer.run_id
        return writer.run_id


def run_name(about: dict[str, Any]) -> str:
    """What a run is, in as few words as a chart's legend has room for."""
    params, tags = about["params"], about["tags"]
    rnn = f" rnn {params['rnn_size']}" if "rnn_size" in params else ""
    experiment = f" {tags['dvc_exp_name']}" if "dvc_exp_name" in tags else ""
    return f"{about['name']}{rnn} depth {params['conv_depth']} lr {params['learning_rate']:g}{experiment}"


def log_split(client: Any, run_id: str, split: str, md5: str | None) -> None:
    """A split as an input of a run; its digest is DVC's md5 (MLflow's own covers the first rows alone)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if md5:
        source = files.to_json({"uri": f"data/{split}"})
        dataset = Dataset(name=split, digest=md5, source_type="local", source=source)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", split)])])


def _ms(at: str) -> int:
    """An ISO time in milliseconds since 1970, as MLflow has it."""
    return int(datetime.fromisoformat(at).astimezone(UTC).timestamp() * 1000)
