"""What many tests share: the project's root and one tiny set of parameters."""

import os
from pathlib import Path

import pytest

# Before anything imports Keras or MLflow; a store that the user has set is left alone.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_REGISTRY_URI", None)
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
os.environ.pop("DVC_ROOT", None)
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what tests hold bit for bit is a CPU's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import workspace

from captchalab import params, yaml
from captchalab.project import Project

ROOT = Path(__file__).parents[1]
LONGEST = (
    "test_pipeline.py",
    "test_many_machines.py",
    "test_smoke.py",
    "test_fit.py",
    "test_backend.py",
    "test_registry.py",
)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project: a test that reads its files says so by this fixture, and passes in a used workspace too."""
    return ROOT


@pytest.fixture(scope="session")
def smoke_text() -> str:
    """The tests' own parameters, tiny: the project's params.yaml is its user's to change."""
    return (ROOT / "tests" / "params.yaml").read_text()


@pytest.fixture(scope="session")
def smoke(smoke_text: str) -> params.Params:
    return params.check(yaml.parse(smoke_text))


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """A new MLflow database, to be copied: making one takes seconds."""
    from captchalab.tracking.store import Store

    store = Store.of(Project(tmp_path_factory.mktemp("database")))
    store.client()
    assert store.database
    return store.database


@pytest.fixture(scope="session")
def untrained(smoke, smoke_text, database, tmp_path_factory) -> dict[params.Kind, Path]:
    """models/<kind> of two networks that were exported for real."""
    made = workspace.make(tmp_path_factory.mktemp("untrained") / "project", smoke_text, database)
    return {kind: workspace.export_untrained(smoke, kind, made) for kind in params.KINDS}


@pytest.fixture
def project(smoke_text, database, tmp_path, monkeypatch) -> Project:
    """A project without networks, with a test split and an MLflow store; one is in its folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    made = workspace.make(tmp_path / "project", smoke_text, database)
    monkeypatch.chdir(made.root)
    return made


def pytest_collection_modifyitems(items) -> None:
    """Mark tests of the project's own files; the files that take longest first: all else fits beside them."""
    for item in items:
        if "root" in item.fixturenames:
            item.add_marker("own_files")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a service has to be there, as under .ci/run, a skip for want of it is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr[2] if report.longrepr else ''}"
    return report


@pytest.fixture(scope="session")
def has_browser() -> None:
    """A test that opens pages is skipped where no browser starts."""
    import pages

    try:
        with pages.browser():
            pass
    except pages.CannotCheckError as error:
        pytest.skip(str(error))
