"""Saved views of MLflow's table of runs: the rows it opens with, their order, its columns and charts.

By default the table shows when a run was made and how long it took, and no metric at all. MLflow keeps a
saved view as a tag of the experiment, and the page opens it by its key in the address. The content of the tag
is documented nowhere: the names here are those of MLflow 3.17.2, and `tests/pages.py` checks in a browser what
MLflow makes of them.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from captchalab.tracking import masking
from captchalab.tracking.store import Store

LEFT = {"attributes.`Run Name`": 110, "runDateAndNestInfo": 122}  # name and age of a run: shown whatever is chosen
X_AXIS = "images_seen"  # the metric equals its own step; as an axis it is labelled with its name


@dataclass(frozen=True)
class View:
    """How the table of an experiment opens."""

    key: str  # in the page's address
    name: str
    runs: str  # MLflow's filter; with one, the table is flat: child runs are not folded away
    best: str  # the metric that orders the rows, the highest first
    columns: dict[str, int]  # {column: width in pixels}, in their order
    title: str  # of the section of charts
    charts: list[dict[str, Any]]
    more: dict[str, Any] = field(default_factory=dict)  # further keys of MLflow's state

    def tag(self) -> tuple[str, str]:
        """Key and value of the experiment's tag; of the same view always the same ones."""
        section = {"uuid": "charts", "name": self.title, "display": True}
        state = {
            "searchFilter": self.runs,
            "orderByKey": f"metrics.`{self.best}`",
            "orderByAsc": False,
            "selectedColumns": list(self.columns),
            "columnOrder": [*LEFT, *self.columns],
            "columnWidths": {**LEFT, **self.columns},
            "compareRunSections": [section],
            "compareRunCharts": [{**chart, "metricSectionId": section["uuid"]} for chart in self.charts],
            "isAccordionReordered": True,  # else MLflow sorts its own sections of charts before this one
            **self.more,
        }
        content = {"name": self.name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
        return f"mlflow.sharedViewState.{self.key}", json.dumps(content)

    def save(self, client: Any, number: str) -> None:
        """Give an experiment, named by its id, this view; a second time changes nothing."""
        key, value = self.tag()
        if client.get_experiment(number).tags.get(key) != value:
            client.set_experiment_tag(number, key, value)

    def page(self, store: Store, number: str, port: int) -> str:
        """The address of the experiment's runs in this view; MLflow's own start page is about something else.

        Args:
            number: the experiment's id.
            port: where a store that is no server itself is served.
        """
        server = masking.without_credentials(store.uri).rstrip("/") if store.is_server else f"http://127.0.0.1:{port}"
        return f"{server}/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={self.key}"


def line(metric: str) -> dict[str, Any]:
    """A chart of the curves of a metric against the images seen."""
    return {
        "uuid": metric,
        "type": "LINE",
        "metricKey": metric,
        "lineSmoothness": 0,
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": X_AXIS,
        "useGlobalXaxisKey": False,  # else the page's own setting, the step, replaces the two above
    }


def scatter(x: str, y: str) -> dict[str, Any]:
    """A chart with a point per run: one metric against another."""
    axes = {axis: {"key": key, "type": "METRIC"} for axis, key in (("xaxis", x), ("yaxis", y))}
    return {"uuid": f"{y} of {x}", "type": "SCATTER", "runsCountToCompare": 100, **axes}
