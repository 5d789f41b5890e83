"""Processes that end with their parent, and locks: one process per stage, or one after another."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captchalab.errors import UserError

CHECK_EVERY_S = 1.0
NOTICE_AFTER_S = 2.0  # of waiting for a lock


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
        "captchalab: dvc has ended, so this stage ends too; the next `dvc repro` resumes it.",
    )


@contextmanager
def only_one(lock_file: Path, what: str, limit_s: float = 10 * CHECK_EVERY_S) -> Iterator[None]:
    """Hold a lock file while working; the system frees it when the process ends, however it ends.

    Args:
        what: the work that only one process may do, such as `train cnn`.
        limit_s: how long to wait. Not 0: a stage whose dvc was killed needs a moment to notice it.

    Raises:
        UserError: another process holds it.
    """
    refused = f"{what} is running already, in another process: wait for it, or stop it."
    with _held(lock_file, f"{what} is running in another process: waiting for it to end", limit_s, refused):
        yield


@contextmanager
def locked(lock_file: Path, what: str, limit_s: float = 600.0) -> Iterator[None]:
    """Hold a lock file, one process after another; a wait of more than a moment says so on stderr.

    Args:
        what: what the lock protects, such as `the registry`.
        limit_s: how long to wait.

    Raises:
        UserError: another process has held it for that long.
    """
    refused = (
        f"{what} has been locked by another process for {limit_s:g} s ({lock_file}): wait for that process or stop "
        "it, then run this again."
    )
    with _held(lock_file, f"{what} is locked by another process ({lock_file}): waiting for it", limit_s, refused):
        yield


@contextmanager
def _held(lock_file: Path, notice: str, limit_s: float, refused: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    moment_s = min(NOTICE_AFTER_S, limit_s)
    try:
        try:
            lock.acquire(timeout=moment_s)
        except Timeout:
            if limit_s <= moment_s:
                raise
            print(f"captchalab: {notice}, for {limit_s:g} s at most.", file=sys.stderr, flush=True)
            lock.acquire(timeout=limit_s - moment_s)
    except Timeout:
        raise UserError(refused) from None
    try:
        yield
    finally:
        lock.release()


def _end_when(over, message: str) -> None:  # type: ignore[no-untyped-def]
    def watch() -> None:
        while not over():
            time.sleep(CHECK_EVERY_S)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-when").start()
