"""What many tests share: the project's root and one tiny set of parameters."""

import os
from pathlib import Path

import pytest

# set before anything imports Keras or MLflow
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)

from captchalab import params, profiles

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def smoke_text() -> str:
    """params.yaml as the profile `smoke` has it."""
    return profiles.merged((ROOT / "params.yaml").read_text(), ROOT, "smoke")


@pytest.fixture(scope="session")
def smoke(smoke_text: str) -> params.Params:
    return params.check(params.parse(smoke_text))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a service has to be there, as under .ci/run, a skip for want of it is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr[2] if report.longrepr else ''}"
    return report
