"""Processes that end when whoever started them has ended, and one process a stage."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captchalab.errors import UserError

LOOK_EVERY_S = 1.0


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent (a process id) has: no drawing for a dead trainer.

    The parent names itself: it may have ended before this process could ask who it is.
    """
    _end_when(lambda: os.getppid() != parent, "")


def end_with_dvc() -> None:
    """Under `dvc repro`, end this process soon after dvc has.

    A killed dvc leaves its stages running; a second `dvc repro` would then train beside them.
    Started by hand, nothing is watched: a training may outlive its terminal.
    """
    if "DVC_STAGE" not in os.environ:
        return
    import psutil

    watched = []
    for ancestor in psutil.Process().parents():
        watched.append(ancestor)
        try:
            if any(Path(part).name == "dvc" or part == "dvc" for part in ancestor.cmdline()[:4]):
                break
        except psutil.Error:
            continue
    else:
        return
    _end_when(
        lambda: not all(process.is_running() for process in watched),
        "captchalab: dvc has ended, so this stage ends too; the next `dvc repro` goes on.",
    )


@contextmanager
def only_one(lock_file: Path, what: str) -> Iterator[None]:
    """Hold a lock file while working; the system frees it when the process ends, however it ends.

    Raises:
        UserError: another process holds it.
    """
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        # a stage that lost its dvc needs a moment to notice it
        lock.acquire(timeout=5 * LOOK_EVERY_S)
    except Timeout:
        raise UserError(f"{what} is running already, in another process: wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()


def _end_when(over, message: str) -> None:  # type: ignore[no-untyped-def]
    def watch() -> None:
        while not over():
            time.sleep(LOOK_EVERY_S)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-when").start()
