"""Where runs and models are kept, on real sqlite databases."""

import subprocess
import sys
import time

import pytest

from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.tracking.store import Store, attempt, needed


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
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
