"""Calls in worker processes: in order, a bounded number ahead, and not for a parent that is dead."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from captchalab.data.workers import CALLS_AHEAD_PER_WORKER, in_order

ENDS_WITHIN_S = 60  # what takes one second where nothing else runs


def late_if_even(i: int) -> int:
    time.sleep(0.02 * (i % 2 == 0))
    return i


def process(_: int) -> int:
    return os.getpid()


def leave_a_trace(folder: Path, i: int) -> None:
    (folder / str(i)).touch()


def fail_at_20(i: int) -> int:
    if i == 20:
        raise ValueError("call 20 failed")
    return i


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("calls", [0, 1, 17, 40])
def test_results_come_in_the_order_of_the_calls(calls, workers):
    assert list(in_order(late_if_even, ((i,) for i in range(calls)), workers)) == list(range(calls))


def test_the_processes_stay_from_one_epoch_to_the_next():
    epochs = [{*in_order(process, ((i,) for i in range(20)), 2)} for _ in range(3)]
    assert len(set.union(*epochs)) <= 2
    assert os.getpid() not in epochs[0]


def test_however_slow_the_reader_no_more_than_two_windows_are_computed(tmp_path):
    with closing(in_order(leave_a_trace, ((tmp_path, i) for i in range(1000)), 2)) as results:
        next(results)
        bound = 2 * 2 * CALLS_AHEAD_PER_WORKER
        deadline = time.monotonic() + ENDS_WITHIN_S
        while len(list(tmp_path.iterdir())) < bound and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # time to compute more, which joblib by itself does
        assert len(list(tmp_path.iterdir())) == bound


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # loky's, of its killed workers
def test_a_calls_error_reaches_the_reader_and_later_calls_work():
    with pytest.raises(ValueError, match="call 20 failed"):
        list(in_order(fail_at_20, ((i,) for i in range(100)), 2))
    assert list(in_order(late_if_even, ((i,) for i in range(9)), 2)) == list(range(9))


DRAWS = """
from captchalab.data.batches import Stream
from captchalab.reading.captcha import CaptchaParams

captcha = CaptchaParams(alphabet="0123456789", length=4, width_px=128, height_px=64, channels=1)
stream = Stream(captcha, 8, 1, "train", workers=2)
try:
    for batch in stream.batches(0, 10**6):
        print("batch", flush=True)
except KeyboardInterrupt:
    stream.close()
    print("stopped")
"""


@pytest.fixture
def trainer(tmp_path):
    """A process that draws, and the processes that it started."""
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(DRAWS))
    started = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )  # fmt: skip
    assert started.stdout and started.stdout.readline() == "batch\n"
    children = psutil.Process(started.pid).children(recursive=True)
    assert len(children) >= 2
    yield started, children
    started.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    started.communicate()


def test_workers_end_when_their_trainer_is_killed(trainer):
    started, workers = trainer
    started.kill()
    started.wait()
    _, alive = psutil.wait_procs(workers, timeout=ENDS_WITHIN_S)
    assert not alive


def test_ctrl_c_ends_the_trainer_in_order_and_its_workers_with_it(trainer):
    started, workers = trainer
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to all of them
    stdout, _ = started.communicate(timeout=ENDS_WITHIN_S)
    assert stdout.endswith("stopped\n")
    _, alive = psutil.wait_procs(workers, timeout=ENDS_WITHIN_S)
    assert not alive
