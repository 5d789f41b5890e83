"""A search beyond one machine: studies in PostgreSQL, workers on a Ray cluster, a node that is lost."""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState
from servers import PASSWORD, RayCluster, mlflow_server, postgres, ray_cluster

from captchalab import yaml
from captchalab.project import Project
from captchalab.search import rules
from captchalab.tracking.store import Store

LIMIT_S = 1200.0  # some twenty times what a search here takes on a quiet machine
TINY = {"trials": 4, "images": 1024, "heartbeat_s": 5}  # a busy machine is late with a heartbeat


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("studies")) as uri:
        yield uri


@pytest.fixture(scope="module")
def runs(database, tmp_path_factory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("runs"), f"sqlite:///{database}") as address:
        yield address


@pytest.fixture
def search(project, studies, runs, monkeypatch, tmp_path):
    """Starts `captchalab search run --kind cnn` on tiny networks; its output goes to a file."""
    content = yaml.read(project.params)
    content["search"].update(TINY)
    project.params.write_text(yaml.dump(content))
    monkeypatch.setenv("OPTUNA_STORAGE", studies)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", runs)

    def start(*options: object) -> subprocess.Popen:
        words = ["-m", "captchalab.cli", "search", "run", "--kind", "cnn", *map(str, options)]
        with (tmp_path / "output.txt").open("w") as output:
            return subprocess.Popen([sys.executable, *words], cwd=project.root, stdout=output, stderr=output)

    return start


def test_two_processes_share_a_study_in_postgresql(search, studies, tmp_path):
    searching = search("--study", "shared", "--workers", 2)
    assert searching.wait(LIMIT_S) == 0, (tmp_path / "output.txt").read_text()
    trials = trials_of(studies, "shared")
    assert [trial.state.is_finished() for trial in trials] == [True] * TINY["trials"]
    overlap = [a.datetime_complete > b.datetime_start for a, b in itertools.pairwise(trials)]
    assert any(overlap), "never two at a time"
    assert PASSWORD not in (tmp_path / "output.txt").read_text()


def test_a_search_on_a_cluster_outlives_one_of_its_nodes(search, studies, tmp_path, project):
    with ray_cluster(tmp_path, project.root) as cluster:
        searching = search("--study", "placed", "--workers", 2, "--engine", "ray", "--address", cluster.address)
        lost = wait_for_trial_on(cluster, 1, studies, "placed", searching, tmp_path / "output.txt")
        cluster.nodes[1].kill()
        code = searching.wait(LIMIT_S)
    output = (tmp_path / "output.txt").read_text()
    assert code == 0, output
    trials = trials_of(studies, "placed")
    assert rules.counts(trials) == rules.Counts(done=TINY["trials"], running=0, waiting=0), output
    assert all(trial.state.is_finished() for trial in trials)
    assert {node_of(trial) for trial in trials} == {node.id[:12] for node in cluster.nodes}
    [again] = [trial for trial in trials if rules.retry_of(trial) == lost.number]
    assert (again.params, node_of(again)) == (lost.params, cluster.nodes[0].id[:12])
    assert PASSWORD not in output
    assert {run.info.status for run in runs_of(project)} == {"FINISHED", "FAILED"}, "of the lost trial too"
    assert not [p for p in psutil.process_iter(["cmdline"]) if cluster.address in " ".join(p.info["cmdline"] or [])]


def trials_of(storage: str, study: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=study, storage=storage).get_trials()


def runs_of(project: Project) -> list[Any]:
    """All runs in MLflow, while MLFLOW_TRACKING_URI names the server."""
    client = Store.of(project).client()
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def node_of(trial: FrozenTrial) -> str:
    return trial.user_attrs["node"].partition("/")[2]


def wait_for_trial_on(
    cluster: RayCluster, node: int, storage: str, study: str, searching: subprocess.Popen, output: Path
) -> FrozenTrial:
    """A trial that this node is training."""
    wanted, deadline = cluster.nodes[node].id[:12], time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and searching.poll() is None:
        if study in optuna.get_all_study_names(storage):
            trials = [trial for trial in trials_of(storage, study) if trial.state == TrialState.RUNNING]
            if found := [trial for trial in trials if "node" in trial.user_attrs and node_of(trial) == wanted]:
                return found[0]
        time.sleep(0.2)
    pytest.fail(f"no trial on {wanted}:\n{output.read_text()}")
