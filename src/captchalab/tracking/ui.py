"""MLflow's own pages: the server that shows them, and the views that its tables of runs open with."""

import os
import sys

from captchalab.evaluation import metrics
from captchalab.tracking.store import Store, experiment_id
from captchalab.tracking.views import View, line

VIEW = "fine-tuned"
# in pixels; with MLflow's own columns on the left they are as wide as a window of 1920 has room for
WIDTHS = {
    "test/exact": 92,
    "test/exact_low": 95,
    "test/exact_high": 100,
    "test/cer": 75,
    "network/images_seen": 136,
    "network/minutes": 110,
}
WIDTH = 100  # of any other metric


def columns() -> dict[str, int]:
    """The table's columns in their order, with their widths; which metrics, `evaluation.metrics` says."""

    def of_metrics(*names: str) -> dict[str, int]:
        return {f"metrics.`{name}`": WIDTHS.get(name, WIDTH) for name in names}

    return {
        "tags.`kind`": 58,
        **of_metrics(*metrics.headline("test")),
        "params.`train/learning_rate`": 123,
        "params.`learning_rate`": 94,
        "params.`rnn_size`": 70,
        "params.`conv_depth`": 82,
        **of_metrics(*metrics.headline("network"), "network/minutes"),
        "tags.`device`": 148,
        "tags.`git_sha`": 88,
        "tags.`data_digest`": 86,
    }


COLUMNS = columns()
CURVES = ("val/exact", "val/cer", "val/loss")


def view() -> View:
    """The fine-tuned networks, the best first, and their whole curves."""
    return View(
        VIEW,
        "Fine-tuned networks",
        runs="tags.stage = 'finetune'",
        best="test/exact",
        columns=COLUMNS,
        title="Validation against images seen, both stages",
        charts=[line(name) for name in CURVES],
    )


def page(store: Store, experiment: str, port: int) -> str:
    """The address of the experiment's fine-tuned networks.

    Args:
        store: where the runs are.
        experiment: the experiment's name; it is made when there is none.
        port: where `command` serves a store that is not a server itself.
    """
    client = store.client()
    number = experiment_id(client, store, experiment)
    view().save(client, number)
    return view().page(store, number, port)


def command(store: Store, port: int) -> tuple[list[str], dict[str, str]]:
    """MLflow's server on 127.0.0.1, with two processes and 0.5 GB.

    Returns:
        Its command, and the environment it runs in. The store's address, which may hold a password, is in the
        environment: a command line can be read by every user of the machine.
    """
    options = {"--host": "127.0.0.1", "--port": str(port), "--workers": "1"}
    words = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    return words, environment
