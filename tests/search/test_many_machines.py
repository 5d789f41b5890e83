"""A search beyond one machine: studies in PostgreSQL, workers on a Ray cluster, a node that is lost."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
import sqlalchemy
import workspace
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from servers import PASSWORD, RayCluster, hear_ctrl_c, mlflow_server, postgres, ray_cluster

from captchalab import yaml
from captchalab.project import Project
from captchalab.search import rules
from captchalab.tracking.store import Store

LIMIT_S = 1200.0  # some twenty times what a search here takes on a quiet machine
TINY = {"trials": 4, "images": 1024, "heartbeat_s": 5}  # a busy machine is late with a heartbeat


class Search(NamedTuple):
    """`captchalab search run` as it runs."""

    process: subprocess.Popen
    log: Path

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit status and output."""
        return self.process.wait(LIMIT_S), self.log.read_text()


Start = Callable[..., Search]


@pytest.fixture(scope="module")
def project(smoke_text, database, tmp_path_factory) -> Project:
    """One for all: its captchas are drawn once."""
    made = workspace.make(tmp_path_factory.mktemp("many") / "project", smoke_text, database)
    content = yaml.read(made.params)
    content["search"].update(TINY)
    made.params.write_text(yaml.dump(content))
    return made


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Iterator[str]:
    """Address of PostgreSQL."""
    with postgres(tmp_path_factory.mktemp("studies")) as uri:
        yield uri


@pytest.fixture(scope="module")
def storage(studies) -> RDBStorage:
    """The same, to look at: it keeps no connection, of which the server has a hundred for everyone."""
    return RDBStorage(studies, engine_kwargs={"poolclass": sqlalchemy.NullPool})


@pytest.fixture(scope="module")
def runs(database, tmp_path_factory) -> Iterator[str]:
    """Address of MLflow's server."""
    with mlflow_server(tmp_path_factory.mktemp("runs"), f"sqlite:///{database}") as address:
        yield address


@pytest.fixture(scope="module")
def cluster(project, tmp_path_factory) -> Iterator[RayCluster]:
    """Two nodes; the last test loses one."""
    with ray_cluster(tmp_path_factory.mktemp("ray"), project.root) as found:
        yield found


@pytest.fixture
def start(project, studies, storage, runs, tmp_path) -> Iterator[Start]:
    """Starts a search of tiny networks with two workers."""
    begun: list[Search] = []

    def start(study: str, *options: object) -> Search:
        words = ["-m", "captchalab.cli", "search", "run", "--kind", "cnn", "--study", study, "--workers", 2, *options]
        environment = {**os.environ, "OPTUNA_STORAGE": studies, "MLFLOW_TRACKING_URI": runs}
        log = tmp_path / f"search-{len(begun)}.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=project.root,
                env=environment,
                stdout=output,
                stderr=output,
                preexec_fn=hear_ctrl_c,
            )
        begun.append(Search(process, log))
        return begun[-1]

    yield start
    for search in begun:
        search.process.kill()


def test_two_processes_share_a_study_in_postgresql(start, storage):
    code, output = start("shared").end()
    assert code == 0, output
    trials = trials_of(storage, "shared")
    assert [trial.state.is_finished() for trial in trials] == [True] * TINY["trials"]
    at_once = [a.datetime_complete > b.datetime_start for a, b in itertools.pairwise(trials)]
    assert any(at_once), "never two at a time"
    assert PASSWORD not in output


def test_a_gpu_that_no_node_has_is_refused(start, cluster):
    code, output = start("greedy", "--engine", "ray", "--address", cluster.address, "--gpus-per-worker", 1).end()
    assert code == 1
    assert f"No node of the Ray cluster at {cluster.address} has 1 CPU and 1 GPU" in output


def test_ctrl_c_ends_the_workers_of_a_cluster(start, cluster, storage):
    # more trials than end before a node has begun its first and hears of Ctrl-C
    search = start("stopped", "--trials", 100, "--engine", "ray", "--address", cluster.address)
    wait_for_trial(cluster, 1, storage, "stopped", search)
    search.process.send_signal(signal.SIGINT)
    code, output = search.end()
    assert code == 130, output
    assert "the same command goes on" in output.splitlines()[-1]
    trials = trials_of(storage, "stopped")
    assert rules.counts(trials).running == 0
    assert rules.counts(trials).waiting >= 1, "what was stopped is run again"


def test_a_search_on_a_cluster_outlives_one_of_its_nodes(start, cluster, storage, project, runs):
    search = start("placed", "--engine", "ray", "--address", cluster.address)
    lost = wait_for_trial(cluster, 1, storage, "placed", search)
    cluster.nodes[1].kill()
    code, output = search.end()
    assert code == 0, output
    trials = trials_of(storage, "placed")
    assert rules.counts(trials) == rules.Counts(done=TINY["trials"], running=0, waiting=0), output
    assert all(trial.state.is_finished() for trial in trials)
    assert {node_of(trial) for trial in trials} == {node.id[:12] for node in cluster.nodes}
    [again] = [trial for trial in trials if rules.retry_of(trial) == lost.number]
    assert (again.params, node_of(again)) == (lost.params, cluster.nodes[0].id[:12])
    assert PASSWORD not in output
    assert "RUNNING" not in {run.info.status for run in runs_at(runs, project)}, "that of the lost trial is closed too"


def trials_of(storage: RDBStorage, study: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=study, storage=storage).get_trials()


def runs_at(server: str, project: Project) -> list[Any]:
    client = Store(server, None, project.mlruns).client()
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def node_of(trial: FrozenTrial) -> str:
    return trial.user_attrs["node"].partition("/")[2]


def wait_for_trial(cluster: RayCluster, node: int, storage: RDBStorage, study: str, search: Search) -> FrozenTrial:
    """A trial that this node is training."""
    wanted, deadline = cluster.nodes[node].id[:12], time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and search.process.poll() is None:
        if study in optuna.get_all_study_names(storage):
            trials = [trial for trial in trials_of(storage, study) if trial.state == TrialState.RUNNING]
            if found := [trial for trial in trials if "node" in trial.user_attrs and node_of(trial) == wanted]:
                return found[0]
        time.sleep(0.2)
    pytest.fail(f"no trial on {wanted}:\n{search.log.read_text()}")
