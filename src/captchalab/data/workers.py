"""Worker processes, through joblib: `joblib.parallel_config` puts the same calls on another engine, such as Ray."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from itertools import cycle, islice
from typing import Any, TypeVar

from captchalab.processes import end_with_parent

CALLS_AHEAD_PER_WORKER = 4

T = TypeVar("T")


def in_order(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], workers: int = 0) -> Generator[T]:
    """Results of function(*call), in the order of the calls, computed ahead by worker processes.

    joblib computes every call it is given, however slowly the results are taken. So it gets one window of
    calls beyond the one that is being read: at most 2 * CALLS_AHEAD_PER_WORKER * workers results wait.

    Args:
        workers: 0 takes one per core; with 1 the calls are computed in this process, when they are read.
    """
    from joblib import Parallel, delayed

    workers = workers or os.cpu_count() or 1
    settings = {"n_jobs": workers, "pre_dispatch": "all", "batch_size": 1, **_engine()}
    remaining = (delayed(function)(*call) for call in calls)
    windows: deque[Iterable[T]] = deque()
    # Two, entered once: joblib keeps its processes from one to the next, but leaves a folder for each that it sets up.
    with Parallel(**settings) as one, Parallel(**settings) as other:
        turns = cycle((one, other))
        try:
            while True:
                if window := list(islice(remaining, CALLS_AHEAD_PER_WORKER * workers)):
                    windows.append(next(turns)(window))
                if not windows:
                    return
                if len(windows) == 2 or not window:
                    for result in windows[0]:  # noqa: UP028 - `yield from` would close it with this generator
                        yield result
                    windows.popleft()
        finally:
            # Where reading stopped early the rest is computed: closing a window kills the workers, with warnings.
            for unread in windows:
                with suppress(Exception):
                    deque(unread, maxlen=0)


def _engine() -> dict[str, Any]:
    """Arguments for joblib that depend on the engine which is configured: its own processes, if none is."""
    from joblib.parallel import BACKENDS, get_active_backend

    backend, _ = get_active_backend()
    if isinstance(backend, BACKENDS["loky"]):
        # joblib's processes would wait five minutes for calls of a parent that was killed
        return {"return_as": "generator", "initializer": _begin, "initargs": (os.getpid(),)}
    # Ray 2.60 gives no generator: there a window is computed before it is read
    return {"return_as": "generator" if backend.supports_return_generator else "list"}


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides
    end_with_parent(parent)
