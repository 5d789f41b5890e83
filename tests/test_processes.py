import subprocess
import sys
import textwrap

import psutil
import pytest

from captchalab.errors import UserError
from captchalab.processes import only_one

STAGE = """
import time
from captchalab.processes import end_with_dvc
end_with_dvc()
print("started", flush=True)
time.sleep(60)
"""


def start(tmp_path, name: str) -> tuple[subprocess.Popen, psutil.Process]:
    """A process `name` that starts a stage through a shell, as dvc does; the stage's process too."""
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / name).write_text(
        textwrap.dedent(f"""
        import os, subprocess
        os.environ["DVC_STAGE"] = "train@cnn"
        subprocess.run("{sys.executable} {tmp_path}/stage.py; true", shell=True)
        """)
    )
    parent = subprocess.Popen([sys.executable, tmp_path / name], stdout=subprocess.PIPE, text=True)
    assert parent.stdout and parent.stdout.readline() == "started\n"
    [stage] = [p for p in psutil.Process(parent.pid).children(recursive=True) if p.cmdline()[-1].endswith("stage.py")]
    return parent, stage


def test_a_stage_ends_when_its_dvc_is_killed(tmp_path):
    dvc, stage = start(tmp_path, "dvc")
    dvc.kill()
    dvc.wait()
    assert not psutil.wait_procs([stage], timeout=10)[1]


def test_a_training_started_by_hand_may_outlive_its_terminal(tmp_path):
    terminal, stage = start(tmp_path, "terminal")
    terminal.kill()
    terminal.wait()
    _, alive = psutil.wait_procs([stage], timeout=4)
    assert alive
    stage.kill()


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("captchalab.processes.LOOK_EVERY_S", 0.01)
    with (
        only_one(tmp_path / "a.lock", "train cnn"),
        pytest.raises(UserError, match="train cnn is running already"),
        only_one(tmp_path / "a.lock", "train cnn"),
    ):
        raise AssertionError("two at once")
    with only_one(tmp_path / "a.lock", "train cnn"):
        pass


def test_a_lock_is_freed_by_a_kill(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from captchalab.processes import only_one\n"
        "with only_one(Path(sys.argv[1]), 'x'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path / "a.lock"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with only_one(tmp_path / "a.lock", "x"):
        pass
