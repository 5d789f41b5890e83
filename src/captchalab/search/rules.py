"""When a search ends, which trials count, and which is the best. Pure decisions over Optuna's trials."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from captchalab.params import SearchParams

INTERRUPTED = "stopped with Ctrl-C, it waits to be run again"
DEAD = "its worker was killed"


class Counts(NamedTuple):
    """The trials of a study; one that was run again counts once."""

    done: int
    running: int
    waiting: int


def retry_of(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one runs again: its worker was killed, or was stopped with Ctrl-C."""
    history = trial.system_attrs.get("retry_history")
    found: int | None = history[-1] if history else trial.user_attrs.get("retry_of")
    return found


def replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one runs again."""
    return {number for trial in trials if (number := retry_of(trial)) is not None}


def counts(trials: Sequence[FrozenTrial]) -> Counts:
    gone = replaced(trials)
    states = [trial.state for trial in trials if trial.number not in gone]
    running, waiting = states.count(TrialState.RUNNING), states.count(TrialState.WAITING)
    return Counts(len(states) - running - waiting, running, waiting)


def reason(trial: FrozenTrial) -> str:
    """Why a trial ended as it did; one whose worker was killed could not say."""
    found: str = trial.user_attrs.get("reason") or (DEAD if trial.state == TrialState.FAIL else "")
    return found


def feasible(trial: FrozenTrial) -> bool:
    """Whether it ran to its end within all limits."""
    return trial.state == TrialState.COMPLETE and all(excess <= 0 for excess in trial.constraints.values())


def best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The feasible trial with the highest score, the earliest of equals."""
    return max(filter(feasible, trials), key=lambda trial: (trial.value, -trial.number), default=None)


def ended(trials: Sequence[FrozenTrial], budget: SearchParams, target: int) -> str | None:
    """Why no further trial should be started, if so.

    Args:
        target: trials that the study should have.
    """
    done = counts(trials).done
    if done >= target:
        return f"it has {done} of {target} trials"
    ran = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    before = best(ran[: -budget.patience_trials])
    now = best(ran)
    if before and now and _score(now) - _score(before) < budget.min_gain:
        return (
            f"its best score gained {_score(now) - _score(before):.2%} in the last {budget.patience_trials} trials, "
            f"less than search.min_gain = {budget.min_gain:.2%}"
        )
    return None


def failing(trials: Sequence[FrozenTrial], budget: SearchParams, since: datetime) -> str | None:
    """Why a search should give up: the last trials that ended since it began have all failed."""
    gone = replaced(trials)
    ended = [
        trial
        for trial in trials
        if trial.state.is_finished()
        and trial.number not in gone
        and trial.datetime_complete
        and trial.datetime_complete >= since
    ]
    last = sorted(ended, key=lambda trial: trial.datetime_complete or since)[-budget.max_failures :]
    if len(last) == budget.max_failures and all(trial.state == TrialState.FAIL for trial in last):
        return f"{len(last)} trials in a row have failed, the last one because {reason(last[-1])}"
    return None


def _score(trial: FrozenTrial) -> float:
    value: Any = trial.value
    return float(value)
