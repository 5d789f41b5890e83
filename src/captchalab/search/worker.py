"""A worker: takes one trial after another from a study, trains it in a process of its own, and logs it.

Any number of workers share a study: on one machine (`search.run`) or on many (`search.ray_engine`). Each calls
`study.optimize(n_trials=1)`: only there Optuna's heartbeat runs.
"""

import contextlib
import time
from datetime import datetime

from captchalab.params import Params
from captchalab.project import Project
from captchalab.search import data
from captchalab.search.space import Space
from captchalab.search.study import Options, open_storage, open_study, pruner
from captchalab.tracking.searches import SearchRuns

WAIT_S = 2.0  # between two looks at trials that run elsewhere


class TrialFailed(Exception):  # noqa: N818
    """A trial that crashed: out of memory, or a loss that is no number. The search goes on."""


class Worker:
    """One worker of one study.

    Args:
        workers: how many there are, for the time left.
    """

    def __init__(self, project: Project, present: Params, options: Options, workers: int = 1) -> None:
        self.project, self.present, self.options, self.workers = project, present, options, workers
        self.budget = present.search
        self.space = Space.of(present, options.kind)
        self.splits = data.prepare(project, present)
        storage = open_storage(project, self.budget.heartbeat_s)
        self.study = open_study(storage, options.study, self.space, data.digests(self.splits))
        self.study.pruner = pruner(options, self.budget)
        self.runs = SearchRuns.open(project, options.study, options.kind, {})
        self.began, self.clock = datetime.now(), time.monotonic()
        self.gate = contextlib.ExitStack()  # held from the decision to start a trial until it has started

    def run(self) -> str:
        """Run trials until the search ends; returns why it does."""
        while True:
            if reason := self.one_trial():
                return reason

    def one_trial(self) -> str | None:
        """Run the next trial; or say why there is none.

        Raises:
            KeyboardInterrupt: Ctrl-C; the trial is back in the queue.
        """
        raise NotImplementedError
