"""Trials of killed workers on this machine, found without waiting for a heartbeat."""

import subprocess
import sys
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState

from captchalab.project import Project
from captchalab.search import alive, rules, study

LONG_AGO, LATER = datetime.now() - timedelta(days=1000), datetime.now() + timedelta(days=1)


def ended() -> dict:
    """A worker that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return {**alive.me(), "pid": process.pid}


@pytest.mark.parametrize(
    ("worker", "since", "gone"),
    [
        (alive.me(), LATER, False),
        (ended(), LATER, True),
        (alive.me(), LONG_AGO, True),  # the number of a younger process
        ({**ended(), "host": "elsewhere"}, LATER, False),
        ({**ended(), "boot": "another"}, LATER, False),
        (None, LATER, False),
    ],
)
def test_a_worker_of_this_machine_has_ended(worker, since, gone):
    assert alive.has_ended(worker, since) is gone


def test_its_trial_waits_to_be_run_again_once(tmp_path, monkeypatch):
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    opened = optuna.create_study(storage=study.open_storage(Project(tmp_path), heartbeat_s=1000))
    for states in (["FAIL", "WAITING"], ["FAIL", "FAIL"]):
        trial = opened.ask()
        trial.set_user_attr(alive.WORKER, ended())
        alive.fail_ended(opened)
        assert [trial.state.name for trial in opened.trials] == states
    assert rules.retry_of(opened.trials[1]) == 0
    running = opened.ask()
    running.set_user_attr(alive.WORKER, alive.me())
    alive.fail_ended(opened)
    assert opened.trials[2].state == TrialState.RUNNING
