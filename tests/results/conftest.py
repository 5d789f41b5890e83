"""A finished chain of a network that guesses, and what git has of it in another clone."""

import shutil
from collections.abc import Callable

import guesser
import pytest
import workspace

from captchalab.project import Project


@pytest.fixture
def chain(smoke_text, database, tmp_path, monkeypatch) -> Project:
    """A project whose CTC network is fine-tuned, exported and tested; one is in its folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    made = workspace.make(tmp_path / "chain", guesser.text(smoke_text), database)
    guesser.put(made, 1.0)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def clone(chain, database, tmp_path, monkeypatch) -> Callable[[], Project]:
    """Goes to a fresh clone of that project: what git has of it, and an empty MLflow store of another team."""

    def make() -> Project:
        root = tmp_path / "clone"
        shutil.copytree(chain.root / "results", root / "results")
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(chain.root / name, root / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copyfile(database, tmp_path / 'team.db')}")
        monkeypatch.chdir(root)
        return Project(root)

    return make
