"""What is refused before a cluster is asked for anything, and how many workers one has room for."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import free_port

from captchalab.cli import main
from captchalab.errors import UserError
from captchalab.search import ray_engine
from captchalab.search.ray_engine import Placement
from captchalab.tracking.store import Store

POSTGRESQL = "postgresql://ann:s3cret@db/studies"
SERVER = Store("http://mlflow:5000", None, Path("mlruns"))


def test_studies_on_this_machine_are_refused():
    with pytest.raises(UserError, match="sqlite:///optuna.db are a file of this machine.*OPTUNA_STORAGE=postgresql"):
        ray_engine.check_reachable("sqlite:///optuna.db", SERVER)


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "postgresql://ann:s3cret@db/mlflow"])
def test_runs_with_files_on_this_machine_are_refused(uri):
    with pytest.raises(UserError, match="start `mlflow server`, and set MLFLOW_TRACKING_URI=http") as refused:
        ray_engine.check_reachable(POSTGRESQL, Store(uri, Path("mlruns/artifacts"), Path("mlruns")))
    assert "s3cret" not in str(refused.value)


def test_studies_in_postgresql_and_runs_on_a_server_are_reachable():
    ray_engine.check_reachable(POSTGRESQL, SERVER)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_loopback_address_is_refused_where_the_cluster_has_other_machines(host):
    local = f"postgresql://ann:s3cret@{host}:5432/studies"
    ray_engine.check_hosts([local], {"10.0.0.1"})
    ray_engine.check_hosts([POSTGRESQL], {"10.0.0.1", "10.0.0.2"})
    with pytest.raises(UserError, match="another place on each of the cluster's 2 machines") as refused:
        ray_engine.check_hosts([local], {"10.0.0.1", "10.0.0.2"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers"),
    [
        ([{"CPU": 2.0}, {"CPU": 1.0}], 1, 0, 3),
        ([{"CPU": 2.0}, {"CPU": 1.0}], 2, 0, 1),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0}], 4, 1, 2),
        ([{"CPU": 16.0, "GPU": 1.0}], 1, 0.5, 2),
        ([{"CPU": 16.0}], 1, 1, 0),
        ([{"GPU": 1.0}], 1, 1, 0),
        ([], 1, 0, 0),
    ],
)
def test_workers_fit_within_a_node(nodes, cpus, gpus, workers):
    assert ray_engine.room(nodes, Placement("head:6379", cpus, gpus)) == workers


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--engine", "ray"], "give --address HOST:PORT"),
        (["--address", "head:6379"], "add --engine ray"),
        (["--gpus-per-worker", "1"], "add --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, sentence, project):
    result = CliRunner().invoke(main, ["search", "run", *words])
    assert result.exit_code == 1
    assert sentence in result.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "127.0.0.1", "127.0.0.1:head", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_refused(address, project, monkeypatch):
    pytest.importorskip("ray", reason="no Ray here: `make setup RAY=1`")
    result = search_on(address.format(port=free_port()), monkeypatch)
    assert result.exit_code == 1
    assert "No Ray cluster answers at 127.0.0.1" in result.stderr and "ray start --head" in result.stderr


def test_without_ray_the_sentence_says_how_to_install_it(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    result = search_on("head:6379", monkeypatch)
    assert result.exit_code == 1
    assert "make setup RAY=1" in result.stderr


def search_on(address: str, monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", POSTGRESQL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return CliRunner().invoke(main, ["search", "run", "--engine", "ray", "--address", address])
