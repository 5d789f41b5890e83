"""What a stage needs to go on after a kill, named by the hash of all that shaped it.

Checkpoints lie outside DVC's outs, which DVC deletes before a stage runs. A change of parameters,
data, starting weights, code or versions gives another name, so an old one is never picked up.
"""

import hashlib
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


class Checkpoint:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "state.npz"

    def save(self, state: State) -> None:
        """Replace the last state; a kill while writing leaves the one before."""
        arrays = {"progress": np.frombuffer(json.dumps(state.progress).encode(), np.uint8)}
        for name in ("network", "optimizer", "best"):
            arrays |= {f"{name}/{i:04d}": array for i, array in enumerate(getattr(state, name))}
        with files.atomic_write(self.path) as partial, partial.open("wb") as target:
            np.savez(target, allow_pickle=False, **arrays)

    def load(self) -> State | None:
        if not self.path.exists():
            return None
        with np.load(self.path, allow_pickle=False) as saved:
            lists = {
                name: [saved[key] for key in sorted(saved.files) if key.startswith(f"{name}/")]
                for name in ("network", "optimizer", "best")
            }
            return State(json.loads(saved["progress"].tobytes()), **lists)

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
