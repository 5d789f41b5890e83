"""What the pipeline costs around the work itself: a stage's start, and `dvc repro` with nothing to do.

    .venv/bin/python benchmarks/overhead.py        two minutes; --quick 30 s

MLflow's share of a training: benchmarks/tracking.py.
"""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import harness

from captchalab.project import Project

PYTHON, KERAS, REPRO, STATUS = "python", "Keras alone", "dvc repro, nothing to do", "dvc status"
ABOUT = f"""Seconds from the start of a command to its end. `{KERAS}` imports Keras and TensorFlow and computes a
first operation; a training stage's start imports all that `captchalab train` needs and does the same. `{REPRO}`
compares everything that the chain depends on and makes; it stands beside DVC's own start."""

FIRST_OPERATION = "import keras; keras.ops.convert_to_tensor(0.0)"
STAGE_START = (
    "from captchalab.cli import main; from captchalab.tracking import runs; from captchalab.training import fit; "
    "from captchalab.networks import backend; backend.start(1)"
)


def measure(quick: bool) -> harness.Table:
    root = Project.find().root
    dvc = Path(sys.executable).parent / "dvc"
    last, notes = REPRO, []
    if subprocess.run([dvc, "status", "-q"], cwd=root, stdout=subprocess.DEVNULL).returncode:
        last, notes = STATUS, ["The chain was not complete: `dvc status` in place of `dvc repro`, which would run it."]
    commands = {
        PYTHON: [sys.executable, "-c", "pass"],
        "captchalab --help": [sys.executable, "-m", "captchalab.cli", "--help"],
        KERAS: [sys.executable, "-c", FIRST_OPERATION],
        "a training stage's start": [sys.executable, "-c", STAGE_START],
        "dvc --version": [dvc, "--version"],
        last: [dvc, "repro" if last == REPRO else "status"],
    }
    rows = compare(commands, root, 1 if quick else 5)
    baselines = {"captchalab --help": PYTHON, "a training stage's start": KERAS, last: "dvc --version"}
    return harness.Table("Pipeline overhead", ABOUT, rows, baselines, notes)


def compare(commands: dict[str, list[str | Path]], root: Path, rounds: int) -> dict[str, list[harness.Figures]]:
    """Seconds of each command, in the folder `root`."""

    def run(command: list[str | Path]) -> harness.Figures:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        started = time.perf_counter()
        subprocess.run(
            command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
        return {"s": time.perf_counter() - started}

    return harness.take_turns({name: partial(run, command) for name, command in commands.items()}, rounds)


if __name__ == "__main__":
    harness.main(measure)
