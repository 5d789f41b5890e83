"""What C++ writes to stderr: nothing where all is well, and all of it however the process ends otherwise."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from captchalab.networks.quiet import quiet
print("before", file=sys.stderr)
with quiet():
    os.write(2, b"from C++\\n")
    {inside}
print("after", file=sys.stderr)
"""


def run(inside: str) -> subprocess.CompletedProcess:
    script = SCRIPT.format(inside=inside)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_what_goes_well_is_quiet():
    done = run("pass")
    assert (done.returncode, done.stderr) == (0, "before\nafter\n")


@pytest.mark.parametrize(
    "end",
    ["os.abort()", "os._exit(3)", "os.kill(os.getpid(), signal.SIGSEGV)", "os.kill(os.getpid(), signal.SIGKILL)"],
)
def test_a_hard_end_shows_what_was_held_back(end):
    done = run(end)
    assert done.returncode != 0
    assert done.stderr == "before\nfrom C++\n"


@pytest.mark.parametrize("error", ["raise ValueError('wrong')", "sys.exit('wrong')", "raise KeyboardInterrupt"])
def test_an_exception_shows_it_once_and_is_raised(error):
    done = run(error)
    assert done.returncode != 0
    assert done.stderr.count("from C++") == 1
    assert done.stderr.startswith("before\nfrom C++\n")
    assert "after" not in done.stderr


@pytest.mark.parametrize("inside", ["pass", "os.abort()"])
def test_no_file_is_left(tmp_path, inside):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", SCRIPT.format(inside=inside)], capture_output=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_no_process_is_left():
    done = run("pass\nimport psutil\nprint(psutil.Process().children())")
    assert done.stdout == "[]\n"
