"""MLflow's own pages: the server that shows them, and the view that the table of runs opens with.

By default the table shows when a run was made and how long it took, and no metric at all. MLflow keeps a
saved view as a tag of the experiment, and the page opens it by its key in the address. The content of the tag
is documented nowhere: the names in `view_tag` are those of MLflow 3.17.2, and `tests/pages.py` checks in a
browser what MLflow makes of them.
"""

import json
import os
import sys
from typing import Any

from captchalab.evaluation import metrics
from captchalab.tracking import masking
from captchalab.tracking.store import Store, experiment_id

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
LEFT = {"attributes.`Run Name`": 110, "runDateAndNestInfo": 122}  # name and age of a run: shown whatever is chosen
CURVES = ("val/exact", "val/cer", "val/loss")
X_AXIS = "images_seen"  # the metric equals its own step; as an axis it is labelled with its name


def view_tag() -> tuple[str, str]:
    """The view as a tag of the experiment: the fine-tuned networks, the best first, and their whole curves.

    Returns:
        The tag's key and its value, the same ones every time.
    """
    section = {"uuid": "validation", "name": "Validation against images seen, both stages", "display": True}
    curves = [
        {
            "uuid": name,
            "type": "LINE",
            "metricSectionId": section["uuid"],
            "metricKey": name,
            "lineSmoothness": 0,
            "xAxisKey": "metric",
            "selectedXAxisMetricKey": X_AXIS,
            "useGlobalXaxisKey": False,  # else the page's own setting, the step, replaces the two above
        }
        for name in CURVES
    ]
    state = {
        "searchFilter": "tags.stage = 'finetune'",
        "orderByKey": "metrics.`test/exact`",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": [*LEFT, *COLUMNS],
        "columnWidths": {**LEFT, **COLUMNS},
        "compareRunSections": [section],
        "compareRunCharts": curves,
        "isAccordionReordered": True,  # else MLflow sorts its own sections of charts before this one
    }
    view = {"name": "Fine-tuned networks", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{VIEW}", json.dumps(view)


def save_view(client: Any, number: str) -> str:
    """Give an experiment the view; a second time changes nothing.

    Args:
        client: an MlflowClient.
        number: the experiment's id.

    Returns:
        The key by which the page opens it.
    """
    key, value = view_tag()
    if client.get_experiment(number).tags.get(key) != value:
        client.set_experiment_tag(number, key, value)
    return VIEW


def page(store: Store, experiment: str, port: int) -> str:
    """The address of the experiment's runs in that view; MLflow's own start page is about something else.

    Args:
        store: where the runs are.
        experiment: the experiment's name; it is made when there is none.
        port: where `command` serves a store that is not a server itself.
    """
    client = store.client()
    number = experiment_id(client, store, experiment)
    server = masking.without_credentials(store.uri).rstrip("/") if store.is_server else f"http://127.0.0.1:{port}"
    view = save_view(client, number)
    return f"{server}/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={view}"


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
