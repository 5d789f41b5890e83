"""A search on a Ray cluster: the workers of `search.worker`, each a task that Ray places on a node.

    captchalab search run --engine ray --address HEAD:6379 --workers 8 --gpus-per-worker 1

Ray gives a worker its cores and GPUs, and starts that of a lost node again where there is room; its trial is found by
heartbeat and run once more, like any whose worker was killed. All else is Optuna's storage. Not Ray Tune: its
OptunaSearch prunes nothing and drops intermediate values.

A node needs captchalab as it is here, and Ray started from its environment. Parameters come with the task, captchas
are drawn from the seed, once per machine.
"""

import importlib.util
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from captchalab import sources
from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.project import Project
from captchalab.search.run import THREADS, Engine
from captchalab.search.study import Options, address
from captchalab.search.worker import Worker
from captchalab.tracking import masking
from captchalab.tracking.store import Store

# What a worker has to know, as arguments of its task: Ray shows the environment of one on its pages and in its logs.
FORWARDED = (
    "OPTUNA_STORAGE",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "KERAS_BACKEND",
)
SETTINGS = {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # else lines that differ in numbers only are lost
PROBE_S = 5.0
LOST = 10  # times that a worker is started again after its node or its process was lost
CANCEL_S = 60.0  # until the next epoch ends: only then a worker hears of Ctrl-C
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Placement(NamedTuple):
    """Where workers go, and what each is given."""

    address: str  # HOST:PORT of the cluster's head
    cpus: int = 1
    gpus: float = 0


def engine(project: Project, placement: Placement, workers: int) -> Engine:
    """A cluster that is ready, as the engine of `run.run`.

    Raises:
        UserError: Ray is not installed, the cluster does not answer or has no room for one worker, or studies or runs
            are kept where workers on other machines cannot reach them.
    """
    if not importlib.util.find_spec("ray"):
        raise UserError("Ray is not installed: `make setup RAY=1` brings it, here and on each node of the cluster.")
    storage, store = address(project), Store.of(project)
    check_reachable(storage, store)
    _probe(placement.address)
    nodes = _connect(placement.address)
    check_hosts((storage, store.uri), {node["NodeManagerAddress"] for node in nodes})
    found = room([node["Resources"] for node in nodes], placement)
    if not found:
        raise UserError(
            f"No node of the Ray cluster at {placement.address} has {placement.cpus} CPU and {placement.gpus:g} GPU: "
            "ask for less with --cpus-per-worker and --gpus-per-worker, or start a node that has them."
        )
    more = "" if found >= workers else f" for {found} of {workers} workers; the others start as soon as there is"
    print(f"search: the Ray cluster at {placement.address} has {len(nodes)} nodes and room{more}", flush=True)

    def work(present: Params, options: Options) -> str:
        return _place(placement, present, options, workers)

    return work


def check_reachable(storage: str, store: Store) -> None:
    """Refuse what is a file of this machine: a cluster may place a worker on any.

    Raises:
        UserError: studies are in sqlite, or runs in an embedded store.
    """
    if storage.startswith("sqlite"):
        raise UserError(
            f"Studies at {masking.mask(storage)} are a file of this machine, and Ray places workers on others: set "
            "OPTUNA_STORAGE=postgresql://USER:PASSWORD@HOST/DATABASE, or search here without --engine ray."
        )
    if not store.is_server:
        raise UserError(
            f"Runs at {store} have their files on this machine, and Ray places workers on others: start `mlflow "
            "server`, and set MLFLOW_TRACKING_URI=http://HOST:5000."
        )


def check_hosts(addresses: Iterable[str], hosts: set[str]) -> None:
    """Refuse an address of this machine alone where the cluster has others.

    Args:
        hosts: IP address of each node.

    Raises:
        UserError: one of `addresses` names the loopback device.
    """
    for one in addresses:
        if len(hosts) > 1 and urlsplit(one).hostname in LOOPBACK:
            raise UserError(
                f"{masking.mask(one)} is another place on each of the cluster's {len(hosts)} machines: give a host "
                "name that all of them know."
            )


def room(nodes: Iterable[Mapping[str, float]], placement: Placement) -> int:
    """How many workers nodes with these resources hold at a time."""
    wanted = {"CPU": placement.cpus, "GPU": placement.gpus}
    return sum(min(int(node.get(name, 0) // n) for name, n in wanted.items() if n) for node in nodes)


def _probe(cluster: str) -> None:
    """Ask whether anything answers: Ray itself would ask for minutes."""
    host, _, port = cluster.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PROBE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"No Ray cluster answers at {cluster} ({error}): start its head with `ray start --head --port 6379`, and "
            "give --address HOST:6379."
        ) from None


def _connect(cluster: str) -> list[dict[str, Any]]:
    """The nodes of a cluster, once this process belongs to it."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    import logging

    import ray

    try:
        ray.init(address=cluster, logging_level=logging.ERROR)
    except Exception as error:  # of another version, no node on this machine, a token: each is an error of its own
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"The Ray cluster at {cluster} takes no search from here ({why}): run it on one of the cluster's nodes, "
            "with the cluster's versions of Ray and Python."
        ) from error
    return [node for node in ray.nodes() if node["Alive"]]


def _place(placement: Placement, present: Params, options: Options, workers: int) -> str:
    """Workers until the last has ended; why the search ends."""
    import ray

    task = ray.remote(num_cpus=placement.cpus, num_gpus=placement.gpus, max_retries=LOST, scheduling_strategy="SPREAD")(
        _work
    )
    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    environment |= dict.fromkeys(THREADS, str(placement.cpus))
    if not placement.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    left = [task.remote(present, options, environment, workers, _code()) for _ in range(workers)]
    reasons, errors = [], []
    try:
        while left:
            [done], left = ray.wait(left)
            try:
                reasons.append(ray.get(done))
            except ray.exceptions.RayError as error:
                errors.append(_sentence(error))
                print(f"search {options.kind}: a worker has ended: {errors[-1]}", flush=True)
    except KeyboardInterrupt:
        for one in left:
            ray.cancel(one)
        _, deaf = ray.wait(left, num_returns=len(left), timeout=CANCEL_S)
        for one in deaf:  # its trial is found by heartbeat
            ray.cancel(one, force=True)
        raise
    if not reasons:
        raise UserError(errors[0])
    return str(reasons[-1])


def _work(present: Params, options: Options, environment: Mapping[str, str], workers: int, code: str) -> str:
    """One worker, on its node; why it ended."""
    import ray

    os.environ.update(environment)
    node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:12]}"
    if _code() != code:
        raise UserError(f"The code of captchalab on {node} is another than that of the search: check out the same.")
    worker = Worker(Project.find(), present, options, workers, node)
    try:
        return worker.work()
    finally:
        worker.runs.end("FINISHED")


def _code() -> str:
    return sources.version("captchalab.search.worker")


def _sentence(error: Exception) -> str:
    """What a person should know of a worker's end."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return str(cause)
    if "No module named 'captchalab'" in str(error):
        return "A node of the cluster lacks captchalab: run `make setup RAY=1` there, and start Ray with .venv/bin/ray."
    return f"{type(error).__name__}: {masking.mask(' '.join(str(error).split()))[-500:]}"
