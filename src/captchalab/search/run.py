"""A search on this machine: one worker in this process, or several, each in a process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna

from captchalab import params, processes
from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.project import Project
from captchalab.search import rules
from captchalab.search.study import Options
from captchalab.search.worker import Worker

Engine = Callable[[Params, Options], str]  # runs workers somewhere until a study ends, and says why it does
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def run(project: Project, present: Params, options: Options, workers: int = 1, engine: Engine | None = None) -> bool:
    """Search until the study ends by a rule, and print a summary; False where Ctrl-C ended it.

    Args:
        engine: runs the workers elsewhere than on this machine.

    Raises:
        UserError: see `Worker`; or several trials in a row have failed.
    """
    threads = _threads(present.runtime.threads, workers)
    if workers == 1:
        os.environ.update({key: value for key, value in threads.items() if key not in os.environ})
    worker = Worker(project, present, options)
    study, to_the_end, status = worker.study, True, "FINISHED"
    print(
        f"search {options.kind}: study {study.study_name}, {summary(study) or 'no trial yet'}; until {options.trials} "
        f"trials, {workers} at a time (Ctrl-C ends it, and the same command goes on)",
        flush=True,
    )
    try:
        if engine:
            reason = engine(present, options)
        else:
            reason = worker.work() if workers == 1 else _in_processes(project, options, workers, threads)
    except KeyboardInterrupt:
        reason, to_the_end, status = "stopped with Ctrl-C; the same command goes on", False, "KILLED"
    except BaseException:
        status = "FAILED"
        raise
    finally:
        _picture(worker)
        worker.runs.end(status)
    print(f"search {options.kind}: ends: {reason}. Study {study.study_name}: {summary(study)}.", flush=True)
    return to_the_end


def summary(study: optuna.Study) -> str:
    """Trials by state, and the best; empty for none."""
    trials = study.get_trials(deepcopy=False)
    gone = rules.replaced(trials)
    states = Counter(trial.state.name.lower() for trial in trials if trial.number not in gone)
    if not states:
        return ""
    counted = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    best = rules.best(trials)
    return f"{counted}; best: " + (f"trial {best.number}, val exact {best.value:.2%}" if best else "none yet")


def _picture(worker: Worker) -> None:
    """Draw the study for its run in MLflow; a picture that cannot be drawn costs no search its end."""
    from captchalab.search import plots

    with tempfile.TemporaryDirectory() as temporary:
        try:
            plots.draw(worker.study, worker.options.kind, Path(temporary))
        except Exception as error:
            print(f"captchalab: the study's pictures cannot all be drawn ({error}).", file=sys.stderr, flush=True)
        worker.runs.pictures(Path(temporary))


def _in_processes(project: Project, options: Options, workers: int, threads: dict[str, str]) -> str:
    """Several workers, each in a process; one that is killed leaves its trial to the others."""
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(workers), json.dumps(options._asdict())]
    environment = {**os.environ, **threads}
    started = [subprocess.Popen(command, cwd=project.root, env=environment) for _ in range(workers)]
    try:
        codes = [one.wait() for one in started]
    except KeyboardInterrupt:  # it has reached the workers too
        for one in started:
            one.wait()
        raise
    if failed := [code for code in codes if code not in (0, -signal.SIGKILL)]:
        raise UserError(f"{len(failed)} of {workers} workers ended with an error: see above.")
    return "its workers have ended"


def _threads(threads: int, workers: int) -> dict[str, str]:
    """The environment of a worker whose trials have so many threads; 0: their share of the cores."""
    return dict.fromkeys(THREADS, str(threads or max(1, (os.cpu_count() or 1) // workers)))


def main() -> int:
    """One of several workers: `python -m captchalab.search.run PARENT WORKERS OPTIONS`."""
    processes.end_with_parent(int(sys.argv[1]))
    options = Options(**json.loads(sys.argv[3]))
    project = Project.find()
    try:
        worker = Worker(project, params.load(project.params), options, int(sys.argv[2]))
        try:
            worker.work()
        finally:
            worker.runs.end("FINISHED")
    except UserError as error:
        print(f"captchalab: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
