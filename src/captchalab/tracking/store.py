"""Where runs and models are kept: an MLflow store, embedded below mlruns/ or elsewhere.

All calls to MLflow go through `Store.client()`, which has its own address: nothing here sets one for the
whole process. That address may hold a database's password: messages and files name the store by `str(store)`.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.processes import locked
from captchalab.project import Project
from captchalab.tracking import masking, relocation

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
PROBE_S = 5  # for an answer of a store on another host
DESCRIPTION = """\
One row is one trained network; a fine-tuned one carries the test metrics: `test/exact` with its 95 % interval
(`test/exact_low`, `test/exact_high`) and `test/cer`. Two whose intervals overlap may still differ.

- The row of a fine-tuned network has the whole curve, stage 1 and stage 2. The step of a metric is the number of
  captchas seen by then, over both stages.
- `best/val/exact` is the best epoch's of stage 2, and the saved weights are that epoch's; `val/exact` is the last's.
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

    def __str__(self) -> str:
        """The address as it may be shown and written down."""
        return masking.mask(self.uri)

    def __repr__(self) -> str:
        return f"Store({self})"

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

        for chatty in ("alembic", "mlflow"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self._probe()
        self.folder.mkdir(parents=True, exist_ok=True)
        # two processes that make the same database at once crash with "duplicate column name"
        with self.locked():
            if self.database and not self.database.exists():
                self._make_database(self.database)
            if self.database == self.folder / "mlflow.db":
                relocation.check(self.folder)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def locked(self) -> AbstractContextManager[None]:
        """Hold what one process may do after another: creating the database and an experiment."""
        return locked(self.folder / relocation.LOCK, "MLflow's store")

    def _probe(self) -> None:
        """Ask a store on another host whether it answers: MLflow itself would take a minute or two to give up."""
        if self.is_server:
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request

            host = get_default_host_creds(self.uri)
            http_request(host, "/health", "GET", max_retries=0, timeout=PROBE_S, raise_on_status=False)
        elif not self.database:
            import sqlalchemy

            try:
                engine = sqlalchemy.create_engine(self.uri)
            except (ValueError, ImportError) as error:  # no address, or one of a database without its driver
                raise UserError(_sentence(self, _reason(self, error))) from error
            engine.connect().close()

    @staticmethod
    def _make_database(database: Path) -> None:
        """MLflow makes its tables in some forty steps; a kill between two leaves what no later start can repair."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with files.atomic_write(database) as partial:
            store = SqlAlchemyStore(f"sqlite:///{partial}", (database.parent / "artifacts").as_uri())
            store.engine.dispose()


def experiment_id(client: Any, store: Store, name: str, description: str = DESCRIPTION) -> str:
    """The experiment of a name, made with this description when there is none."""
    with store.locked():
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (store.artifacts / name).as_uri() if store.artifacts else None
        tags = {"mlflow.note.content": description, "mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, location, tags))


LATER = "`captchalab sync` logs it later"


def attempt(store: Store, action: Callable[[], object], quiet: bool = False, later: str = LATER) -> bool:
    """Do something with MLflow; a warning if it cannot be done, which says what becomes of it `later`.

    Training and testing go on without it.
    """
    try:
        action()
    except Exception as error:  # whatever MLflow or its store says: the journal has everything
        if not quiet:
            reason = str(error).rstrip(".") if isinstance(error, UserError) else _reason(store, error)
            print(
                f"captchalab: MLflow at {store} did not log this run ({reason}): the work continues, and {later}.",
                file=sys.stderr,
                flush=True,
            )
        return False
    return True


@contextmanager
def needed(store: Store) -> Iterator[None]:
    """Where nothing can be done without MLflow, an error of MLflow or of its store becomes a `UserError`.

    An `OSError` is the store's if it concerns the network or a file below mlruns/; of the workspace's own
    files, and of everything else, it is not said that MLflow cannot be used.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise UserError(_sentence(store, _reason(store, error))) from error
    except OSError as error:
        if not _is_of_store(store, error):
            raise
        raise UserError(_sentence(store, _reason(store, error))) from error


def _is_of_store(store: Store, error: OSError) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    places = [store.folder, *([store.database.parent] if store.database else [])]
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return any(name.is_relative_to(place) for name in names for place in places)


def _sentence(store: Store, reason: str) -> str:
    if "out-of-date database schema" in reason:
        # on the command line of another process nothing may hold a password
        uri = str(store) if str(store) == store.uri else '"$MLFLOW_TRACKING_URI"'
        return (
            f"The database {store} was made by another version of MLflow: if that was an older one, copy it and "
            f"run `.venv/bin/mlflow db upgrade {uri}`."
        )
    return f"MLflow at {store} cannot be used ({reason}): start it, or point MLFLOW_TRACKING_URI elsewhere."


def _reason(store: Store, error: BaseException) -> str:
    """In few words: of a chain of errors, the first one says why."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return masking.redact(" ".join(str(error).split()), store.uri)[:200] or type(error).__name__
