"""When a search ends, over trials as Optuna has them."""

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from captchalab.params import SearchParams
from captchalab.search import rules

BEGAN = datetime(2024, 1, 1)
C, P, F, R, W = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING


def trials(*described: tuple) -> list[FrozenTrial]:
    """Trials of (state, score or reason, number of the trial that it runs again), a minute each."""
    found = []
    for number, (state, what, *again) in enumerate(described):
        trial = optuna.create_trial(
            state=state,
            value=what if state == C else None,
            user_attrs={"reason": what} if isinstance(what, str) else {},
            system_attrs={"failed_trial": again[0], "retry_history": again} if again else {},
        )
        trial.number = number
        if state.is_finished():
            trial.datetime_complete = BEGAN + timedelta(minutes=number)
        found.append(trial)
    return found


@pytest.fixture
def budget(smoke) -> SearchParams:
    return smoke.search.model_copy(update={"patience_trials": 3, "min_gain": 0.01, "max_failures": 2})


def test_a_trial_that_was_run_again_counts_once():
    found = trials((F, "its worker was killed"), (C, 0.5), (C, 0.6, 0), (F, "the loss is nan"), (R, None), (W, None))
    assert rules.counts(found) == (3, 1, 1)


def test_a_trial_stopped_with_ctrl_c_waits_and_counts_once():
    found = trials((F, rules.INTERRUPTED), (W, None))
    found[1].user_attrs["retry_of"] = 0
    assert rules.counts(found) == (0, 0, 1)


def test_a_trial_whose_worker_was_killed_says_so():
    assert rules.reason(trials((F, None))[0]) == "its worker was killed"
    assert rules.reason(trials((F, "the loss is nan"))[0]) == "the loss is nan"


def test_the_best_trial_is_the_first_of_the_highest_within_all_limits():
    found = trials((C, 0.5), (C, 0.9), (C, 0.7), (C, 0.7), (P, None))
    assert rules.best(found) is found[1]
    found[1].system_attrs["constraints:parameters"] = 1000
    assert rules.best(found) is found[2]
    assert rules.best(found[-1:]) is None


def test_a_search_ends_with_its_trials(budget):
    assert rules.ended(trials((C, 0.5), (P, None)), budget, target=3) is None
    assert rules.ended(trials((C, 0.5), (P, None)), budget, target=2) == "it has 2 of 2 trials"


@pytest.mark.parametrize(
    ("scores", "ends"),
    [
        ([0.5, 0.6, 0.6], False),  # too few to say
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.5, 0.505, 0.5, 0.5], True),  # less than min_gain
        ([0.5, 0.4, 0.4, 0.52], False),
        ([0.5, 0.6, 0.6, 0.6], False),
        ([0.5, 0.6, 0.6, 0.6, 0.6], True),
        ([0.5, None, None, None], True),  # pruned trials show it too
    ],
)
def test_a_search_ends_when_it_gains_no_more(budget, scores, ends):
    found = trials(*((P, None) if score is None else (C, score) for score in scores))
    reason = rules.ended(found, budget, target=100)
    assert bool(reason) == ends
    if reason:
        assert "in the last 3 trials, less than search.min_gain = 1.00%" in reason


@pytest.mark.parametrize(
    ("described", "fails"),
    [
        ([(F, "nan"), (F, "nan")], True),
        ([(F, "nan"), (C, 0.5), (F, "nan")], False),
        ([(F, "nan"), (P, None), (F, "nan")], False),
        ([(F, None), (R, None, 0), (F, "nan")], False),  # killed, and run again
        ([(F, rules.INTERRUPTED), (F, "nan"), (W, None, 0)], False),
    ],
)
def test_a_search_gives_up_after_failures_in_a_row(budget, described, fails):
    reason = rules.failing(trials(*described), budget, BEGAN)
    assert reason == ("2 trials in a row have failed, the last one because nan" if fails else None)


def test_failures_of_an_earlier_run_are_forgiven(budget):
    found = trials((F, "nan"), (F, "nan"), (F, "nan"))
    assert rules.failing(found, budget, BEGAN + timedelta(minutes=1.5)) is None
