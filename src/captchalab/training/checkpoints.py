"""What a stage needs to resume after a kill, named by the hash of everything that shaped it.

Checkpoints lie outside DVC's outs, which DVC deletes before a stage runs. A change of parameters,
data, starting weights, code or versions gives another name, so an old one is never picked up.

Each checkpoint is an epoch-<number>-<digest>.npz; the two newest are kept. One that was truncated or altered
no longer matches its digest: it is removed, and the stage resumes from the one before.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captchalab import files


class State(NamedTuple):
    """A stage at the end of an epoch."""

    progress: dict[str, Any]
    network: list[np.ndarray]  # all variables, the state of random generators too
    optimizer: list[np.ndarray]
    best: list[np.ndarray]  # weights of the best epoch so far


KEPT = 2


class Checkpoints:
    """The newest states of one stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: State) -> None:
        """Write a state, and keep the one before it; a kill while writing leaves the two before."""
        arrays = {"progress": np.frombuffer(json.dumps(state.progress).encode(), np.uint8)}
        for name in ("network", "optimizer", "best"):
            arrays |= {f"{name}/{i:04d}": array for i, array in enumerate(getattr(state, name))}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
        path = self.folder / f"epoch-{state.progress['epoch']:05d}-{_digest(content)}.npz"
        with files.atomic_write(path) as partial:
            partial.write_bytes(content)
        for old in self.paths()[KEPT:]:
            old.unlink()

    def paths(self) -> list[Path]:
        """The files, newest first."""
        return sorted(self.folder.glob("epoch-*.npz"), reverse=True)

    def load(self) -> tuple[State | None, list[Path]]:
        """The newest state that is as it was written, and the damaged files that were newer: they are removed."""
        damaged: list[Path] = []
        for path in self.paths():
            content = _read(path)
            if path.stem.rpartition("-")[2] == _digest(content):
                return _state(content), damaged
            damaged.append(path)
            path.unlink(missing_ok=True)
        return None, damaged

    def clear(self) -> None:
        """The stage has ended well: a forced rerun must train again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(parts: dict[str, Any]) -> str:
    """SHA-256 over everything that shapes a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def weights_digest(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over weights: the same for two files that hold the same."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a bad block of the disk
        return b""


def _state(content: bytes) -> State:
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        lists = {
            name: [saved[key] for key in sorted(saved.files) if key.startswith(f"{name}/")]
            for name in ("network", "optimizer", "best")
        }
        return State(json.loads(saved["progress"].tobytes()), **lists)
