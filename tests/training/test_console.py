"""What a stage prints into a log file."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from captchalab.training import console
from captchalab.training.progress import Task


@pytest.fixture
def task(smoke) -> Task:
    stage = smoke.stage("train", "cnn").model_copy(update={"steps_per_epoch": 2000, "epochs": 3})
    return Task("train", "cnn", smoke.captcha, smoke.network("cnn"), stage, 1, "tests")


def test_a_long_epoch_prints_a_line_now_and_then(task, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with console.Steps(task, 1) as steps:
        for _ in range(130):
            now[0] += 1
            steps.add(0.25)
    assert capsys.readouterr().out.splitlines() == [
        "train cnn: epoch 2/3  step 60/2,000  loss 0.2500",
        "train cnn: epoch 2/3  step 120/2,000  loss 0.2500",
    ]


def test_a_short_epoch_prints_nothing(task, capsys):
    with console.Steps(task, 0) as steps:
        for _ in range(100):
            steps.add(0.25)
    assert capsys.readouterr().out == ""


def test_a_killed_training_leaves_no_semaphore_behind(smoke):
    """Python's tracker of what outlives a process would warn of it at the end of a search."""
    script = f"""
from multiprocessing import resource_tracker, set_start_method
from captchalab.params import check
from captchalab.training import console
from captchalab.training.progress import Task
set_start_method("forkserver")  # as in a trial
with console.Steps(Task.of(check({smoke.model_dump(mode="json")!r}), "train", "cnn"), 0):
    assert resource_tracker._resource_tracker._fd is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)
