"""Where runs and models are kept: an MLflow store, embedded below mlruns/ or elsewhere.

All of MLflow is spoken to through `Store.client()`, with an address of its own: nothing here sets one
for the whole process.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.tracking import relocation

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",  # no git is no reason for a warning of many lines
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own defaults retry for about four minutes before they give up on a server
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "PGCONNECT_TIMEOUT": "5",  # seconds
}
PROBE_S = 5
DESCRIPTION = """\
One row is one trained network; a fine-tuned one carries the test figures: `test/exact` with its 95 % interval
(`test/exact_low`, `test/exact_high`) and `test/cer`. Two whose intervals overlap may still differ: they read the same
captchas, and `captchalab promote` compares them picture by picture.

- `best/val/exact` is the best epoch's, and the saved weights are that epoch's; `val/exact` is the last epoch's.
- The chart button above the table shows the curves of all rows; Compare shows those of the rows you select.
- `network/images_seen` and `network/minutes` count both stages. The tag `train_run_id` leads to the run of stage 1.
- The table shows fine-tuned networks; clear the filter to see the runs of stage 1 too."""


class Store(NamedTuple):
    """Where runs go: MLFLOW_TRACKING_URI, or sqlite and files below the project's mlruns/."""

    uri: str
    artifacts: Path | None  # None: the server decides
    folder: Path

    @classmethod
    def of(cls, project: Project) -> "Store":
        folder = project.mlruns
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        return cls(uri, None if uri.startswith("http") else folder / "artifacts", folder)

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
        self._knock()
        self.folder.mkdir(parents=True, exist_ok=True)
        # two processes that make the same database at once crash with "duplicate column name"
        with FileLock(self.folder / ".mlflow.lock"):
            if self.database and not self.database.exists():
                self._make_database(self.database)
            if self.database == self.folder / "mlflow.db":
                relocation.check(self.folder)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def _knock(self) -> None:
        """Ask a store elsewhere whether it is there: MLflow itself would take a minute or two to give up."""
        if self.is_server:
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request

            host = get_default_host_creds(self.uri)
            http_request(host, "/health", "GET", max_retries=0, timeout=PROBE_S, raise_on_status=False)
        elif not self.database:
            import sqlalchemy

            sqlalchemy.create_engine(self.uri).connect().close()

    @staticmethod
    def _make_database(database: Path) -> None:
        """MLflow makes its tables in some forty steps; a kill between two leaves what no later start can mend."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with files.atomic_write(database) as partial:
            store = SqlAlchemyStore(f"sqlite:///{partial}", (database.parent / "artifacts").as_uri())
            store.engine.dispose()


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
    """Where nothing can be done without MLflow, what it or its store says becomes a `UserError`."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        raise UserError(_sentence(store, _reason(error))) from error


def _sentence(store: Store, reason: str) -> str:
    if "out-of-date database schema" in reason:
        return (
            f"The database {store.uri} was made by another version of MLflow: if that was an older one, copy it and "
            f"run `.venv/bin/mlflow db upgrade {store.uri}`."
        )
    return f"MLflow at {store.uri} cannot be used ({reason}): start it, or point MLFLOW_TRACKING_URI elsewhere."


def _reason(error: BaseException) -> str:
    """In few words: of a chain of errors, the first one says why."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return " ".join(str(error).split())[:200] or type(error).__name__
