import subprocess
import sys
import textwrap
import threading

import psutil
import pytest

from captchalab.errors import UserError
from captchalab.processes import locked, only_one

STAGE = """
import threading, time
from captchalab.processes import end_with_dvc
end_with_dvc()
print("watched" if any(t.name == "end-when" for t in threading.enumerate()) else "on its own", flush=True)
time.sleep(600)
"""


def start(tmp_path, name: str) -> tuple[str, subprocess.Popen, psutil.Process]:
    """What a stage says, started by a process `name` through a shell, as dvc does; both processes."""
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / name).write_text(
        textwrap.dedent(f"""
        import os, subprocess
        os.environ["DVC_STAGE"] = "train@cnn"
        subprocess.run("{sys.executable} {tmp_path}/stage.py; true", shell=True)
        """)
    )
    parent = subprocess.Popen([sys.executable, tmp_path / name], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    said = parent.stdout.readline().strip()
    [stage] = [p for p in psutil.Process(parent.pid).children(recursive=True) if p.cmdline()[-1].endswith("stage.py")]
    return said, parent, stage


def test_a_stage_ends_when_its_dvc_is_killed(tmp_path):
    said, dvc, stage = start(tmp_path, "dvc")
    assert said == "watched"
    dvc.kill()
    dvc.wait()
    assert not psutil.wait_procs([stage], timeout=60)[1]


def test_a_training_started_by_hand_may_outlive_its_terminal(tmp_path):
    said, terminal, stage = start(tmp_path, "terminal")
    assert said == "on its own"
    terminal.kill()
    terminal.wait()
    assert stage.is_running()
    stage.kill()


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path):
    with (
        only_one(tmp_path / "a.lock", "train cnn"),
        pytest.raises(UserError, match="train cnn is running already"),
        only_one(tmp_path / "a.lock", "train cnn", limit_s=0.05),
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


def test_waiting_for_a_lock_is_said_and_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("captchalab.processes.NOTICE_AFTER_S", 0.05)
    with (
        locked(tmp_path / "a.lock", "the registry"),
        pytest.raises(UserError, match=r"the registry has been locked by another process for 0.1 s \(.*a.lock\): wait"),
        locked(tmp_path / "a.lock", "the registry", limit_s=0.1),
    ):
        raise AssertionError("two at once")
    assert "the registry is locked by another process" in capsys.readouterr().err


def test_a_lock_that_is_free_is_taken_in_silence(tmp_path, capsys):
    with locked(tmp_path / "new" / "a.lock", "the registry"):
        pass
    assert capsys.readouterr().err == ""


def test_a_lock_that_is_freed_while_one_waits_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("captchalab.processes.NOTICE_AFTER_S", 0.05)
    waiting = threading.Event()
    taken = []

    def wait() -> None:
        waiting.set()
        with locked(tmp_path / "a.lock", "the registry"):
            taken.append(True)

    with locked(tmp_path / "a.lock", "the registry"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert waiting.wait(60)
        assert not taken
    waiter.join(60)
    assert taken
