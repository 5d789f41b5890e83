"""Journals against a real MLflow store of sqlite and files."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captchalab import files, tracking
from captchalab.journal import HISTORY, Journal
from captchalab.tracking import Background, Store, Telling, attempt, find_run, log_test, sync


def figures(epoch: int) -> dict[str, float]:
    row = dict.fromkeys(HISTORY, 1.0 / epoch)
    return {**row, "epoch": epoch, "step": 8 * epoch, "images_seen": 64 * epoch}


ABOUT = {
    "name": "ctc finetune",
    "kind": "ctc",
    "stage": "finetune",
    "experiment": "tests",
    "device": "a CPU",
    "params": {"learning_rate": 1e-4, "rnn_size": 8},
    "tags": {"kind": "ctc", "stage": "finetune", "git_sha": "abc"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One database for the module: making one takes seconds."""
    return Store.of(tmp_path_factory.mktemp("store"))


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


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    making = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from captchalab import tracking as t; t.Store.of(t.Path(sys.argv[1])).client()",
            str(tmp_path),
        ],
    )
    folder = tmp_path / "mlruns"
    while not any(path.stat().st_size for path in folder.glob(".mlflow.db.partial-*")):
        assert making.poll() is None
        time.sleep(0.01)
    making.kill()
    making.wait()
    assert not (folder / "mlflow.db").exists()
    assert len(Store.of(tmp_path).client().search_experiments()) == 1
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [".mlflow.lock", "mlflow.db"]


def test_a_run_has_the_journals_params_tags_and_figures(store, client, journal):
    run = client.get_run(Telling(journal, store).tell())
    assert run.info.run_name == "ctc finetune"
    assert run.data.params == {"learning_rate": "0.0001", "rnn_size": "8"}
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


def test_test_figures_land_on_the_fine_tuned_networks_run(store, client, journal, tmp_path):
    finish(journal)
    (tmp_path / "reports").mkdir()
    files.write_json(tmp_path / "reports" / "metrics.json", {"exact": 0.97, "n": 100, "parameters": 7})
    log_test(journal.folder, store, tmp_path / "reports")
    files.write_json(tmp_path / "reports" / "metrics.json", {"exact": 0.5})
    log_test(journal.folder, store, tmp_path / "reports", again=False)
    run = client.get_run(find_run(client, journal))
    assert run.data.metrics["test/exact"] == 0.97
    assert run.data.metrics["network/parameters"] == 7
    assert [item.path for item in client.list_artifacts(run.info.run_id, "test")] == ["test/metrics.json"]


def test_system_metrics_are_on_the_run(store, client, journal, monkeypatch):
    telling = Telling(journal, store)
    run_id = telling.tell()
    monkeypatch.setattr(tracking, "SYSTEM_EVERY_S", 0.2)
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
    background = Background(Store.of(tmp_path))
    started = time.monotonic()
    background.begin(journal)
    background.epoch()
    assert time.monotonic() - started < 0.5, "training waits for nothing"
    background.end("FINISHED")
    assert time.monotonic() - started < 60
    assert capfd.readouterr().err.count("does not take this run") == 1
    assert journal.run_id is None


def test_attempt_says_what_failed(store, capsys):
    def fail() -> None:
        raise ValueError("the disk\nis full")

    assert not attempt(store, fail)
    assert "(the disk is full)" in capsys.readouterr().err
    assert attempt(store, lambda: None)


def test_the_store_is_the_projects_whatever_folder_one_is_in(root, tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(root / "tests")
    assert Store.of(files.project_root()).uri == f"sqlite:///{root}/mlruns/mlflow.db"


def test_dvcs_temporary_copies_share_the_main_projects_store(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert Store.of(tmp_path / "copy").folder == tmp_path / "main" / "mlruns"


def test_mlflow_tracking_uri_points_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    store = Store.of(tmp_path)
    assert (store.uri, store.artifacts) == ("http://127.0.0.1:5001", None)


def test_three_processes_at_once_make_one_database(tmp_path):
    script = (
        "import sys; from pathlib import Path; from captchalab.tracking import Store, experiment_id\n"
        "store = Store.of(Path(sys.argv[1])); print(experiment_id(store.client(), store, 'one'))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ids = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(ids)) == 1


def test_data_md5_is_the_one_in_dvc_lock(tmp_path):
    assert tracking.data_md5(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  generate@test:\n    outs:\n    - path: data/test\n      md5: 123.dir\n"
    )
    assert tracking.data_md5(tmp_path) == {"test": "123.dir"}


def test_tags_say_where_a_run_comes_from(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    (tmp_path / "dvc.lock").write_text("schema: '1.0'\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    trained = tmp_path / "models" / "ctc" / "train"
    trained.mkdir(parents=True)
    files.write_json(trained / "run.json", {"run_id": "r1"})
    tags = tracking.run_tags(tmp_path, "ctc", "finetune")
    assert len(tags["git_sha"]) == 40
    assert (tags["git_dirty"], tags["train_run_id"]) == ("false", "r1")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    assert tracking.run_tags(tmp_path, "ctc", "train")["git_dirty"] == "false", "the chain writes it as it goes"
    (tmp_path / "file").write_text("2")
    assert tracking.run_tags(tmp_path, "ctc", "train")["git_dirty"] == "true"
    shutil.rmtree(tmp_path / ".git")
    assert tracking.run_tags(Path(tmp_path), "ctc", "train")["git_sha"] == "none"
