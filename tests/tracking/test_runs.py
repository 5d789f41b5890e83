"""Journals against a real MLflow store of sqlite and files."""

import shutil
import time

import pytest
import workspace

from captchalab import files, params
from captchalab.data import dataset
from captchalab.project import Project
from captchalab.registry.registry import fetch
from captchalab.tracking import packaging, relocation
from captchalab.tracking.runs import Background, Telling, find_run, log_test, sync
from captchalab.tracking.store import Store
from captchalab.training.journal import HISTORY, Journal


def figures(epoch: int) -> dict[str, float]:
    row = dict.fromkeys(HISTORY, 1.0 / epoch)
    return {**row, "epoch": epoch, "step": 8 * epoch, "images_seen": 64 * epoch}


ABOUT = {
    "name": "ctc finetune",
    "kind": "ctc",
    "stage": "finetune",
    "experiment": "tests",
    "device": "a CPU",
    "params": {"learning_rate": 1e-4, "conv_depth": 1, "rnn_size": 8},
    "tags": {"kind": "ctc", "stage": "finetune", "git_sha": "abc"},
}


@pytest.fixture(scope="module")
def store(database, tmp_path_factory) -> Store:
    """One store for the module."""
    store = Store.of(Project(tmp_path_factory.mktemp("store")))
    shutil.copytree(database.parent, store.folder)
    relocation.relocate(store.folder)
    return store


@pytest.fixture(scope="module")
def client(store):
    return store.client()


@pytest.fixture
def journal(tmp_path) -> Journal:
    journal = Journal.begin(tmp_path / "finetune", ABOUT)
    journal.add(figures(1), 2.0, 64)
    return journal


def finish(journal: Journal) -> None:
    best = journal.epochs()[-1].figures
    journal.end({"stopped": "all epochs", "best_epoch": len(journal.epochs()), "best": best})
    (journal.folder / "model.keras").write_bytes(b"weights")


def steps(client, run_id: str, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, name)]


def test_a_run_has_the_journals_params_tags_and_figures(store, client, journal):
    run = client.get_run(Telling(journal, store).tell())
    assert run.info.run_name == "ctc finetune rnn 8 depth 1 lr 0.0001"
    assert run.data.params == {"learning_rate": "0.0001", "conv_depth": "1", "rnn_size": "8"}
    assert run.data.tags["git_sha"] == "abc"
    assert run.data.tags["journal_id"] == journal.about["id"]
    assert run.data.metrics["val/exact"] == 1.0
    assert run.data.metrics["train/images_per_s"] == 32.0
    assert "mlflow.parentRunId" not in run.data.tags


def test_telling_twice_logs_each_epoch_once(store, client, journal):
    run_id = Telling(journal, store).tell()
    journal.add(figures(2), 2.0, 64)
    telling = Telling(journal, store)
    assert telling.tell() == run_id
    assert telling.tell() == run_id
    assert steps(client, run_id, "val/loss") == [1, 2]


def test_a_stage_that_goes_on_after_a_kill_goes_on_in_its_run(store, client, journal):
    run_id = Telling(journal, store).tell()
    again = Journal(journal.folder)  # another process
    again.go_back_to(1)
    again.add(figures(2), 2.0, 64)
    assert Telling(again, store).tell() == run_id
    assert steps(client, run_id, "val/exact") == [1, 2]


def test_a_run_that_was_not_written_down_is_found_by_the_journals_id(store, client, journal):
    run_id = Telling(journal, store).tell()
    files.write_json(journal.folder / "run.json", {"run_id": None})
    assert find_run(client, journal) == run_id


def test_the_end_brings_best_figures_and_artifacts(store, client, journal):
    finish(journal)
    telling = Telling(journal, store)
    telling.end("FINISHED")
    run = client.get_run(telling.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best/val/exact"] == 1.0
    assert run.data.metrics["images_seen"] == 64
    listed = {
        item.path for folder in ("model", "journal", "plots") for item in client.list_artifacts(telling.run_id, folder)
    }
    assert listed >= {"model/model.keras", "journal/history.csv", "plots/curves.png"}


def test_artifacts_lie_below_the_projects_mlruns(store, client, journal):
    run = client.get_run(Telling(journal, store).tell())
    assert run.info.artifact_uri.startswith((store.folder / "artifacts").as_uri())


def test_the_experiment_says_how_to_read_it(store, client, journal):
    Telling(journal, store).tell()
    assert "test/exact" in client.get_experiment_by_name("tests").tags["mlflow.note.content"]


def test_sync_tells_of_a_finished_stage_once_and_leaves_its_files(store, client, journal):
    finish(journal)
    before = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    run_id = sync(journal.folder, store)
    assert sync(journal.folder, store) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert {path.name: path.read_bytes() for path in journal.folder.iterdir()} == before


def test_system_metrics_are_on_the_run(store, client, journal, monkeypatch):
    telling = Telling(journal, store)
    run_id = telling.tell()
    monkeypatch.setattr("captchalab.tracking.runs.SYSTEM_EVERY_S", 0.2)
    telling.watch_system()
    deadline = time.monotonic() + 15
    while (
        time.monotonic() < deadline and "system/cpu_utilization_percentage" not in client.get_run(run_id).data.metrics
    ):
        time.sleep(0.2)
    telling.unwatch_system()
    assert "system/cpu_utilization_percentage" in client.get_run(run_id).data.metrics


def test_a_store_that_is_away_costs_one_warning_and_no_time(journal, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody answers
    background = Background(Store.of(Project(tmp_path)))
    started = time.monotonic()
    background.begin(journal)
    background.epoch()
    assert time.monotonic() - started < 0.5, "training waits for nothing"
    background.end("FINISHED")
    assert time.monotonic() - started < 60
    assert capfd.readouterr().err.count("does not take this run") == 1
    assert journal.run_id is None


def test_the_splits_are_inputs_of_the_run_by_dvcs_md5(store, client, tmp_path):
    tags = {**ABOUT["tags"], "data_md5_train": "1.dir", "data_md5_valid": "2.dir", "data_md5_test": "3.dir"}
    journal = Journal.begin(tmp_path / "finetune", {**ABOUT, "tags": tags})
    run = client.get_run(Telling(journal, store).tell())
    assert {item.dataset.name: item.dataset.digest for item in run.inputs.dataset_inputs} == {
        "train": "1.dir",
        "valid": "2.dir",
    }


@pytest.fixture
def network(project, untrained) -> Project:
    """A fine-tuned network of a workspace that no run knows yet."""
    workspace.put(project, "ctc", untrained["ctc"], 100)
    return project


def test_test_figures_land_on_the_fine_tuned_networks_run(network, project):
    here = Store.of(project)
    trained = sync(project.stage("ctc", "train"), here)
    log_test(project, "ctc", here)
    client = here.client()
    run = client.get_run(sync(project.stage("ctc", "finetune"), here))
    figures = run.data.metrics
    assert (figures["test/exact"], figures["test/exact_low"], figures["test/n"]) == (0.5, 0.43136, 200)
    assert (figures["network/parameters"], figures["network/images_seen"], figures["network/minutes"]) == (7, 128, 1.5)
    assert run.data.params["train/learning_rate"] == "0.001"
    assert run.data.tags["train_run_id"] == trained
    assert "test/metrics.json" in {item.path for item in client.list_artifacts(run.info.run_id, "test")}


def test_figures_are_there_once_and_again_only_where_asked(network, project):
    here = Store.of(project)
    model_id = log_test(project, "ctc", here)
    workspace.put_reports(project, "ctc", 150)
    assert log_test(project, "ctc", here, again=False) == model_id
    client = here.client()
    assert client.get_run(sync(project.stage("ctc", "finetune"), here)).data.metrics["test/exact"] == 0.5
    assert log_test(project, "ctc", here) == model_id, "the same network, the same model"
    assert client.get_run(sync(project.stage("ctc", "finetune"), here)).data.metrics["test/exact"] == 0.75


def test_the_network_is_a_logged_model_and_its_figures_hang_on_the_test_split(network, project):
    here = Store.of(project)
    started = time.monotonic()
    model_id = log_test(project, "ctc", here)
    assert time.monotonic() - started < 10, "under 3 s on an idle machine; tests share theirs"
    client = here.client()
    model = client.get_logged_model(model_id)
    assert (model.name, str(model.status), model.source_run_id) == (
        "captcha-ctc",
        "READY",
        sync(project.stage("ctc", "finetune"), here),
    )
    [found] = client.search_logged_models(
        [model.experiment_id],
        "metrics.`test/exact` > 0.4",
        datasets=[{"dataset_name": "test", "dataset_digest": "123.dir"}],
    )
    assert found.model_id == model_id


def test_a_network_exported_anew_is_a_model_of_its_own(network, project, untrained):
    here = Store.of(project)
    before = log_test(project, "ctc", here)
    project.onnx("ctc").write_bytes((untrained["cnn"] / "export" / "model.onnx").read_bytes())
    assert log_test(project, "ctc", here) != before


def test_tested_on_another_split_the_model_has_that_ones_predictions(network, project, tmp_path):
    here = Store.of(project)
    model_id = log_test(project, "ctc", here)
    captcha = params.load(project.params).captcha
    dataset.generate(captcha, "test", params.SplitParams(images=50), 8, project.split("test"), workers=1)
    (project.lock).write_text("stages: {generate@test: {outs: [{path: data/test, md5: 456.dir}]}}\n")
    workspace.put_reports(project, "ctc", 40)
    assert log_test(project, "ctc", here) == model_id
    client = here.client()
    for path in (packaging.PREDICTIONS, packaging.SPLIT):
        fetch(here, client, model_id, path, tmp_path, "the model")
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 51
    assert files.read_json(tmp_path / "meta.json") == files.read_json(project.split("test") / "meta.json")
    digests = {
        metric.dataset_digest: metric.value
        for metric in client.get_logged_model(model_id).metrics
        if metric.key == "test/exact"
    }
    assert digests["456.dir"] == 0.8
