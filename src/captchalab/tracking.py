"""The only room that imports mlflow for runs; it writes them from the journal.

`tell()` brings MLflow up to date with a journal and may be called at any time, any number of times.
While a stage trains, `Background` calls it in a thread of its own: training never waits for MLflow,
and a store that is away costs a warning. `captchalab sync` tells it later.
"""

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.journal import FILES, Journal

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",  # no git is no reason for a warning of many lines
    # MLflow's own defaults retry for about four minutes before they give up on a server
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
SYSTEM_EVERY_S = 10.0
DESCRIPTION = """\
One row is one trained network; a fine-tuned one carries the test figures: `test/exact` with its 95 % interval
(`test/exact_low`, `test/exact_high`) and `test/cer`. `best/val/exact` is the best epoch's; `val/exact` the last one's.
The tag `train_run_id` leads from a fine-tune run to the run whose weights it started from."""


class Store(NamedTuple):
    """Where runs go: MLFLOW_TRACKING_URI, or sqlite and files below the project's mlruns/."""

    uri: str
    artifacts: Path | None  # None: the server decides
    folder: Path

    @classmethod
    def of(cls, root: Path) -> "Store":
        folder = files.store_root(root) / "mlruns"
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return cls(uri, None, folder)
        return cls(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", folder)

    @property
    def is_server(self) -> bool:
        return self.uri.startswith("http")

    @property
    def database(self) -> Path | None:
        """The file of an sqlite store."""
        prefix = "sqlite:///"
        return Path(self.uri.removeprefix(prefix)) if self.uri.startswith(prefix) else None

    def client(self) -> Any:
        """An MlflowClient of this store; the first use of a database makes it."""
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        import logging

        import mlflow
        from filelock import FileLock

        for chatty in ("alembic", "mlflow"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        # two processes that make the same database at once crash with "duplicate column name"
        with FileLock(self.folder / ".mlflow.lock"):
            if self.database and not self.database.exists():
                self._make_database(self.database)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    @staticmethod
    def _make_database(database: Path) -> None:
        """MLflow makes its tables in some forty steps; a kill between two leaves what no later start can mend."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with files.whole(database) as partial:
            store = SqlAlchemyStore(f"sqlite:///{partial}", (database.parent / "artifacts").as_uri())
            store.engine.dispose()


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
        from captchalab import plots

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
            with files.whole(self.journal.folder / "curves.png") as picture:
                plots.curves({about["stage"]: [epoch.figures for epoch in epochs]}, about["kind"], picture)
            self.client.log_artifact(run_id, str(self.journal.folder / "curves.png"), "plots")
        for name in FILES:
            self.client.log_artifact(run_id, str(self.journal.folder / name), "journal")
        model = self.journal.folder / "model.keras"
        if model.exists():
            self.client.log_artifact(run_id, str(model), "model")
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
        run = self.client.create_run(experiment, started, tags, about["name"])
        params = [Param(key, str(value)) for key, value in about["params"].items()]
        self.client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

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


def attempt(store: Store, action: Callable[[], object], quiet: bool = False) -> bool:
    """Do something with MLflow; a warning if it cannot be done. Training and testing go on without."""
    try:
        action()
    except Exception as error:  # whatever MLflow or its store says, the journal has it all
        if not quiet:
            print(
                f"captchalab: MLflow at {store.uri} does not take this run ({_reason(error)}); work goes on without "
                "it, and `captchalab sync` tells it later.",
                file=sys.stderr,
                flush=True,
            )
        return False
    return True


@contextmanager
def needed(store: Store) -> Iterator[None]:
    """Where nothing can be done without MLflow, what it says becomes a `UserError`."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"MLflow at {store.uri} cannot be used ({_reason(error)}): start it, or point MLFLOW_TRACKING_URI "
            "elsewhere."
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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


def log_test(folder: Path, store: Store, reports: Path, again: bool = True) -> None:
    """Test figures and pictures onto the run of the network in models/<kind>/finetune.

    What is measured on the test split is named test/..., what is so of the network network/...

    Args:
        reports: reports/<kind>, as `evaluate` leaves it.
        again: also where the run has test figures already.
    """
    from mlflow.entities import Metric

    run_id = sync(folder, store)
    client = store.client()
    if not again and "test/exact" in client.get_run(run_id).data.metrics:
        return
    figures = files.read_json(reports / "metrics.json")
    now = int(datetime.now(UTC).timestamp() * 1000)
    named = {f"{'test' if key.startswith(('exact', 'cer', 'n')) else 'network'}/{key}": figures[key] for key in figures}
    client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in named.items()])
    client.log_artifacts(run_id, str(reports), "test")


def experiment_id(client: Any, store: Store, name: str) -> str:
    """The experiment of a name, made when there is none."""
    from filelock import FileLock

    with FileLock(store.folder / ".mlflow.lock"):
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (store.artifacts / name).as_uri() if store.artifacts else None
        tags = {"mlflow.note.content": DESCRIPTION, "mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, location, tags))


def run_tags(root: Path, kind: str, stage: str) -> dict[str, str]:
    """Where a run comes from: git, DVC's stage and experiment, the data's md5 in dvc.lock."""
    tags = {"git_sha": _git(root, "rev-parse", "HEAD") or "none"}
    # what the chain itself writes as it goes does not make the code another one
    written = (":!dvc.lock", ":!reports")
    tags["git_dirty"] = str(bool(_git(root, "status", "--porcelain", "--untracked-files=no", ".", *written))).lower()
    tags["dvc_stage"] = os.environ.get("DVC_STAGE", "none")
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp_name"] = name
    for split, md5 in data_md5(root).items():
        tags[f"data_md5_{split}"] = md5
    if stage == "finetune":
        trained_by = root / "models" / kind / "train" / "run.json"
        if trained_by.exists():
            tags["train_run_id"] = str(files.read_json(trained_by)["run_id"])
    return tags


def data_md5(root: Path) -> dict[str, str]:
    """DVC's md5 of each split, as dvc.lock has it."""
    from captchalab.params import SPLITS, read

    if not (root / "dvc.lock").exists():
        return {}
    stages = read(root / "dvc.lock").get("stages", {})
    found = {split: stages.get(f"generate@{split}", {}).get("outs", [{}])[0].get("md5") for split in SPLITS}
    return {split: md5 for split, md5 in found.items() if md5}


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def ui_page(store: Store, experiment: str, port: int) -> str:
    """The page with the experiment's runs; MLflow's own start page is about something else."""
    number = experiment_id(store.client(), store, experiment)
    server = store.uri if store.is_server else f"http://127.0.0.1:{port}"
    return f"{server}/#/experiments/{number}/runs?workflowType=machine_learning"


def ui_command(store: Store, port: int) -> list[str]:
    """MLflow's server on 127.0.0.1, with what it needs and no more: two processes, 0.5 GB."""
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    words = [
        "server",
        "--backend-store-uri",
        store.uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    return [sys.executable, "-m", "mlflow", *words]
