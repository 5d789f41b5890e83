"""The chain with other parameters, as DVC experiments in temporary copies: run once, found again by name.

An experiment's name ends with a digest of all that shapes it but the value that is varied: where parameters or code
have changed, it is another experiment, and the old one is kept beside it (`dvc exp list`).
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from captchalab import sources
from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.project import Project

SHAPING = ("captchalab.data.dataset", "captchalab.training.fit")


class Experiment(NamedTuple):
    """A name, and the keys of params.yaml that it sets."""

    name: str
    values: Mapping[str, object]


class Finished(NamedTuple):
    """An experiment that ran to its end: a commit of DVC's."""

    project: Project
    commit: str

    def read_json(self, path: str) -> Any:
        """A file that git has of it."""
        return json.loads(_git(self.project, "show", f"{self.commit}:{path}"))


def digest(params: Params, but: str) -> str:
    """What all experiments of one series have in common: parameters and code, without the key that is varied."""
    sections = params.model_dump(include={"seed", "captcha", "splits", "models", "train", "finetune", "start_from"})
    sections["threads"] = params.runtime.threads  # the last digits of weights depend on it
    *parents, last = but.split(".")
    section = sections
    for parent in parents:
        section = section[parent]
    del section[last]
    code = [sources.version(module) for module in SHAPING]
    return hashlib.sha256(json.dumps([sections, code], sort_keys=True).encode()).hexdigest()[:8]


def finished(project: Project, start: str, end: str) -> dict[str, Finished]:
    """Finished experiments by name, of whatever commit they started from: those whose names begin and end so."""
    listed = _git(project, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    named = {line.rpartition("/")[2]: Finished(project, line.split()[0]) for line in listed}
    return {name: one for name, one in named.items() if name.startswith(start) and name.endswith(end)}


def find(project: Project, name: str) -> Finished | None:
    """A finished experiment by its name."""
    return finished(project, name, name).get(name)


def run(project: Project, experiments: Iterable[Experiment], jobs: int) -> None:
    """Run those that are not finished, `jobs` side by side; one that was stopped resumes.

    Raises:
        UserError: one failed; those that have finished stay.
    """
    missing = [experiment for experiment in experiments if find(project, experiment.name) is None]
    starts = Lock()
    with ThreadPoolExecutor(jobs) as threads:
        for _ in threads.map(lambda one: _run(project, one, starts), missing):
            pass
    failed = [experiment.name for experiment in missing if find(project, experiment.name) is None]
    if failed:
        raise UserError(
            f"{', '.join(failed)} failed: its output says why; the same command runs again what is missing."
        )


def is_up_to_date(project: Project) -> bool:
    """Whether dvc.lock, and with it reports/, is of the present parameters and code."""
    words = ("repro", "--allow-missing", "--dry", "evaluate@cnn", "evaluate@ctc")
    done = subprocess.run(
        [_tool("dvc"), *words], cwd=project.root, env=_environment(), capture_output=True, text=True, check=False
    )
    return "Data and pipelines are up to date." in done.stdout


def _run(project: Project, experiment: Experiment, starts: Lock) -> None:
    """Run one; whether it finished is whether it can be found: DVC also exits with an error where it cannot lock anew.

    Args:
        starts: held until the first stage: until then DVC works in the project itself, and two would be in each
            other's way.
    """
    sets = [word for key, value in experiment.values.items() for word in ("-S", f"{key}={value}")]
    shown = ", ".join(f"{key} = {value}" for key, value in experiment.values.items())
    command = [_tool("dvc"), "exp", "run", "--temp", "--name", experiment.name, *sets, "evaluate@cnn", "evaluate@ctc"]
    with ExitStack() as starting:
        starting.enter_context(starts)
        print(f"{experiment.name}: runs with {shown}", flush=True)
        with subprocess.Popen(
            command, cwd=project.root, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:  # several write at once: each line says whose it is
                print(f"{experiment.name}: {line.rstrip()}", flush=True)
                if line.startswith(("Running stage", "Stage '")):
                    starting.close()


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _environment() -> dict[str, str]:
    """This interpreter's tools, and nothing that DVC sets for a stage: it names its copies' project itself."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def _git(project: Project, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=project.root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(words)} failed in {project.root} ({done.stderr.strip()}).")
    return done.stdout
