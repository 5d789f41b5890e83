"""Real servers for tests, PostgreSQL and MLflow's: on free ports of 127.0.0.1, each ending with its block.

`setpriv --pdeathsig` ends them also where pytest itself is killed.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

START_S = 300.0  # some twenty times what the slowest takes on a quiet machine
STOP_S = 60.0
PASSWORD = "s3cr%20et"  # of every database here, so that each test sees whether it is shown somewhere


def postgres_programs() -> Path:
    """The folder with initdb and postgres; a test that needs them is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [shutil.which("initdb")]
    if found[-1] is None:
        pytest.skip("no PostgreSQL here: install Debian's package `postgresql`")
    return Path(found[-1]).resolve().parent


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """An empty PostgreSQL server; yields the URI of its database, leaves its log in `folder`."""
    programs, port = postgres_programs(), free_port()
    uri = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"
    with tempfile.TemporaryDirectory(prefix="captchalab-postgres-") as data:  # pytest's own are closed to other users
        start = ["setpriv", "--pdeathsig", "INT", *_not_root(Path(data))]
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run([*start, *initdb], cwd=data, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        server = [programs / "postgres", "-D", data, *(f"--{key}={value}" for key, value in settings.items())]
        ask = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        ready = partial(subprocess.run, ask, stdout=subprocess.DEVNULL, check=True)
        with running([*start, *server], folder / "postgres.log", ready, cwd=data):
            yield uri


@contextmanager
def mlflow_server(folder: Path, backend_store_uri: str) -> Iterator[str]:
    """MLflow's server over a database, its artifacts and log in `folder`; yields its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        *("setpriv", "--pdeathsig", "TERM"),
        *(sys.executable, "-m", "mlflow", "server"),
        *("--artifacts-destination", folder / "artifacts"),
        *("--host", "127.0.0.1"),
        *("--port", port),
        *("--workers", 1),
    ]
    # without jobs it is two processes in place of ten
    environment = {
        "MLFLOW_BACKEND_STORE_URI": backend_store_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with running(command, folder / "server.log", partial(get, f"{address}/health"), env={**os.environ, **environment}):
        yield address


@contextmanager
def running(command: list[Any], log: Path, ready: Callable[[], object], **how: Any) -> Iterator[None]:
    """A process and all that it starts, from when it is ready to the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, start_new_session=True, **how)
    try:
        deadline = time.monotonic() + START_S
        while not _done(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{' '.join(process.args)} does not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _done(ready: Callable[[], object]) -> bool:
    try:
        ready()
    except Exception:  # refused, reset, starting up: each program says it its own way
        return False
    return True


def _not_root(data: Path) -> list[str]:
    """setpriv's words for a user who owns `data`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(data, user.pw_uid, user.pw_gid)
    return ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
