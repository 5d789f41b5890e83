"""A worker: takes one trial after another from a study, trains it in a process of its own, and logs it.

Any number of workers share a study: on one machine (`search.run`) or on many (`search.ray_engine`). Each calls
`study.optimize(n_trials=1)`: only there Optuna's heartbeat runs.
"""

import contextlib
import signal
import socket
import time
import warnings
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.processes import locked
from captchalab.project import Project
from captchalab.search import alive, data, rules, trial
from captchalab.search.space import Space, name_of
from captchalab.search.study import (
    Options,
    held,
    id_of,
    open_storage,
    open_study,
    pruner,
    refuse_other,
    sampler,
    seed_of,
    step,
)
from captchalab.tracking import origin
from captchalab.tracking.searches import SearchRuns, TrialRun

OWN = ("reason", "values", alive.WORKER)  # user attributes of a trial that its MLflow run does without
WAIT_S = 2.0  # between two looks at trials that run elsewhere
START_S = 300.0  # that a trial's process may take on a busy machine until its first epoch begins
MOMENT_S, END_S = 1.0, 30.0  # that it may take to end by itself, and once it is killed


class TrialFailed(Exception):  # noqa: N818
    """A trial that crashed: out of memory, or a loss that is no number. The search goes on."""


class Running(NamedTuple):
    """The trial that this worker is at."""

    number: int
    run: TrialRun
    folder: Path


class Worker:
    """One worker of one study.

    Args:
        workers: how many there are, for the time left.
        node: where this one runs, for its trials' attribute of that name; None: this machine's name.

    Raises:
        UserError: the space cannot be, the storage cannot be reached, or the study was made with other things.
    """

    def __init__(
        self, project: Project, present: Params, options: Options, workers: int = 1, node: str | None = None
    ) -> None:
        self.project, self.present, self.options, self.workers = project, present, options, workers
        self.node = node or socket.gethostname()
        self.budget = present.search
        self.space = Space.of(present, options.kind)
        self.storage = storage = open_storage(project, self.budget.heartbeat_s)
        refuse_other(storage, options.study, self.space)
        self.splits = data.prepare(project, present)
        self.study = open_study(storage, options.study, self.space, data.digests(self.splits))
        self.study.pruner = pruner(options, self.budget)
        self.folder = project.search / options.study
        tags = {**origin.run_tags(project, options.kind, "train"), "study_id": id_of(self.study)}
        self.runs = SearchRuns.open(project, options.study, options.kind, tags)
        self.began, self.clock = datetime.now(), time.monotonic()
        self.took: list[float] = []  # seconds of each trial of this worker
        self.running: Running | None = None
        self.gate = contextlib.ExitStack()  # held from the decision to start a trial until it has started

    def work(self) -> str:
        """Run trials until the search ends; returns why it does.

        Raises:
            UserError: several trials in a row have failed.
            KeyboardInterrupt: Ctrl-C; the trial is back in the queue.
        """
        while not (reason := self.one_trial()):
            pass
        return reason

    def one_trial(self) -> str | None:
        """Run the next trial; or say why there is none."""
        try:
            if reason := self._wait_for_turn():
                return reason
            self.study.sampler = sampler(self.options, self.budget, seed_of(self.present, self.study))
            self.study.optimize(self._objective, n_trials=1, catch=(TrialFailed,))
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if not self._taken_over():
                raise
        finally:
            self.gate.close()
            self._close_trial()
        return None

    def _taken_over(self) -> bool:
        """Whether another worker took this one for dead, and runs its trial again: a machine that slept, say."""
        trials = self.study.get_trials(deepcopy=False)
        return self.running is not None and self.running.number in rules.replaced(trials)

    def _wait_for_turn(self) -> str | None:
        """Hold the gate with a trial to run; or say why there is none. Trials that run elsewhere may yet fail."""
        told = False
        while True:
            self.gate.enter_context(locked(self.folder.with_suffix(".lock"), f"study {self.options.study}"))
            self.gate.enter_context(held(self.storage, id_of(self.study)))
            self._fail_stale()
            trials = self.study.get_trials(deepcopy=False)
            if why := rules.failing(trials, self.budget, self.began):
                raise UserError(
                    f"search {self.options.kind} stops: {why}. See log.txt in the folders of {self.folder}, mend it, "
                    "and run the search again."
                )
            if why := rules.ended(trials, self.budget, self.options.trials) or self._timed_out():
                return why
            found = rules.counts(trials)
            if found.done + found.running < self.options.trials:
                return None
            self.gate.close()
            if not told:
                print(f"search {self.options.kind}: waits for {found.running} trials of other workers", flush=True)
                told = True
            time.sleep(WAIT_S)

    def _fail_stale(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        alive.fail_ended(self.study)

    def _timed_out(self) -> str | None:
        limit = self.options.timeout_s
        if limit is None or time.monotonic() - self.clock < limit:
            return None
        return f"its {limit:g} s are over"

    def _objective(self, running: optuna.Trial) -> float:
        values = self.space.suggest(running)
        running.set_user_attr("values", values)
        running.set_user_attr(alive.WORKER, alive.me())
        self.gate.close()
        running.set_user_attr("node", self.node)
        trials = self.study.get_trials(deepcopy=False)
        self.runs.close_stale([t.number for t in trials if t.state == TrialState.RUNNING], rules.DEAD)
        run = self.runs.trial(running.number, values, rules.retry_of(trials[running.number]))
        self.running = Running(running.number, run, self.folder / "impossible")
        started = time.monotonic()
        try:
            score, reason = self._score(running, values, trials)
        except (optuna.TrialPruned, TrialFailed) as error:
            running.set_user_attr("reason", str(error))
            raise
        except optuna.exceptions.UpdateFinishedTrialError:  # taken over
            raise
        except Exception as error:
            running.set_user_attr("reason", f"{type(error).__name__}: {error}")
            raise
        except KeyboardInterrupt:
            running.set_user_attr("reason", rules.INTERRUPTED)
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=running.params,
                    distributions=running.distributions,
                    user_attrs={"retry_of": running.number},
                )
            )
            raise
        finally:
            if run.run_id:
                running.set_user_attr("run_id", run.run_id)
            self.took.append(time.monotonic() - started)
        running.set_user_attr("reason", reason)
        return score

    def _score(self, running: optuna.Trial, values: dict[str, Any], trials: list[FrozenTrial]) -> tuple[float, str]:
        """Score and ending of a trial.

        Raises:
            TrialPruned: an impossible combination, beyond a limit, or behind the others.
            TrialFailed: its process crashed.
        """
        try:
            short = self.space.short(values)
        except UserError as error:
            raise optuna.TrialPruned(str(error)) from None
        name = name_of(short, self.options.kind)
        plan = trial.Plan(self.options.kind, short, self.splits["train"], self.splits["valid"], self.folder / name)
        assert self.running
        self.running = self.running._replace(folder=plan.folder)
        if same := next((t for t in trials if t.user_attrs.get("fingerprint") == name and rules.feasible(t)), None):
            assert same.value is not None
            running.set_user_attr("parameters", same.user_attrs["parameters"])
            return same.value, f"the same parameters as trial {same.number}"
        running.set_user_attr("fingerprint", name)
        if self.budget.max_latency_ms:
            self._follow(running, plan, measure=True)
        return self._follow(running, plan)

    def _follow(self, running: optuna.Trial, plan: trial.Plan, measure: bool = False) -> tuple[float, str]:
        """Score and ending of the process that trains a trial, or measures its latency."""
        process, told = trial.start(plan, measure)
        last = trial.Epoch(0, 0.0, 0.0)
        pruned: str | None = None
        try:
            while True:
                match self._hear(process, told):
                    case trial.Network(parameters):
                        running.set_user_attr("parameters", parameters)
                        pruned = self._beyond(running, "parameters", parameters, self.budget.max_parameters)
                        _answer(told, pruned)
                    case trial.Latency(ms):
                        running.set_user_attr("latency_ms", round(ms, 3))
                        pruned = self._beyond(running, "latency_ms", ms, self.budget.max_latency_ms)
                        break
                    case trial.Epoch() as last:
                        pruned = self._report(running, last)
                        _answer(told, pruned)
                        self._log_epochs(plan.folder)
                    case trial.Ended(reason, fit_s):
                        running.set_user_attr("fit_s", round(fit_s, 1))
                        break
                    case trial.Failed(reason):
                        raise TrialFailed(reason)
        finally:
            _end(process, told)
            if not measure:
                running.set_user_attr("seconds", round(last.seconds, 1))
                running.set_user_attr("images_seen", last.images_seen)
        if pruned:
            raise optuna.TrialPruned(pruned)
        return last.score, "" if measure else reason

    def _hear(self, process: ForkServerProcess, told: Connection) -> trial.Message:
        limit = self.budget.max_s + START_S
        if not told.poll(limit):
            raise optuna.TrialPruned(f"no epoch in {limit:.0f} s")
        try:
            message: trial.Message = told.recv()
        except (EOFError, OSError):  # the second where it died with an answer unread
            process.join(END_S)
            code = process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            raise TrialFailed(f"its process ended with {how}: out of memory?") from None
        return message

    def _report(self, running: optuna.Trial, epoch: trial.Epoch) -> str | None:
        """Tell Optuna of an epoch; why the trial should end, if so. After the last one there is nothing to save."""
        at = step(self.space, epoch.images_seen)
        running.report(epoch.score, at)
        if at >= self.budget.images or not running.should_prune():
            return None
        return f"{epoch.score:.2%} after {at:,} images is behind the others"

    def _beyond(self, running: optuna.Trial, name: str, value: float, limit: float) -> str | None:
        """A limit as a constraint; why the trial should end, if it is beyond."""
        if not limit:
            return None
        running.set_constraint(name, value - limit)
        return f"{name} = {value:,.6g} is above search.max_{name} = {limit:,.6g}" if value > limit else None

    def _log_epochs(self, folder: Path) -> None:
        assert self.running
        if train := trial.journal(folder, "train"):
            self.running.run.epochs(train, trial.journal(folder, "finetune"))

    def _close_trial(self) -> None:
        """What follows the end of a trial, once Optuna has it: MLflow, disk, and a line to read."""
        if self.running is None:
            return
        number, run, folder = self.running
        self.running = None
        trials = self.study.get_trials(deepcopy=False)
        ended, reason = trials[number], rules.reason(trials[number])
        score = ended.value if ended.state == TrialState.COMPLETE else None
        run.end(ended.state.name, reason, score, {k: v for k, v in ended.user_attrs.items() if k not in OWN})
        if number not in rules.replaced(trials):  # the one that runs it again resumes from there
            trial.clear(folder)
        best = rules.best(trials)
        if best and best.number == number and best.value is not None:
            self.runs.best(number, best.value, best.user_attrs["values"])
        print(self._line(trials, ended, best), flush=True)

    def _line(self, trials: list[FrozenTrial], ended: FrozenTrial, best: FrozenTrial | None) -> str:
        """Number, state, score, best, seconds, and what is left."""
        done = rules.counts(trials).done
        scores = list(ended.intermediate_values.values())
        score = ended.value if ended.value is not None else max(scores, default=None)
        left_s = (self.options.trials - done) * sum(self.took) / len(self.took) / self.workers
        if self.options.timeout_s is not None:
            left_s = max(0.0, min(left_s, self.options.timeout_s - (time.monotonic() - self.clock)))
        words = [
            f"search {self.options.kind}: trial {ended.number:<3} {ended.state.name.lower():<8}",
            "      -" if score is None else f"{score:7.2%}",
            f"best {best.value:.2%} (trial {best.number})" if best else "best -",
            f"{self.took[-1]:.0f} s",
            f"{done} of {self.options.trials}, {_minutes(left_s)} left",
        ]
        if ended.state != TrialState.COMPLETE:
            words.append(rules.reason(ended))
        return "  ".join(words)


def _minutes(seconds: float) -> str:
    return "under a minute" if seconds < 60 else f"at most {seconds / 60:.0f} min"


def _answer(told: Connection, reason: str | None) -> None:
    with contextlib.suppress(OSError):  # of a process that has died: the next message is its end
        told.send(reason)


def _end(process: ForkServerProcess, told: Connection) -> None:
    """End a trial's process: one that has told its last ends by itself, any other is in the middle of something."""
    if not told.closed:
        told.close()
    process.join(MOMENT_S)
    if process.is_alive():
        process.kill()
        process.join(END_S)
    process.close()
