"""Atomic writes, JSON, and digests of files."""

import contextlib
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captchalab.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or folder; moved there when the block ends without error.

    After a kill `path` is what it was or what it should become (a folder that replaces another may be missing,
    if the kill comes between two renames). After a power cut too: the content is on the disk before the move,
    and the move before this returns.

    The place is named by a random id and this machine. A lock file says that its process is alive: process
    ids would not, on a file system shared by machines or containers. What a dead one left is removed here.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    id = uuid.uuid4().hex
    partial = path.with_name(f".{path.name}.partial-{id}-{platform.node()}")
    lock = FileLock(_lock_file(path, id))
    with lock:
        try:
            yield partial
            _sync(partial)
            _move(partial, path)
            _sync_folder(path.parent)
        finally:
            _remove_all(path, id)


def _move(partial: Path, path: Path) -> None:
    if not path.is_dir():
        partial.replace(path)
        return
    replaced = partial.with_name(f"{partial.name}-replaced")  # the system moves no folder over another
    path.rename(replaced)
    try:
        partial.replace(path)
    except BaseException:
        replaced.rename(path)
        raise


def _lock_file(path: Path, id: str) -> Path:
    return path.with_name(f".{path.name}.partial-{id}.lock")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing `path`."""
    from filelock import FileLock, Timeout

    name = re.compile(rf"\.{re.escape(path.name)}\.partial-([0-9a-f]{{32}})[-.]")
    for id in {found[1] for entry in path.parent.iterdir() if (found := name.match(entry.name))}:
        # Timeout: its process lives; OSError: the file system has no locks, so nobody can know
        with contextlib.suppress(Timeout, OSError), FileLock(_lock_file(path, id), timeout=0):
            _remove_all(path, id)


def _remove_all(path: Path, id: str) -> None:
    """Remove a partial file or folder, all that was written beside it (sqlite's "-journal"), its lock last."""
    lock_file = _lock_file(path, id)
    for left in path.parent.glob(f".{glob.escape(path.name)}.partial-{id}-*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
    lock_file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Put a file, or a folder with all that is in it, on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync(entry)
        _sync_folder(path)
    else:
        with path.open("rb") as content:
            os.fsync(content.fileno())


def _sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk; some shared file systems and Windows cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with `dvc repro`.") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is not JSON ({error}): delete it and recreate it with `dvc repro`.") from None


def md5(path: Path) -> str:
    """A file's content, named as DVC names it.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that exists.") from None
