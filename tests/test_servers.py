"""Runs logged over the network: to MLflow's server with sqlite and with PostgreSQL, and to PostgreSQL itself."""

import itertools
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import guesser
import onnx
import onnx.parser
import psutil
import pytest
import workspace
from click.testing import CliRunner
from servers import PASSWORD, free_port, get, mlflow_server, postgres, running

from captchalab import params
from captchalab.cli import main
from captchalab.project import Project
from captchalab.registry import champion, promotion
from captchalab.registry.registry import Registry
from captchalab.registry.versions import fetch
from captchalab.tracking import packaging
from captchalab.tracking.models import log_test
from captchalab.tracking.runs import Background, RunWriter, sync
from captchalab.tracking.store import Store
from captchalab.training.journal import HISTORY, Journal

ABOUT = {
    "name": "ctc finetune",
    "kind": "ctc",
    "stage": "finetune",
    "experiment": "tests",
    "device": "a CPU",
    "params": {"learning_rate": 1e-4, "conv_depth": 1, "rnn_size": 8},
    "tags": {"kind": "ctc", "stage": "finetune", "git_sha": "abc", "data_md5_test": "123.dir"},
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def address(request, database, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as servers:
        if request.param == "postgresql":
            uri = servers.enter_context(postgres(folder))
        else:
            uri = f"sqlite:///{shutil.copy(database, folder)}"
        yield servers.enter_context(mlflow_server(folder, uri))


@pytest.fixture(scope="module")
def store(address, tmp_path_factory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        yield Store.of(Project(tmp_path_factory.mktemp("project")))


@pytest.fixture(scope="module")
def client(store):
    return store.client()


@pytest.fixture
def journal(tmp_path) -> Journal:
    """One epoch of a fine-tuning."""
    journal = Journal.begin(tmp_path / "models" / "ctc" / "finetune", ABOUT)
    journal.add(metrics(1), 2.0, 64)
    return journal


def metrics(epoch: int) -> dict[str, float]:
    row = dict.fromkeys(HISTORY, 1.0 / epoch)
    return {**row, "epoch": epoch, "step": 8 * epoch, "images_seen": 64 * epoch}


def finish(journal: Journal) -> None:
    best = journal.epochs()[-1].figures
    journal.end({"stopped": "all epochs", "best_epoch": len(journal.epochs()), "best": best})
    (journal.folder / "model.keras").write_bytes(b"weights" * 1000)


@pytest.fixture(scope="module")
def exported(smoke, tmp_path_factory) -> Path:
    """models/cnn as if exported: an ONNX file whose logits are its images, built in no time."""
    captcha, folder = smoke.captcha, tmp_path_factory.mktemp("exported")
    H, W, C = captcha.image_shape
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 17]>
        reader (uint8[B, {H}, {W}, {C}] images) => (float[B, {captcha.length}, {len(captcha.alphabet)}] logits) {{
            rows = Constant <value = int64[3] {{-1, {captcha.length}, {H * W * C // captcha.length}}}> ()
            start = Constant <value = int64[1] {{0}}> ()
            end = Constant <value = int64[1] {{{len(captcha.alphabet)}}}> ()
            axis = Constant <value = int64[1] {{2}}> ()
            pixels = Cast <to = 1> (images)
            cut = Reshape (pixels, rows)
            logits = Slice (cut, start, end, axis)
        }}""")
    about = {"kind": "cnn", **captcha.model_dump(), "network_md5": "of model.keras"}
    onnx.helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    for path in (folder / "export" / "model.onnx", folder / "finetune" / "model.keras"):
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
    return folder


def steps(client, run_id: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, "val/exact")]


def download(client, run_id: str, path: str, to: Path) -> bytes:
    return Path(client.download_artifacts(run_id, path, str(to))).read_bytes()


def test_a_run_has_the_journals_params_tags_and_metrics(store, client, journal):
    run = client.get_run(RunWriter(journal, store).update())
    assert run.data.params == {"learning_rate": "0.0001", "conv_depth": "1", "rnn_size": "8"}
    assert run.data.tags["journal_id"] == journal.about["id"]
    assert run.data.metrics["val/exact"] == 1.0
    assert run.info.status == "RUNNING"


def test_a_stage_resumed_after_a_kill_resumes_its_run(store, client, journal):
    run_id = RunWriter(journal, store).update()
    again = Journal(journal.folder)  # another process
    again.add(metrics(2), 2.0, 64)
    assert RunWriter(again, store).update() == run_id
    assert steps(client, run_id) == [64, 128]


def test_artifacts_come_back_as_they_were_and_lie_with_the_server(store, client, journal, tmp_path):
    finish(journal)
    run_id = sync(journal.folder, store)
    assert sync(journal.folder, store) == run_id, "logged once"
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    for path in ("model/model.keras", "journal/history.csv"):
        assert download(client, run_id, path, tmp_path) == (journal.folder / Path(path).name).read_bytes()
    assert not (store.folder / "artifacts").exists()


def test_test_metrics_and_the_model_are_on_the_run(store, client, project, exported, tmp_path):
    workspace.put(project, "cnn", exported, 100)
    model_id = log_test(project, "cnn", store)
    assert log_test(project, "cnn", store, again=False) == model_id
    run = client.get_run(sync(project.stage("cnn", "finetune"), store))
    assert run.data.metrics["test/exact"] == 0.5
    assert (
        download(client, run.info.run_id, "test/metrics.json", tmp_path)
        == (project.report("cnn") / "metrics.json").read_bytes()
    )
    model = client.get_logged_model(model_id)
    assert {metric.key: metric.dataset_digest for metric in model.metrics}["test/exact"] == "123.dir"
    onnx_file = fetch(store, client, model_id, packaging.ONNX, tmp_path / "model", "the model")
    assert onnx_file.read_bytes() == project.onnx("cnn").read_bytes()


def test_a_better_network_becomes_champion_and_others_pull_it(store, database, smoke_text, tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    project = workspace.make(tmp_path / "guessers", guesser.text(smoke_text), database)
    parameters = params.load(project.params)
    registry = Registry(project, store)
    for answers in (0.2, 0.8):
        made = guesser.make(tmp_path / str(answers), parameters.captcha, answers)
        workspace.put(project, "ctc", made, 100)
        promotion.promote(registry, parameters.promote, workers=1)
    assert [(version.number, version.aliases) for version in registry.versions()] == [
        (2, ["champion"]),
        (1, ["previous"]),
    ]
    assert [version.tags["gate_attempt"] for version in registry.versions()] == ["2", "1"]
    registry.rollback()
    assert registry.find("champion").number == 1
    colleague = Project(tmp_path / "colleague")  # another machine with the same server
    assert Registry(colleague, Store.of(colleague)).pull_champion()
    assert champion.about(colleague)["version"] == 1
    assert champion.network(colleague).read_bytes() == champion.network(project).read_bytes()


def test_a_training_logs_to_the_server_as_it_runs(store, client, journal):
    background = Background(store)
    background.begin(journal)
    journal.add(metrics(2), 2.0, 64)
    background.epoch()
    finish(journal)
    background.end("FINISHED")
    assert journal.run_id
    assert steps(client, journal.run_id) == [64, 128]
    assert client.get_run(journal.run_id).info.status == "FINISHED"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgresql")) as uri:
        yield uri


def test_runs_are_logged_in_postgresql_without_a_server_too(postgresql, journal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql)
    store = Store.of(Project(tmp_path))
    finish(journal)
    run_id = sync(journal.folder, store)
    assert sync(journal.folder, store) == run_id
    client = store.client()
    assert client.get_run(run_id).data.metrics["val/exact"] == 1.0
    assert download(client, run_id, "model/model.keras", tmp_path) == (journal.folder / "model.keras").read_bytes()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_host_that_never_answers_is_asked_once_and_not_again(scheme, project, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x")
        done = CliRunner().invoke(main, ["models"])
        assert connections(silent) == 1, "MLflow itself asks for more than a minute"
    assert done.exit_code == 1
    assert "cannot be used (" in done.stderr and done.stderr.count("\n") == 1


def connections(server: socket.socket) -> int:
    """How many connections wait to be accepted."""
    server.setblocking(False)
    for count in itertools.count():
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError


def test_the_pages_of_a_database_show_its_password_nowhere(postgresql, project, tmp_path):
    """Neither in what `captchalab ui` prints, nor on a command line, which every user of the machine can read."""
    port, log = free_port(), tmp_path / "ui.log"
    command = [sys.executable, "-m", "captchalab.cli", "ui", "--port", port]
    where = {"cwd": project.root, "env": {**os.environ, "MLFLOW_TRACKING_URI": postgresql}}
    with running(command, log, lambda: get(f"http://127.0.0.1:{port}/health"), **where):
        lines = [" ".join(process.cmdline()) for process in processes_of(port)]
        get(f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=1")
    assert lines
    assert PASSWORD not in " ".join(lines) + log.read_text()


def processes_of(port: int) -> list[psutil.Process]:
    """The server on a port, and all that it started."""
    owners = {c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port}
    found = [psutil.Process(pid) for pid in owners if pid]
    # uvicorn's workers inherit the socket, so that the owner may be either of them
    return list({one for process in found for one in (process, *process.parents()[:1], *process.children(True))})


def test_nothing_of_a_promotion_shows_the_password_of_the_database(postgresql, project, exported, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql)
    store = Store.of(project)
    workspace.put(project, "cnn", exported, 100)
    rules = params.load(project.params).promote
    outcome = promotion.promote(Registry(project, store), rules, force="whatever the rules say", workers=1)
    assert outcome.version is not None
    client = store.client()
    run = client.get_run(outcome.run_id)
    version = client.get_model_version("captcha", "1")
    written = [path for path in project.root.rglob("*") if path.is_file()]
    assert any(path.name == "about.json" for path in written)
    for said in (run.to_dictionary(), dict(version), client.get_experiment(run.info.experiment_id).tags):
        assert PASSWORD not in str(said)
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
