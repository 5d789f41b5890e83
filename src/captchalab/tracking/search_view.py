"""How MLflow's table opens on the experiment of a search: its trials, the best first, whatever their age.

The rows are the trials alone. They are child runs, which MLflow's table folds away below their parent, but not
under a filter.
"""

import json
from typing import Any, NamedTuple

from captchalab.tracking.store import Store
from captchalab.tracking.views import View, line, scatter

KEY = "trials"
SEARCHED = "captchalab.searched"  # tag of an experiment of trials: the names of what is searched
DESCRIPTION = """\
One row is one trial: a short training, both stages, scored by exact match on the valid split and never on test.
COMPLETE trials are ordered by `score`, the best first; below them are those that were PRUNED or failed, each with
its reason, and those that are RUNNING.

- The chart button above the table shows the curves of all trials against the captchas seen over both stages, and what
  the score costs in seconds and in parameters.
- The run of the search has the best trial so far, and under Artifacts the study's pictures: clear the filter, or follow
  Parent run on a trial's page."""
COLUMNS = {
    "tags.`trial`": 50,
    "tags.`state`": 96,
    "metrics.`score`": 72,
    "metrics.`best/val/exact`": 112,
    "metrics.`images_seen`": 104,
    "metrics.`seconds`": 78,
    "metrics.`parameters`": 96,
}
REASON = {"tags.`reason`": 260}


class Search(NamedTuple):
    """An experiment of trials."""

    study: str
    page: str  # the address of its table


def view(names: list[str]) -> View:
    """The trials, the best first, and their curves.

    Args:
        names: of the searched parameters, as the runs have them.
    """
    parallel = {
        "uuid": "parallel",
        "type": "PARALLEL",
        "selectedParams": names,
        "selectedMetrics": ["score"],
        "showAllRuns": True,
    }
    return View(
        KEY,
        "Trials",
        runs="tags.stage = 'trial'",
        best="score",
        # some 6 pixels a letter, and room for the mark of the order
        columns={**COLUMNS, **{f"params.`{name}`": max(76, 6 * len(name) + 24) for name in names}, **REASON},
        title="Trials, and what their score costs",
        charts=[line("val/exact"), scatter("seconds", "score"), scatter("parameters", "score"), parallel],
        more={"runsHiddenMode": "SHOW_ALL"},  # in charts; MLflow's own choice are the first ten
    )


def save(client: Any, number: str, names: list[str]) -> None:
    """Give the experiment of a search, named by its id, the view with these parameters."""
    if client.get_experiment(number).tags.get(SEARCHED) != json.dumps(names):
        client.set_experiment_tag(number, SEARCHED, json.dumps(names))
    view(names).save(client, number)


def searches(store: Store, port: int) -> list[Search]:
    """The experiments of searches that a store has, the newest first.

    Args:
        port: where a store that is no server itself is served.
    """
    client = store.client()
    found = []
    for experiment in client.search_experiments():
        if SEARCHED in experiment.tags:
            shown = view(json.loads(experiment.tags[SEARCHED]))
            shown.save(client, experiment.experiment_id)
            found.append(Search(experiment.name, shown.page(store, experiment.experiment_id, port)))
    return found
