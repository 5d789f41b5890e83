"""The comparison of two ways to search: what becomes of its trials in the CSV and in the table."""

import importlib.util
from types import ModuleType

import pytest

from captchalab import params
from captchalab.project import Project


@pytest.fixture(scope="module")
def arms(root) -> ModuleType:
    """benchmarks/search_arms.py"""
    spec = importlib.util.spec_from_file_location("search_arms", root / "benchmarks" / "search_arms.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows(arms) -> list:
    found = [
        ("TPE and pruning", 1, "COMPLETE", 0.50, 300.0),
        ("TPE and pruning", 1, "PRUNED", None, 900.0),
        ("TPE and pruning", 1, "COMPLETE", 0.90, 1800.0),
        ("TPE and pruning", 1, "COMPLETE", 0.99, 1801.0),
        ("TPE and pruning", 2, "COMPLETE", 0.70, 500.0),
        ("random", 1, "COMPLETE", 0.80, 1000.0),
        ("random", 1, "FAIL", None, 1200.0),
        ("random", 2, "COMPLETE", 0.75, 700.0),
        ("random", 2, "RUNNING", None, None),
    ]
    return [
        arms.Row("ctc", arm, seed, trial, state, score, ended_s, 48_000, '{"models.ctc.rnn_size": 96}')
        for trial, (arm, seed, state, score, ended_s) in enumerate(found)
    ]


def test_the_table_has_a_row_per_arm_and_seed_their_medians_and_what_differs(arms, rows):
    assert arms.table(rows, [10.0, 30.0]).splitlines() == [
        "| arm | seed | best at 10 min | best at 30 min | complete | pruned | failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| TPE and pruning | 1 | 50.00 % | 90.00 % | 2 | 1 | 0 |",
        "| TPE and pruning | 2 | 70.00 % | 70.00 % | 1 | 0 | 0 |",
        "| random | 1 | 0.00 % | 80.00 % | 1 | 0 | 1 |",
        "| random | 2 | 0.00 % | 75.00 % | 1 | 0 | 0 |",
        "| TPE and pruning | median of 2 | 60.00 % | 80.00 % | 1.5 | 0.5 | 0 |",
        "| random | median of 2 | 0.00 % | 77.50 % | 1 | 0 | 0.5 |",
        "",
        "At 30 min TPE and pruning is ahead of random with 1 of 2 seeds; the median difference is +2.50 points.",
    ]


def test_a_trial_that_ended_later_does_not_count(arms, rows):
    own = [row for row in rows if (row.arm, row.seed) == ("TPE and pruning", 1)]
    assert [arms.best_at(own, seconds) for seconds in (299, 300, 1800, 1801)] == [0.0, 0.5, 0.9, 0.99]


def test_one_arm_alone_is_compared_with_nothing(arms, rows):
    assert "ahead" not in arms.table([row for row in rows if row.arm == "random"], [30.0])


def test_the_csv_has_every_trial_of_every_arm(arms, rows, tmp_path):
    arms.write(rows, tmp_path / "arms.csv")
    assert arms.read(tmp_path / "arms.csv") == rows


def test_an_arm_runs_in_a_project_of_its_own_that_time_alone_ends(arms, smoke, smoke_text, tmp_path):
    (tmp_path / "params.yaml").write_text(smoke_text)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    copied = arms.copy(Project(tmp_path), 5, tmp_path / "seed-5")
    theirs = params.load(copied.params)
    assert (theirs.seed, theirs.search.patience_trials) == (5, arms.NO_LIMIT)
    assert (theirs.models, theirs.search.space) == (smoke.models, smoke.search.space)
    assert Project.find(copied.root) == copied
    arms.forget(copied, "never run")
