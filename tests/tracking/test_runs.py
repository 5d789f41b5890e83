"""Journals against a real MLflow store of sqlite and files."""

import shutil
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from captchalab import files
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.tracking import relocation
from captchalab.tracking.runs import Background, RunWriter, find_run, sync
from captchalab.tracking.store import Store
from captchalab.training.journal import HISTORY, Journal


def metrics(epoch: int, images: int = 64) -> dict[str, float]:
    row = dict.fromkeys(HISTORY, 1.0 / epoch)
    return {**row, "epoch": epoch, "step": 8 * epoch, "images_seen": images * epoch}


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
    journal.add(metrics(1), 2.0, 64)
    return journal


def finish(journal: Journal) -> None:
    best = journal.epochs()[-1].figures
    journal.end({"stopped": "all epochs", "best_epoch": len(journal.epochs()), "best": best})
    (journal.folder / "model.keras").write_bytes(b"weights")


def steps(client, run_id: str, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, name)]


def test_a_run_has_the_journals_params_tags_and_metrics(store, client, journal):
    run = client.get_run(RunWriter(journal, store).update())
    assert run.info.run_name == "ctc finetune rnn 8 depth 1 lr 0.0001"
    assert run.data.params == {"learning_rate": "0.0001", "conv_depth": "1", "rnn_size": "8"}
    assert run.data.tags["git_sha"] == "abc"
    assert run.data.tags["journal_id"] == journal.about["id"]
    assert run.data.metrics["val/exact"] == 1.0
    assert run.data.metrics["train/images_per_s"] == 32.0
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_second_update_logs_each_epoch_once(store, client, journal):
    run_id = RunWriter(journal, store).update()
    journal.add(metrics(2), 2.0, 64)
    writer = RunWriter(journal, store)
    assert writer.update() == run_id
    assert writer.update() == run_id
    assert steps(client, run_id, "val/loss") == [64, 128]


def test_a_stage_resumed_after_a_kill_resumes_its_run(store, client, journal):
    run_id = RunWriter(journal, store).update()
    again = Journal(journal.folder)  # another process
    again.go_back_to(1)
    again.add(metrics(2), 2.0, 64)
    assert RunWriter(again, store).update() == run_id
    assert steps(client, run_id, "val/exact") == [64, 128]


def test_a_run_missing_from_run_json_is_found_by_the_journals_id(store, client, journal):
    run_id = RunWriter(journal, store).update()
    files.write_json(journal.folder / "run.json", {"run_id": None})
    assert find_run(client, journal) == run_id


def test_the_end_logs_the_best_epoch_and_the_artifacts(store, client, journal):
    finish(journal)
    writer = RunWriter(journal, store)
    writer.end("FINISHED")
    run = client.get_run(writer.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best/val/exact"] == 1.0
    assert run.data.metrics["images_seen"] == 64
    listed = {
        item.path for folder in ("model", "journal", "plots") for item in client.list_artifacts(writer.run_id, folder)
    }
    assert listed >= {"model/model.keras", "journal/history.csv", "plots/curves.png"}


def test_artifacts_lie_below_the_projects_mlruns(store, client, journal):
    run = client.get_run(RunWriter(journal, store).update())
    assert run.info.artifact_uri.startswith((store.folder / "artifacts").as_uri())


def test_the_experiment_says_how_to_read_it(store, client, journal):
    RunWriter(journal, store).update()
    assert "test/exact" in client.get_experiment_by_name("tests").tags["mlflow.note.content"]


def test_sync_logs_a_finished_stage_once_and_leaves_its_files(store, client, journal):
    finish(journal)
    before = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    run_id = sync(journal.folder, store)
    assert sync(journal.folder, store) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert {path.name: path.read_bytes() for path in journal.folder.iterdir()} == before


def test_system_metrics_are_on_the_run(store, client, journal, monkeypatch):
    writer = RunWriter(journal, store)
    run_id = writer.update()
    monkeypatch.setattr("captchalab.tracking.runs.SYSTEM_EVERY_S", 0.2)
    writer.start_monitor()
    deadline = time.monotonic() + 150
    while (
        time.monotonic() < deadline and "system/cpu_utilization_percentage" not in client.get_run(run_id).data.metrics
    ):
        time.sleep(0.2)
    writer.stop_monitor()
    assert "system/cpu_utilization_percentage" in client.get_run(run_id).data.metrics


def test_training_never_waits_for_a_store_and_hears_of_an_unreachable_one_once(journal, tmp_path, monkeypatch, capfd):
    answered = threading.Event()

    def client(self):
        answered.wait()
        raise ConnectionError("no route")

    monkeypatch.setattr(Store, "client", client)
    background = Background(Store.of(Project(tmp_path)))
    background.begin(journal)
    background.epoch()  # both return while the store is still silent: nothing else sets the event
    answered.set()
    background.end("FINISHED")
    assert capfd.readouterr().err.count("did not log this run (no route): the work continues") == 1
    assert journal.run_id is None


def test_the_splits_are_inputs_of_the_run_by_dvcs_md5(store, client, tmp_path):
    tags = {**ABOUT["tags"], "data_md5_train": "1.dir", "data_md5_valid": "2.dir", "data_md5_test": "3.dir"}
    journal = Journal.begin(tmp_path / "finetune", {**ABOUT, "tags": tags})
    run = client.get_run(RunWriter(journal, store).update())
    assert {item.dataset.name: item.dataset.digest for item in run.inputs.dataset_inputs} == {
        "train": "1.dir",
        "valid": "2.dir",
    }


# the whole curve: both stages on the run of a fine-tuned network, against the images seen


@pytest.fixture
def network(tmp_path) -> tuple[Journal, Journal]:
    """The journals of models/ctc/train, finished with three epochs of 500 images, and of its fine-tuning, one epoch."""
    train = Journal.begin(tmp_path / "train", {**ABOUT, "stage": "train", "name": "ctc train"})
    for epoch in (1, 2, 3):
        train.add(metrics(epoch, 500), 2.0, 500)
    finish(train)
    tags = {**ABOUT["tags"], "train_journal_id": train.about["id"]}
    finetune = Journal.begin(tmp_path / "finetune", {**ABOUT, "tags": tags})
    finetune.add(metrics(1), 2.0, 64)
    return train, finetune


WHOLE = [500, 1000, 1500, 1564, 1628]


def logged(client, run_id: str) -> dict[str, list[tuple[int, float, int]]]:
    """All points of the metrics that are logged each epoch."""
    names = ("val/exact", "val/cer", "val/loss", "train/loss", "learning_rate", "images_seen", "epoch_s")
    return {name: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, name)] for name in names}


def test_a_fine_tuned_networks_run_has_the_points_of_both_stages(store, client, network):
    train, finetune = network
    run_id = RunWriter(finetune, store, train).update()
    points = logged(client, run_id)
    assert {name: [step for step, _, _ in found] for name, found in points.items()} == dict.fromkeys(points, WHOLE[:4])
    assert [value for _, value, _ in points["images_seen"]] == WHOLE[:4]
    assert client.get_run(run_id).data.metrics["val/exact"] == 1.0, "of the last epoch of stage 2"


def test_a_run_of_stage_1_has_its_own_points_alone(store, client, network):
    assert steps(client, sync(network[0].folder, store), "val/exact") == WHOLE[:3]


def test_a_resumed_run_has_every_point_of_both_stages_once(store, client, network):
    train, finetune = network
    run_id = RunWriter(finetune, store, train).update()
    again = Journal(finetune.folder)  # another process
    again.add(metrics(2), 2.0, 64)
    writer = RunWriter(again, store, train)
    assert (writer.update(), writer.update()) == (run_id, run_id)
    assert {name: [step for step, _, _ in found] for name, found in logged(client, run_id).items()} == dict.fromkeys(
        logged(client, run_id), WHOLE
    )


def test_sync_makes_the_run_that_logging_while_training_makes(store, client, network, tmp_path):
    train, finetune = network
    background = Background(store, train)
    background.begin(finetune)
    finetune.add(metrics(2), 2.0, 64)
    background.epoch()
    finish(finetune)
    background.end("FINISHED")
    live = client.get_run(finetune.run_id)

    copies = Path(shutil.copytree(train.folder.parent, tmp_path / "copies"))
    files.write_json(copies / "finetune" / "run.json", {"run_id": None})
    client.set_tag(live.info.run_id, "journal_id", "forgotten")  # as in a store that knows nothing of it
    later = client.get_run(sync(copies / "finetune", store))
    assert later.info.run_id != live.info.run_id
    assert logged(client, later.info.run_id) == logged(client, live.info.run_id)
    of_journal = [key for key in live.data.metrics if not key.startswith("system/")]
    assert {key: later.data.metrics[key] for key in of_journal} == {key: live.data.metrics[key] for key in of_journal}
    assert later.data.metrics["best/val/exact"] == 0.5 and later.data.metrics["best/epoch"] == 2
    assert (later.info.start_time, later.info.end_time) == (live.info.start_time, live.info.end_time)


def test_sync_completes_a_run_whose_store_went_away_during_training(store, client, network):
    train, finetune = network
    run_id = RunWriter(finetune, store, train).update()
    finetune.add(metrics(2), 2.0, 64)
    finish(finetune)
    assert sync(finetune.folder, store) == run_id
    assert steps(client, run_id, "val/exact") == WHOLE
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_stage_1_that_was_trained_again_since_is_no_part_of_the_curve(store, client, network):
    train, finetune = network
    again = Journal.begin(train.folder, train.about | {"stage": "train"})
    journal = files.read_json(again.folder / "journal.json")
    files.write_json(again.folder / "journal.json", {**journal, "id": "another training"})
    assert steps(client, RunWriter(finetune, store, again).update(), "val/exact") == [64]


@pytest.mark.parametrize(("train_run_id", "expected"), [("r1", WHOLE[:4]), ("another", [64])])
def test_journals_without_the_id_of_stage_1_go_by_its_run(store, client, network, train_run_id, expected):
    train, finetune = network
    files.write_json(train.folder / "run.json", {"run_id": "r1"})
    about = finetune.about
    files.write_json(
        finetune.folder / "journal.json", {**about, "tags": {**ABOUT["tags"], "train_run_id": train_run_id}}
    )
    assert steps(client, RunWriter(finetune, store, train).update(), "val/exact") == expected


def test_more_epochs_than_mlflow_takes_in_one_call(store, client, tmp_path):
    journal = Journal.begin(tmp_path / "train", {**ABOUT, "stage": "train"})
    rows = [metrics(epoch) for epoch in range(1, 251)]
    text = "\n".join([",".join(HISTORY), *(",".join(str(row[key]) for key in HISTORY) for row in rows)])
    (journal.folder / "history.csv").write_text(text + "\n")
    timing = {"seconds": 1.0, "images_per_s": 64.0, "ended_at": "2026-01-02T03:04:05+00:00"}
    files.write_json(journal.folder / "timing.json", {"device": "a CPU", "train_s": 250, "epochs": [timing] * 250})
    assert len(steps(client, RunWriter(journal, store).update(), "val/loss")) == 250


# times and missing files


def test_a_run_synced_a_week_later_has_the_duration_the_stage_had(store, client, network):
    train, _ = network
    times = {"started_at": "2026-01-02T03:00:00+00:00", "ended_at": "2026-01-02T03:30:00+00:00"}
    files.write_json(train.folder / "journal.json", {**train.about, **times})
    info = client.get_run(sync(train.folder, store)).info
    assert (info.end_time - info.start_time) / 60_000 == 30
    assert info.start_time == datetime.fromisoformat("2026-01-02T03:00:00+00:00").timestamp() * 1000


def test_a_failed_stage_ends_when_it_fails(store, client, journal):
    before = int(time.time() * 1000)
    writer = RunWriter(journal, store)
    writer.end("FAILED")
    run = client.get_run(writer.run_id)
    assert (run.info.status, run.info.end_time >= before) == ("FAILED", True)


@pytest.mark.parametrize("name", ["model.keras", "timing.json"])
def test_sync_names_the_missing_file_of_the_stage(store, network, name):
    (network[0].folder / name).unlink()
    with pytest.raises(UserError, match=rf"train/{name} is missing: make it with `dvc repro`, or fetch it"):
        sync(network[0].folder, store)
