"""Files that are there whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captchalab.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or folder; moved in when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.partial-*"):  # by a process that was killed
        import psutil

        pid = left.name.removeprefix(f".{path.name}.partial-").partition("-")[0]  # sqlite adds "-journal"
        if not psutil.pid_exists(int(pid)):
            _remove(left)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and make it again with `dvc repro`.") from None


def md5(path: Path) -> str:
    """A file's content, named as DVC names it.

    Raises:
        UserError: there is no such file.
    """
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that is there.") from None
