"""Real servers for tests, PostgreSQL, MLflow's and Ray's: on free ports of 127.0.0.1, each ending with its block.

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
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

START_S = 300.0  # some twenty times what the slowest takes on a quiet machine
STOP_S = 60.0
RAY_ATTEMPTS = 5
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


class RayNode(NamedTuple):
    id: str
    raylet: int  # process id

    def kill(self) -> None:
        """As a machine that loses its power, for all that Ray knows."""
        os.kill(self.raylet, signal.SIGKILL)


class RayCluster(NamedTuple):
    address: str
    nodes: list[RayNode]  # the head first


@contextmanager
def ray_cluster(folder: Path, cwd: Path, nodes: int = 2) -> Iterator[RayCluster]:
    """Nodes of one core each, all on this machine; a test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="no Ray here: `make setup RAY=1`")
    address = f"127.0.0.1:{free_port()}"
    # sockets need a short path, and 64 MB of /dev/shm are all that a container has
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary, ExitStack() as started:
        found = [_ray_node(started, address, i, folder / f"node-{i}.log", temporary, cwd) for i in range(nodes)]
        yield RayCluster(address, found)


def _ray_node(started: ExitStack, address: str, number: int, log: Path, temporary: str, cwd: Path) -> RayNode:
    first = ["--head", "--port", address.partition(":")[2], "--include-dashboard", "false", "--temp-dir", temporary]
    command = [
        *("setpriv", "--pdeathsig", "INT", Path(sys.executable).parent / "ray", "start", "--block"),
        *(first if number == 0 else ["--address", address]),
        *("--num-cpus", 1, "--num-gpus", 0, "--object-store-memory", 80_000_000, "--plasma-directory", temporary),
        *("--min-worker-port", 0, "--max-worker-port", 0, "--dashboard-agent-listen-port", 0, "--disable-usage-stats"),
    ]
    environment = {
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_memory_monitor_refresh_ms": "0",  # what else fills this machine's memory is not the cluster's business
    }
    for attempt in range(RAY_ATTEMPTS):  # Ray gives a helper of its own 15 s to start, however busy the machine is
        try:
            ready = partial(_assert_started, log)
            ray = started.enter_context(running(command, log, ready, cwd=cwd, env={**os.environ, **environment}))
            break
        except pytest.fail.Exception:
            if attempt == RAY_ATTEMPTS - 1:
                raise
    [raylet] = [child for child in psutil.Process(ray.pid).children() if child.name() == "raylet"]
    [node_id] = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--node_id=")]
    return RayNode(node_id, raylet.pid)


def _assert_started(log: Path) -> None:
    assert "Ray runtime started" in log.read_text()


def hear_ctrl_c() -> None:
    """For a process that is about to start: a shell's background job ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(
    command: list[Any], log: Path, ready: Callable[[], object], **how: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process and all that it starts, from when it is ready to the end of the block."""
    with log.open("w") as output:
        streams = {"stdout": output, "stderr": output, "start_new_session": True, "preexec_fn": hear_ctrl_c}
        process = subprocess.Popen(list(map(str, command)), **streams, **how)
    try:
        deadline = time.monotonic() + START_S
        while not _done(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{' '.join(process.args)} does not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield process
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
