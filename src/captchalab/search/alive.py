"""Which process runs a trial, and whether it has ended: a killed worker's trial need not wait for its heartbeat.

Known only of workers on this machine; the heartbeat finds the others.
"""

import copy
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import TrialState

WORKER = "worker"  # the user attribute of a trial that names its process
SLACK_S = 2.0  # between this machine's clock and the one that dated the trial


def me() -> dict[str, Any]:
    """This process, as another one on this machine can find it."""
    return {"host": platform.node(), "boot": _boot(), "pid": os.getpid()}


def has_ended(worker: dict[str, Any] | None, since: datetime | None) -> bool:
    """Whether a worker of this machine is gone; its number may have been given to a younger process."""
    if not worker or since is None or (worker["host"], worker["boot"]) != (platform.node(), _boot()):
        return False
    try:
        return psutil.Process(worker["pid"]).create_time() > since.timestamp() + SLACK_S
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def fail_ended(study: optuna.Study) -> None:
    """Fail the trials of this machine's killed workers, and queue them as the heartbeat would."""
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if has_ended(trial.user_attrs.get(WORKER), trial.datetime_start):
            storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            queue_again = storage.get_heartbeat_stale_trial_callback()
            queue_again(study, copy.deepcopy(storage.get_trial(trial._trial_id)))


def _boot() -> str:
    """This start of this machine: two containers or machines may have one name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
