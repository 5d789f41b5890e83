"""Searches against a real MLflow store of sqlite and files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captchalab.project import Project
from captchalab.tracking import relocation, search_view
from captchalab.tracking.searches import PARENT, SearchRuns, short_names
from captchalab.tracking.store import Store
from captchalab.training.journal import HISTORY, Journal

VALUES = {"models.ctc.rnn_size": 96, "models.ctc.filters": [32, 64], "train.ctc.learning_rate": 2e-3}
PARAMS = {"rnn_size": "96", "filters": "[32, 64]", "train.learning_rate": "0.002"}
TAGS = {"git_sha": "abc", "study_id": "1"}
ATTRIBUTES = {"seconds": 61.25, "parameters": 552_053, "images_seen": 192, "run_id": "of an earlier attempt"}


@pytest.fixture(scope="module")
def elsewhere(database, tmp_path_factory) -> Project:
    """A project with a store for the module."""
    project = Project(tmp_path_factory.mktemp("searches"))
    shutil.copytree(database.parent, project.mlruns)
    relocation.relocate(project.mlruns)
    return project


@pytest.fixture(scope="module")
def client(elsewhere):
    return Store.of(elsewhere).client()


@pytest.fixture
def study(request) -> str:
    """A new study's name."""
    return request.node.name


@pytest.fixture
def search(elsewhere, study) -> SearchRuns:
    return SearchRuns.open(elsewhere, study, "ctc", TAGS)


def journal(folder: Path, exact: list[float]) -> Journal:
    """A stage with an epoch for each of these."""
    about = {"name": "ctc", "kind": "ctc", "stage": folder.name, "experiment": "", "device": "a CPU"}
    journal = Journal.begin(folder, {**about, "params": {}, "tags": {}})
    for epoch, one in enumerate(exact, 1):
        journal.add(row(epoch, one), 2.0, 64)
    return journal


def row(epoch: int, exact: float) -> dict[str, float]:
    counts = {"epoch": epoch, "step": 8 * epoch, "images_seen": 64 * epoch}
    return {**dict.fromkeys(HISTORY, 0.5), **counts, "val/exact": exact}


def runs_of(client, study: str, stage: str = "trial") -> list:
    number = client.get_experiment_by_name(study).experiment_id
    found = client.search_runs([number], f"tags.stage = '{stage}'")
    return sorted(found, key=lambda run: (int(run.data.tags.get("trial", 0)), run.info.start_time))


def the_only(found: list):
    [one] = found
    return one


def test_a_trial_is_a_row_with_its_params_curve_metrics_and_state(client, search, study, tmp_path):
    trial = search.trial(7, VALUES)
    train = journal(tmp_path / "train", [0.1, 0.7])
    trial.epochs(train)
    trial.epochs(train, journal(tmp_path / "finetune", [0.6]))
    trial.end("COMPLETE", "", 0.6, ATTRIBUTES)
    search.end("FINISHED")
    run = the_only(runs_of(client, study))
    assert (run.info.run_id, run.info.run_name, run.info.status) == (trial.run_id, "trial 7", "FINISHED")
    assert run.data.params == PARAMS
    assert [(m.step, m.value) for m in client.get_metric_history(trial.run_id, "val/exact")] == [
        (64, 0.1),
        (128, 0.7),
        (192, 0.6),
    ]
    metrics = run.data.metrics
    assert (metrics["score"], metrics["best/val/exact"], metrics["images_seen"]) == (0.6, 0.7, 192)
    assert (metrics["seconds"], metrics["parameters"]) == (61.25, 552_053)
    wanted = {"kind": "ctc", "study": study, "trial": "7", "state": "COMPLETE", "git_sha": "abc"}
    assert run.data.tags.items() >= wanted.items()
    assert "run_id" not in run.data.tags
    assert run.data.tags[PARENT] == the_only(runs_of(client, study, "search")).info.run_id


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("PRUNED", "FINISHED"), ("FAIL", "FAILED")])
def test_the_status_of_a_run_says_whether_its_trial_failed(client, elsewhere, request, state, status):
    search = SearchRuns.open(elsewhere, request.node.name, "cnn", {})
    search.trial(0, VALUES).end(state, "because", None, {})
    search.end("FINISHED")
    run = the_only(runs_of(client, request.node.name))
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == (status, state, "because")
    assert "score" not in run.data.metrics


def test_the_parent_has_the_best_so_far_and_the_pictures(client, search, study, tmp_path):
    search.best(3, 0.8, VALUES)
    search.best(5, 0.9, VALUES)
    Image.new("L", (8, 8)).save(tmp_path / "history.png")
    search.pictures(tmp_path)
    shutil.rmtree(tmp_path)  # before the thread has come to them, perhaps
    search.end("FINISHED")
    parent = the_only(runs_of(client, study, "search"))
    assert parent.info.status == "FINISHED"
    assert (parent.data.metrics["best/score"], parent.data.tags["best_trial"]) == (0.9, "5")
    assert parent.data.tags["best/rnn_size"] == "96"
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "plots")] == ["plots/history.png"]


def test_the_trial_taken_into_params_yaml_is_tagged(client, elsewhere, search, study):
    for number in (1, 2):
        search.trial(number, VALUES).end("COMPLETE", "", 0.5, {})
    search.end("FINISHED")
    later = SearchRuns.open(elsewhere, study, "ctc", {"study_id": "1"})
    later.applied(2)
    later.end("FINISHED")
    assert ["applied" in run.data.tags for run in runs_of(client, study)] == [False, True]
    parent = the_only(runs_of(client, study, "search"))
    assert (parent.data.tags["applied_trial"], parent.info.status) == ("2", "FINISHED")


def test_a_search_that_goes_on_finds_its_parent_and_its_trials(client, elsewhere, search, study, tmp_path):
    train = journal(tmp_path / "train", [0.1])
    search.trial(0, VALUES).epochs(train)
    search.outbox.end()  # killed
    again = SearchRuns.open(elsewhere, study, "ctc", TAGS)
    trial = again.trial(0, VALUES)
    train.add(row(2, 0.5), 2.0, 64)
    trial.epochs(train)
    trial.end("COMPLETE", "", 0.5, {})
    again.end("FINISHED")
    assert the_only(runs_of(client, study, "search")).info.status == "FINISHED"
    assert the_only(runs_of(client, study)).info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(trial.run_id, "val/exact")] == [64, 128]


def test_a_trial_run_again_closes_the_run_of_the_dead_one(client, search, study):
    search.trial(4, VALUES)
    search.trial(5, VALUES)
    search.trial(6, VALUES, retry_of=4)
    search.end("FINISHED")
    dead, other, again = runs_of(client, study)
    assert (dead.info.status, dead.data.tags["state"]) == ("KILLED", "FAIL")
    assert "trial 6" in dead.data.tags["reason"]
    assert (other.info.status, again.info.status) == ("RUNNING", "RUNNING")
    assert again.data.tags["retry_of"] == "4"


def test_runs_of_trials_that_run_nowhere_are_closed(client, elsewhere, search, study):
    done = search.trial(0, VALUES)
    done.end("COMPLETE", "", 0.5, {})
    for number in (1, 2):
        search.trial(number, VALUES)
    search.outbox.end()
    again = SearchRuns.open(elsewhere, study, "ctc", TAGS)
    again.close_stale([2], "its worker died")
    again.end("FINISHED")
    states = {run.data.tags["trial"]: (run.info.status, run.data.tags["state"]) for run in runs_of(client, study)}
    assert states == {"0": ("FINISHED", "COMPLETE"), "1": ("KILLED", "FAIL"), "2": ("RUNNING", "RUNNING")}


def test_a_new_study_of_an_old_name_has_runs_of_its_own(client, elsewhere, search, study):
    search.trial(0, VALUES).end("COMPLETE", "", 0.5, {})
    search.end("FINISHED")
    new = SearchRuns.open(elsewhere, study, "ctc", {**TAGS, "study_id": "2"})
    new.trial(0, VALUES).end("COMPLETE", "", 0.6, {})
    new.end("FINISHED")
    assert [run.data.metrics["score"] for run in runs_of(client, study)] == [0.5, 0.6]
    assert len(runs_of(client, study, "search")) == 2


WORKER = """
import sys
from pathlib import Path
from captchalab.project import Project
from captchalab.tracking.searches import SearchRuns
search = SearchRuns.open(Project(Path(sys.argv[1])), sys.argv[2], "ctc", {})
for number in range(int(sys.argv[3]), 6, 2):
    search.trial(number, {"rnn_size": number}).end("COMPLETE", "", number / 10, {})
search.end("FINISHED")
"""


def test_workers_that_start_at_once_share_one_parent(client, elsewhere, study):
    command = [sys.executable, "-c", WORKER, str(elsewhere.root), study]
    workers = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(2)]
    for said in [worker.communicate()[1] for worker in workers]:
        assert "did not log" not in said
    parent = the_only(runs_of(client, study, "search"))
    assert parent.info.status == "FINISHED"
    trials = runs_of(client, study)
    assert sorted(int(run.data.tags["trial"]) for run in trials) == list(range(6))
    assert {(run.info.status, run.data.tags[PARENT]) for run in trials} == {("FINISHED", parent.info.run_id)}


def test_what_an_unreachable_store_missed_is_logged_when_it_is_back(client, elsewhere, study, tmp_path, capsys):
    """Its database is away for a while, as a server's may be."""
    database = elsewhere.mlruns / "mlflow.db"
    search = SearchRuns(Store.of(elsewhere)._replace(uri=f"sqlite:///{tmp_path}/file/mlflow.db"), study, "ctc", TAGS)
    (tmp_path / "file").write_text("no folder")
    search.outbox.add(lambda client: search._open(client, 0))
    trial = search.trial(0, VALUES)
    trial.end("COMPLETE", "", 0.5, {})
    search.outbox.thread.submit(lambda: None).result()
    assert trial.run_id is None
    search.store = search.outbox.store = search.store._replace(uri=f"sqlite:///{database}")
    search.end("FINISHED")
    assert the_only(runs_of(client, study)).data.tags["state"] == "COMPLETE"
    assert capsys.readouterr().err.count("\n") == 1


def test_a_store_that_stays_unreachable_costs_one_warning_and_no_error(elsewhere, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    search = SearchRuns.open(elsewhere, "captcha-ctc", "ctc", TAGS)
    trial = search.trial(0, VALUES)
    trial.epochs(Journal(tmp_path / "not begun"))
    trial.end("COMPLETE", "", 0.5, ATTRIBUTES)
    search.close_stale([], "died")
    search.best(0, 0.5, VALUES)
    search.pictures(tmp_path / "missing")
    search.end("FINISHED")
    assert trial.run_id is None
    assert capsys.readouterr().err.count("127.0.0.1:9") == 1


def test_what_mlflow_refuses_keeps_nothing_else_back(client, search, study):
    search.outbox.add(lambda client: client.set_tag("no run", "key", "value"))
    search.trial(0, VALUES).end("COMPLETE", "", 0.5, {})
    search.end("FINISHED")
    assert the_only(runs_of(client, study)).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["models.ctc.rnn_size", "train.ctc.learning_rate"], ["rnn_size", "train.learning_rate"]),
        (["train.cnn.batch_size", "finetune.cnn.learning_rate"], ["train.batch_size", "finetune.learning_rate"]),
        (["models.cnn.stem_stride", "stem_stride"], ["models.cnn.stem_stride", "stem_stride"]),
        (["rnn_size", "ctc"], ["rnn_size", "ctc"]),
    ],
)
def test_short_names(keys, names):
    assert list(short_names(keys).values()) == names


class TestView:
    NAMES = ("rnn_size", "rnn_layers", "conv_depth", "filters", "stem_stride", "batch_size")
    RATES = ("train.learning_rate", "finetune.learning_rate", "train.weight_decay", "finetune.weight_decay")

    def test_opens_with_the_trials_of_the_search(self, client, elsewhere, search, study):
        search.trial(0, VALUES)
        search.end("FINISHED")
        [page] = [found.page for found in search_view.searches(Store.of(elsewhere), 5001) if found.study == study]
        number = client.get_experiment_by_name(study).experiment_id
        assert page.startswith(f"http://127.0.0.1:5001/#/experiments/{number}/runs?")
        assert page.endswith(f"viewStateShareKey={search_view.KEY}")
        tags = client.get_experiment(number).tags
        assert tags.items() >= dict([search_view.view(list(PARAMS)).tag()]).items()
        assert "score" in tags["mlflow.note.content"]

    def test_has_the_searched_parameters_as_columns_and_axes(self):
        state = json.loads(json.loads(search_view.view(["rnn_size"]).tag()[1])["state"])
        assert "params.`rnn_size`" in state["selectedColumns"]
        assert [chart["selectedParams"] for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"] == [
            ["rnn_size"]
        ]

    def test_is_short_enough_for_mlflow_with_many_parameters(self):
        assert len(search_view.view([*self.NAMES, *self.RATES]).tag()[1]) <= 5000  # MLflow's limit for a tag
