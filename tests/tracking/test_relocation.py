"""Real stores of sqlite and files whose folder is really moved."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.tracking.relocation import COLUMNS, Place, check, moved_from, plan, relocate
from captchalab.tracking.store import Store, experiment_id


class Made(NamedTuple):
    """A project with one run, one logged model and two versions of it, made at `born` and moved to `stash`."""

    born: Path
    stash: Path
    run_id: str
    model_id: str


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """Made once: a database takes seconds."""
    born = tmp_path_factory.mktemp("made") / "Prüfung eins"
    store = Store.of(Project(born))
    client = store.client()
    experiment = experiment_id(client, store, "tests")
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "of the run", "notes/a.txt")
    model = client.create_logged_model(experiment, name="captcha", source_run_id=run_id)
    (born / "model").mkdir()
    (born / "model" / "model.onnx").write_text("of the model")
    client.log_model_artifacts(model.model_id, str(born / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("captcha")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)  # MLflow's registry looks for logged models there
        client.create_model_version("captcha", f"models:/{model.model_id}", run_id)
        client.create_model_version("captcha", model.artifact_location, run_id)
    return Made(born, born.rename(born.with_name("stash")), run_id, model.model_id)


@pytest.fixture(autouse=True)
def as_in_another_process():
    """MLflow remembers where a run's files are as long as a process lives; a person's next command is a new one."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


@pytest.fixture
def moved(made, tmp_path) -> Path:
    """mlruns/ of the project after its move to a folder with a space and an umlaut in its name."""
    return Path(shutil.copytree(made.stash, tmp_path / "Über siedlung")) / "mlruns"


def read_all(made: Made, folder: Path, to: Path) -> list[str]:
    """What MLflow reads of the run, the logged model and both versions."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    uris = [
        client.get_logged_model(made.model_id).artifact_location,
        *(client.get_model_version_download_uri("captcha", version) for version in ("1", "2")),
        client.get_model_version("captcha", "2").source,
    ]
    to.mkdir()
    found = [Path(client.download_artifacts(made.run_id, "notes/a.txt", str(to))).read_text()]
    for number, uri in enumerate(uris):
        found.append((Path(download_artifacts(uri, dst_path=str(to / str(number)))) / "model.onnx").read_text())
    return found


def locations(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return [row[0] for table, column in COLUMNS for row in opened.execute(f"SELECT {column} FROM {table}")]


def execute(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def add_experiment(folder: Path, location: str) -> None:
    execute(folder, f"INSERT INTO experiments (name, artifact_location) VALUES ('{location}', '{location}')")


def test_after_a_move_files_are_found_again(made, moved, tmp_path):
    with pytest.raises(Exception, match="No such artifact|Failed to download"):
        read_all(made, moved, tmp_path / "before")
    relocate(moved)
    assert read_all(made, moved, tmp_path / "after") == ["of the run", *["of the model"] * 4]


def test_after_a_move_new_files_go_to_the_new_place(made, moved):
    relocate(moved)
    client = Store.of(Project(moved.parent)).client()
    client.log_text(made.run_id, "new", "b.txt")
    client.log_text(client.create_run(client.get_experiment_by_name("tests").experiment_id).info.run_id, "new", "c.txt")
    assert {path.name for path in (moved / "artifacts").rglob("*.txt")} == {"a.txt", "b.txt", "c.txt"}
    assert not made.born.exists()


def test_a_moved_store_is_noticed(made, moved):
    assert moved_from(moved) == made.born / "mlruns"
    with pytest.raises(UserError, match=r"Prüfung eins/mlruns: run `captchalab relocate`"):
        check(moved)
    with pytest.raises(UserError, match="captchalab relocate"):
        Store.of(Project(moved.parent)).client()
    relocate(moved)
    assert moved_from(moved) is None
    Store.of(Project(moved.parent)).client()


def test_a_database_that_does_not_exist_or_has_no_tables_has_not_moved(tmp_path):
    check(tmp_path)
    assert "Nothing has moved" in relocate(tmp_path)
    sqlite3.connect(tmp_path / "mlflow.db").close()
    check(tmp_path)
    assert "Nothing has moved" in relocate(tmp_path)
    (tmp_path / "mlflow.db").write_text("no database at all, only some text that is long enough to be read as one")
    check(tmp_path)
    with pytest.raises(UserError, match="cannot be repaired"):
        relocate(tmp_path)


def test_a_dry_run_shows_all_columns_and_changes_nothing(made, moved):
    before = [(path, path.read_bytes()) for path in moved.glob("mlflow.db*")]
    said = relocate(moved, dry_run=True)
    assert f"{made.born / 'mlruns'} -> {moved}" in said
    assert f"experiments.artifact_location: 2, such as {(made.born / 'mlruns/artifacts/0').as_uri()} -> " in said
    assert f" -> {(moved / 'artifacts/0').as_uri()}" in said
    for column, rows in (
        ("runs.artifact_uri", 1),
        ("logged_models.artifact_location", 1),
        ("model_versions.storage_location", 2),
        ("model_versions.source", 1),
    ):
        assert f"{column}: {rows}, such as" in said
    assert said.endswith("A dry run: nothing has been rewritten.")
    assert [(path, path.read_bytes()) for path in moved.glob("mlflow.db*")] == before


def test_the_backup_of_the_database_can_be_used(made, moved):
    import mlflow

    before = locations(moved / "mlflow.db")
    said = relocate(moved)
    [backup] = moved.glob("mlflow.db.before-relocate-*Z")
    assert str(backup) in said
    assert locations(backup) == before
    run = mlflow.MlflowClient(f"sqlite:///{backup}").get_run(made.run_id)
    assert run.info.artifact_uri.startswith((made.born / "mlruns").as_uri())


def test_a_second_time_there_is_nothing_to_do(moved):
    relocate(moved)
    after = locations(moved / "mlflow.db")
    assert "Nothing has moved" in relocate(moved)
    assert locations(moved / "mlflow.db") == after
    assert len(list(moved.glob("*before-relocate*"))) == 1


def test_moved_on_and_back_it_is_repaired_each_time(made, moved, tmp_path):
    for name in ("b", "Über siedlung"):
        relocate(moved)
        moved = moved.parent.rename(tmp_path / name) / "mlruns"
    assert moved_from(moved) == tmp_path / "b" / "mlruns"
    relocate(moved)
    assert read_all(made, moved, tmp_path / "read")[0] == "of the run"


def test_a_copy_gets_its_own_locations_and_the_original_keeps_its_own(moved, tmp_path):
    relocate(moved)
    original = (moved / "mlflow.db").read_bytes()
    copy = Path(shutil.copytree(moved.parent, tmp_path / "copy")) / "mlruns"
    assert moved_from(copy) == moved
    assert "a project still exists there, and keeps its own" in relocate(copy)
    assert moved_from(copy) is None
    assert (moved / "mlflow.db").read_bytes() == original


def test_files_left_in_the_old_place_are_named(made, moved, tmp_path):
    relocate(moved)
    old = moved.parent.rename(tmp_path / "old") / "mlruns"
    relocate(old)
    new = tmp_path / "new" / "mlruns"
    new.mkdir(parents=True)
    (old / "mlflow.db").rename(new / "mlflow.db")
    said = relocate(new)
    assert f"The files of 2 runs or models are in {old} alone" in said
    assert f"cp -an {old}/artifacts/. {new}/artifacts/" in said


def test_what_lies_elsewhere_on_purpose_stays(moved, tmp_path):
    (tmp_path / "shared" / "mlruns" / "artifacts").mkdir(parents=True)
    elsewhere = [
        "s3://bucket/mlruns/artifacts/1",
        "mlflow-artifacts:/3",
        "/mnt/results/tests",
        (tmp_path / "shared" / "mlruns" / "artifacts" / "tests").as_uri(),
    ]
    for location in elsewhere:
        add_experiment(moved, location)
    relocate(moved)
    assert set(elsewhere) < set(locations(moved / "mlflow.db"))
    assert moved_from(moved) is None


def test_a_plain_path_stays_a_plain_path(moved):
    add_experiment(moved, "/gone before/mlruns/artifacts/tests")
    relocate(moved)
    assert f"{moved}/artifacts/tests" in locations(moved / "mlflow.db")


def test_the_old_folder_that_a_late_write_has_recreated_is_still_the_old_one(moved, tmp_path):
    relocate(moved)
    folder = moved.parent.rename(tmp_path / "new") / "mlruns"
    (moved / "artifacts" / "tests").mkdir(parents=True)
    assert moved_from(folder) == moved


def test_a_link_from_the_old_place_is_as_good_as_no_move(moved, tmp_path):
    relocate(moved)
    folder = moved.parent.rename(tmp_path / "new") / "mlruns"
    moved.parent.symlink_to(folder.parent)
    assert moved_from(folder) is None


def test_all_is_rewritten_or_nothing(moved):
    execute(moved, "CREATE TRIGGER full BEFORE UPDATE ON model_versions BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    before = locations(moved / "mlflow.db")
    with pytest.raises(UserError, match=r"mlflow.db cannot be repaired \(disk full\): stop what uses it"):
        relocate(moved)
    assert locations(moved / "mlflow.db") == before


def test_a_trace_of_a_run_moves_too(moved):
    old = plan(moved)[0].old.location
    execute(moved, f"INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.artifactLocation', '{old}', 'tr')")
    relocate(moved)
    assert not [location for location in locations(moved / "mlflow.db") if location == old]


@pytest.mark.parametrize(
    ("location", "mlruns", "rest"),
    [
        ("file:///home/me/a/mlruns/artifacts/tests", "/home/me/a/mlruns", "artifacts/tests"),
        ("file:///home/me/a%20%C3%BC%25/mlruns/artifacts/0", "/home/me/a ü%/mlruns", "artifacts/0"),
        ("/home/me/a %20/mlruns/artifacts", "/home/me/a %20/mlruns", "artifacts"),
        ("/mlruns/artifacts/1", "/mlruns", "artifacts/1"),
        ("/x/mlruns/artifacts/old/a/mlruns/artifacts/1", "/x/mlruns/artifacts/old/a/mlruns", "artifacts/1"),
    ],
)
def test_a_place_is_read_from_its_location_and_gives_it_again(location, mlruns, rest):
    place = Place.of(location)
    assert place
    assert (str(place.mlruns), place.rest) == (mlruns, rest)
    assert place.location == location


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/mlruns/artifacts/1",
        "mlflow-artifacts:/mlruns/artifacts/1",
        "models:/m-1",
        "mlruns/artifacts/1",
        "/home/me/mlruns/1",
        "/home/me/mlruns/artifacts2/1",
        "/home/me/mymlruns/artifacts/1",
    ],
)
def test_any_other_location_has_no_such_place(location):
    assert Place.of(location) is None
