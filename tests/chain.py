"""The whole chain in a temporary clone, small enough for a test and really trained, with kills on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from captchalab import params, profiles, yaml
from captchalab.training.journal import read_history

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
EPOCHS = 25  # of the CNN's stages: time enough to be killed in
# Two digits on a small image: a CNN reads many of them right after seconds, a CTC network not yet.
SMALL = f"""
captcha: {{alphabet: "0123456789", length: 2, width_px: 64, height_px: 32}}
splits: {{train: {{images: 4000}}, valid: {{images: 100}}, test: {{images: 300}}}}
models:
  cnn: {{filters: [16, 32, 32], pools: [[2, 2], [2, 2], [2, 1]]}}
train:
  cnn: {{batch_size: 32, steps_per_epoch: 10, epochs: {EPOCHS}, patience_epochs: {EPOCHS}, warmup_steps: 10}}
finetune:
  cnn: {{batch_size: 32, steps_per_epoch: 3, epochs: {EPOCHS}, patience_epochs: {EPOCHS}}}
promote: {{min_exact: 0.0, images: 2000, max_latency_ms: 1000.0}}
"""


def text(smoke: str) -> str:
    """params.yaml of the chain."""
    content = yaml.parse(smoke)
    yaml.merge(content, yaml.parse(SMALL))
    return yaml.dump(content)


def run(folder: Path, *words: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """A command of the project's environment, in a clone."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env={**profiles.copy_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def dvc(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    return run(folder, "dvc", *words, check=check)


def captchalab(folder: Path, *words: object, check: bool = True) -> subprocess.CompletedProcess:
    return run(folder, sys.executable, "-m", "captchalab.cli", *words, check=check)


def own_tests(folder: Path) -> None:
    """The tests that read the project's own files, in a workspace whose user keeps runs elsewhere."""
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "own_files and not pipeline")
    elsewhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "KERAS_BACKEND": "jax"}
    done = run(folder, *words, PYTHONPATH=str(folder / "src"), **elsewhere, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


def commit(folder: Path, message: str) -> None:
    run(folder, *GIT, "add", "-A")
    run(folder, *GIT, "commit", "-qm", message)


def clone(root: Path, to: Path, text: str) -> Path:
    profiles.copy_project(root, to)
    (to / ".dvc" / "config.local").unlink()
    (to / "params.yaml").write_text(text)
    run(to, *GIT, "init", "-q")
    commit(to, "clone")
    return to


def finished(root: Path, smoke: str, to: Path) -> Path:
    """A finished chain whose `dvc` was killed (-9) in the middle of train@cnn and of finetune@cnn.

    And an experiment in a temporary copy, `longer`, with a CNN that was trained longer and is better.
    """
    os.environ.pop("DVC_ROOT", None)
    folder = clone(root, to, text(smoke))
    for stage in params.STAGES:
        _kill_in(folder, stage)
    last = dvc(folder, "repro")
    (folder / "last.log").write_text(last.stdout + last.stderr)
    commit(folder, "run")
    longer = ("train.cnn.epochs=10", "train.cnn.steps_per_epoch=100")
    dvc(folder, "exp", "run", "--temp", "--name", "longer", *(word for value in longer for word in ("-S", value)))
    return folder


def _kill_in(folder: Path, stage: str) -> None:
    """Start `dvc repro` and kill it (-9) when the CNN's stage has two epochs behind it."""
    with (folder / f"{stage}.log").open("w") as log:
        repro = subprocess.Popen(["dvc", "repro"], cwd=folder, env=profiles.copy_environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 3000
        while time.monotonic() < deadline and repro.poll() is None:
            found = list(folder.glob(f".checkpoints/cnn-{stage}-*/epoch-*.npz"))
            if found and len(read_history(found[0].parent / "history.csv")) >= 2:
                break
            time.sleep(0.05)
        assert repro.poll() is None, (folder / f"{stage}.log").read_text()
        repro.send_signal(signal.SIGKILL)
        repro.wait()
