"""Real trials, tiny: what each ending leaves in Optuna and on disk, and what a kill does not change."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from servers import hear_ctrl_c

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.search import rules, study
from captchalab.search.study import Options
from captchalab.search.worker import Worker
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal


@pytest.fixture(scope="module")
def project(smoke_text, database, tmp_path_factory) -> Project:
    """One for all: its captchas are drawn once."""
    import workspace

    return workspace.make(tmp_path_factory.mktemp("search") / "project", smoke_text, database)


@pytest.fixture
def worker(project, smoke_text, request, monkeypatch):
    """A function: a worker on a study of the test's own, for the CNN, over other parameters."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)

    def make(overlay: str = "{}", trials: int = 1) -> Worker:
        content = yaml.parse(smoke_text)
        yaml.merge(content, yaml.parse(overlay))
        return Worker(project, params.check(content), Options("cnn", request.node.name, trials))

    return make


def test_a_trial_is_scored_over_both_stages_and_leaves_journals_alone(worker, capsys):
    searching = worker()
    assert searching.work() == "it has 1 of 1 trials"
    [done] = searching.study.trials
    assert done.state == TrialState.COMPLETE
    assert list(done.intermediate_values) == [128, 256, 384, 512], "two epochs of each stage"
    attrs = done.user_attrs
    assert attrs["images_seen"] == 512 and attrs["seconds"] > 0 and attrs["parameters"] > 0
    folder = searching.folder / attrs["fingerprint"]
    journals = [Journal(folder / stage) for stage in params.STAGES]
    assert done.value == max(epoch.figures["val/exact"] for journal in journals for epoch in journal.epochs())
    assert not list(folder.rglob("*.keras")) + list(folder.rglob("*.npz")), "checkpoints and weights are removed"
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("search cnn: trial 0   complete") and "best" in line and "1 of 1" in line


def test_a_stage_at_its_ceiling_counts_with_what_it_reached(worker):
    searching = worker("search: {max_s: 0.001}")
    searching.work()
    [done] = searching.study.trials
    assert done.state == TrialState.COMPLETE
    assert list(done.intermediate_values) == [128, 256], "an epoch of each stage"
    assert done.user_attrs["reason"].count("s of search.max_s") == 2


def test_a_pruned_trial_trains_no_further(worker):
    searching = worker()
    searching.study.pruner = optuna.pruners.ThresholdPruner(lower=2.0)
    searching.work()
    [pruned] = searching.study.trials
    assert pruned.state == TrialState.PRUNED
    assert list(pruned.intermediate_values) == [128]
    assert "after 128 images is behind the others" in rules.reason(pruned)


def test_a_loss_that_is_no_number_fails_the_trial_and_after_several_the_search(worker):
    wild = "{learning_rate: 1e30, schedule: constant, warmup_steps: 0, clip_norm: 0.0}"
    space = "{finetune.cnn.learning_rate: {low: 3e-5, high: 3e-4}, train.cnn.learning_rate: 1e30}"
    searching = worker(f"train: {{cnn: {wild}}}\nsearch: {{max_failures: 1}}")
    searching.space = study_space(searching, space)
    with pytest.raises(UserError, match=r"search cnn stops: 1 trials in a row have failed.*the loss is (nan|inf)"):
        searching.work()
    [failed] = searching.study.trials
    assert failed.state == TrialState.FAIL and "lower train.cnn.learning_rate = 1e+30" in rules.reason(failed)


def study_space(searching: Worker, entries: str):
    """Another space for a study that is open."""
    from captchalab.search.space import Space

    content = searching.present.model_dump(mode="json")
    content["search"]["space"]["cnn"] = yaml.parse(entries)
    return Space.of(params.check(content), "cnn")


class KillTheTrial(optuna.pruners.BasePruner):
    """What the system does where memory runs out, after the first epoch."""

    def prune(self, study, trial) -> bool:
        for child in multiprocessing.active_children():
            if isinstance(child, ForkServerProcess):
                child.kill()
        return False


def test_a_trial_whose_process_is_killed_fails_with_its_reason(worker):
    searching = worker("search: {max_failures: 1}")
    searching.study.pruner = KillTheTrial()
    with pytest.raises(UserError, match="its process ended with signal SIGKILL: out of memory"):
        searching.work()
    [failed] = searching.study.trials
    assert failed.state == TrialState.FAIL


def test_what_cannot_be_built_or_is_too_large_is_not_trained(worker):
    searching = worker("search: {max_parameters: 1000}", trials=2)
    present = searching.space
    searching.space = study_space(searching, "models.cnn.pools: {choices: [[[2, 2], [2, 1]], [[64, 64], [2, 1]]]}")
    searching.study.enqueue_trial({"models.cnn.pools": "[[64, 64], [2, 1]]"})
    first, second = searching.study.trials
    assert first.state == second.state == TrialState.WAITING
    searching.space = present
    searching.one_trial()
    searching.space = study_space(searching, "models.cnn.pools: {choices: [[[2, 2], [2, 1]], [[64, 64], [2, 1]]]}")
    searching.one_trial()
    large, impossible = searching.study.trials
    assert large.state == impossible.state == TrialState.PRUNED
    assert "is above search.max_parameters = 1,000" in rules.reason(large)
    assert large.constraints["parameters"] == large.user_attrs["parameters"] - 1000 > 0
    assert "leaves 0 x 1 cells" in rules.reason(impossible)
    assert not large.intermediate_values and not impossible.intermediate_values


def test_the_process_that_trains_imports_neither_mlflow_nor_optuna():
    imports = "import sys, captchalab.search.trial, captchalab.training.fit"
    script = f"{imports}; print({{'mlflow', 'optuna', 'keras'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'keras'}"


# ---- one search, stopped with Ctrl-C, killed with -9, gone on by two workers ----

LIMIT_S = 3000
LONGER = """
search: {images: 6400, reports: 8, heartbeat_s: 60, pruner: {startup_trials: 100}}
"""


def begin(project: Project, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "captchalab.cli", "search", "run", "--kind", "cnn", *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if key != "OPTUNA_STORAGE"}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)  # a stage resumes with as many threads as before: runtime.threads
    heard = {"start_new_session": True, "preexec_fn": hear_ctrl_c}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=project.root, env=environment, **heard, **streams)


def wait_for(project: Project, said: str, process: subprocess.Popen) -> Path:
    """Until a trial's log says something (a regular expression); the log."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for log in (project.search / "captcha-cnn").glob("*/log.txt"):
            if re.search(said, log.read_text(), re.S):
                return log
        time.sleep(0.05)
    raise AssertionError(process.communicate()[0])


def test_ctrl_c_and_kill_9_cost_no_more_than_an_epoch(smoke_text, database, tmp_path):
    import workspace

    content = yaml.parse(smoke_text)
    yaml.merge(content, yaml.parse(LONGER))
    project = workspace.make(tmp_path / "project", yaml.dump(content), database)

    first = begin(project)
    log = wait_for(project, "epoch 1/5", first)
    os.killpg(first.pid, signal.SIGINT)
    said, _ = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 130 and "stopped with Ctrl-C; the same command goes on" in said
    assert "1 waiting" in said

    second = begin(project)
    wait_for(project, r"resumes after epoch \d.*epoch \d/5", second)
    second.kill()
    second.communicate(timeout=LIMIT_S)

    third = begin(project, "--trials", 2, "--workers", 2)
    said, _ = third.communicate(timeout=LIMIT_S)
    assert third.returncode == 0, said
    assert log.read_text().count("images at most") == 2, "each stage began once, and resumed after that"

    [found] = study.existing(study.open_storage(project, 60), ("cnn",))
    trials = found.trials
    assert rules.counts(trials) == (2, 0, 0)
    again = next(t for t in trials if rules.retry_of(t) == 0)
    once_more = next(t for t in trials if rules.retry_of(t) == again.number)
    assert [rules.reason(t) for t in (trials[0], again)] == [rules.INTERRUPTED, rules.DEAD]
    assert once_more.state == TrialState.COMPLETE and len(once_more.intermediate_values) == 8
    assert {t.user_attrs["fingerprint"] for t in (trials[0], again, once_more)} == {log.parent.name}
    assert not list(project.search.rglob("*.npz"))

    client = Store.of(project).client()
    [experiment] = [e for e in client.search_experiments() if e.name == "captcha-cnn"]
    runs = client.search_runs([experiment.experiment_id])
    status = {run.data.tags["trial"]: run.info.status for run in runs if "trial" in run.data.tags}
    assert status["0"] == "FAILED" and status[str(again.number)] == "KILLED"
    assert sorted(status.values()) == ["FAILED", "FINISHED", "FINISHED", "KILLED"]
    assert not [run for run in runs if run.info.status == "RUNNING"]
