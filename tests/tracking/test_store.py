"""Where runs and models are kept, on real sqlite databases."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import workspace
from click.testing import CliRunner
from servers import free_port

from captchalab.cli import main
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.tracking.store import Store, attempt, needed


def test_a_database_whose_creation_was_killed_is_created_again(tmp_path):
    making = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from captchalab.project import Project; "
            "from captchalab.tracking.store import Store; Store.of(Project(Path(sys.argv[1]))).client()",
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
    assert len(Store.of(Project(tmp_path)).client().search_experiments()) == 1
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [".mlflow.lock", "mlflow.db"]


def test_the_store_is_the_projects_whatever_folder_one_is_in(root, tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(root / "tests")
    assert Store.of(Project.find()).uri == f"sqlite:///{root}/mlruns/mlflow.db"


def test_dvcs_temporary_copies_share_the_main_projects_store(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert Store.of(Project(tmp_path / "copy")).folder == tmp_path / "main" / "mlruns"


def test_mlflow_tracking_uri_points_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    store = Store.of(Project(tmp_path))
    assert (store.uri, store.artifacts) == ("http://127.0.0.1:5001", None)


def test_three_processes_at_once_make_one_database(tmp_path):
    script = (
        "import sys; from pathlib import Path; "
        "from captchalab.project import Project; from captchalab.tracking.store import Store, experiment_id\n"
        "store = Store.of(Project(Path(sys.argv[1]))); print(experiment_id(store.client(), store, 'one'))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ids = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(ids)) == 1


def test_attempt_says_what_failed(tmp_path, capsys):
    def fail() -> None:
        raise ValueError("the disk\nis full")

    assert not attempt(Store.of(Project(tmp_path)), fail)
    assert "(the disk is full)" in capsys.readouterr().err
    assert attempt(Store.of(Project(tmp_path)), lambda: None)


def test_what_mlflow_says_is_one_sentence_where_it_is_needed(tmp_path):
    from mlflow.exceptions import MlflowException

    store = Store.of(Project(tmp_path))
    with pytest.raises(UserError, match=r"cannot be used \(the disk is full\): start it, or point"), needed(store):
        raise MlflowException("the disk\nis full")
    with pytest.raises(KeyError), needed(store):
        raise KeyError("a bug stays a bug")


def test_a_project_that_was_moved_is_noticed(project):
    store = Store.of(project)
    store.client()
    project.root.rename(project.root.with_name("elsewhere"))
    with pytest.raises(UserError, match="have come here from .*/project/mlruns: run `captchalab relocate`"):
        Store.of(Project(project.root.with_name("elsewhere"))).client()


# what is the store's, and what is not


def test_a_workspaces_missing_file_is_not_said_to_be_mlflows(project):
    store = Store.of(project)
    missing = project.model("cnn")
    with pytest.raises(FileNotFoundError), needed(store):
        missing.read_bytes()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "{folder}/artifacts/1"),
        OSError(28, "No space left on device", "{folder}/mlflow.db"),
        OSError(18, "Invalid cross-device link", "/tmp/x", None, "{folder}/artifacts/x"),
        ConnectionResetError("reset by peer"),
        TimeoutError("timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_stores_own_files_and_the_network_are_the_stores(project, error):
    store = Store.of(project)
    for name in ("filename", "filename2"):
        if isinstance(getattr(error, name), str):
            setattr(error, name, getattr(error, name).format(folder=store.folder))
    with pytest.raises(UserError, match="cannot be used"), needed(store):
        raise error


def test_a_stage_that_lacks_its_network_is_named_and_mlflow_is_not_blamed(project, untrained):
    workspace.put(project, "cnn", untrained["cnn"], 100)
    project.model("cnn").unlink()
    done = CliRunner().invoke(main, ["sync"])
    assert done.exit_code == 1
    assert done.stderr == (
        f"captchalab: {project.model('cnn')} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.\n"
    )


def test_where_mlflow_can_wait_a_users_error_is_its_own_sentence(project, capsys):
    def fail() -> None:
        raise UserError("model.keras is missing: make it.")

    assert not attempt(Store.of(project), fail)
    assert "did not log this run (model.keras is missing: make it): the work continues" in capsys.readouterr().err


# passwords

PASSWORD = "s3cr%20et"
URIS = [
    f"postgresql://ann:{PASSWORD}@127.0.0.1:9/mlflow",
    f"postgresql://127.0.0.1:9/mlflow?user=ann&password={PASSWORD}",
    f"http://ann:{PASSWORD}@127.0.0.1:9",
    f"nosuchdatabase://ann:{PASSWORD}@127.0.0.1:9/mlflow",
    f"postgresql://ann:{PASSWORD}@127.0.0.1:port/mlflow",
]


def without_password(text: str) -> bool:
    return not [secret for secret in (PASSWORD, "s3cr et", "s3cr") if secret in text]


@pytest.mark.parametrize(
    ("verb", "uri"),
    [
        *(("models", uri) for uri in URIS),
        *((verb, URIS[0]) for verb in ("sync", "ui", "promote", "rollback", "serve", "lineage")),
    ],
)
def test_no_verb_shows_the_password_of_the_store(project, untrained, monkeypatch, verb, uri):
    workspace.put(project, "cnn", untrained["cnn"], 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    port = ["--port", str(free_port())]
    words = {"lineage": [str(project.model("cnn"))], "ui": port, "serve": port}
    done = CliRunner().invoke(main, [verb, *words.get(verb, [])])
    assert done.exit_code == 1
    assert done.stderr.startswith("captchalab: MLflow at ") and done.stderr.count("\n") == 1
    assert "ann:***@" in done.stderr or "password=***" in done.stderr
    assert without_password(done.output + done.stderr)


@pytest.mark.parametrize("uri", URIS)
def test_a_warning_does_not_show_the_password(project, monkeypatch, capfd, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = Store.of(project)
    assert not attempt(store, store.client)
    said = capfd.readouterr()
    assert "did not log this run" in said.err
    assert without_password(said.err + said.out + repr(store) + str(store) + f"{store!r:}")


def test_the_remedy_for_an_old_database_does_not_show_the_password(project):
    from mlflow.exceptions import MlflowException

    for uri, expected in ((URIS[0], '"$MLFLOW_TRACKING_URI"'), ("sqlite:////x/mlflow.db", "sqlite:////x/mlflow.db")):
        with (
            pytest.raises(UserError, match="another version of MLflow") as raised,
            needed(Store(uri, None, project.mlruns)),
        ):
            raise MlflowException(f"Detected out-of-date database schema at {uri}")
        assert f"mlflow db upgrade {expected}`" in str(raised.value)
        assert without_password(str(raised.value))


def test_a_wait_for_the_stores_lock_is_announced(project, capfd):
    store, said = Store.of(project), ""
    with ThreadPoolExecutor(1) as thread:
        with store.locked():
            waiting = thread.submit(store.client)
            while "MLflow's store is locked by another process" not in said:
                said += capfd.readouterr().err
                assert not waiting.done()
                time.sleep(0.1)
        assert waiting.result().search_experiments()
