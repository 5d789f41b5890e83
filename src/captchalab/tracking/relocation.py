"""A moved or renamed project: `captchalab relocate` repairs the locations in mlruns/mlflow.db.

MLflow stores where files are as absolute locations. After a move reads fail with "No such artifact", and writes
recreate the old folder: `check()` notices before either, `relocate()` rewrites what points to where mlruns/ was.
`folder` is mlruns/ everywhere here, with its mlflow.db and artifacts/.
"""

import os
import re
import shlex
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from captchalab import files
from captchalab.errors import UserError
from captchalab.processes import locked

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),  # models:/m-..., or a location where the version was made from one
    ("trace_tags", "value"),  # of the tag mlflow.artifactLocation
)
LOCK = ".mlflow.lock"  # in mlruns/, held while the database is created or rewritten
WITH_FILES = ("runs.artifact_uri", "logged_models.artifact_location")


class Place(NamedTuple):
    """A location in some mlruns/, as captchalab lays it out."""

    mlruns: Path
    rest: str  # artifacts/...
    is_uri: bool  # file:///..., percent-encoded; else a plain path

    @classmethod
    def of(cls, location: str) -> "Place | None":
        """The place of a location; None for one of another kind."""
        is_uri = location.startswith("file://")
        path = unquote(location.removeprefix("file://")) if is_uri else location
        found = re.fullmatch(r"((?:/.*)?/mlruns)/(artifacts(?:/.*)?)", path, re.DOTALL)
        return cls(Path(found[1]), found[2], is_uri) if found else None

    @property
    def path(self) -> Path:
        return self.mlruns / self.rest

    @property
    def location(self) -> str:
        return self.path.as_uri() if self.is_uri else str(self.path)


class Move(NamedTuple):
    """One location to rewrite."""

    column: str  # table.column
    row: int
    old: Place
    new: Place


def check(folder: Path) -> None:
    """Refuse a database that points to an mlruns/ it was moved from; takes milliseconds.

    Raises:
        UserError: it does.
    """
    if old := moved_from(folder):
        raise UserError(
            f"The runs have come here from {old}: run `captchalab relocate`, so that their files are found."
        )


def moved_from(folder: Path) -> Path | None:
    """The mlruns/ that the database points to in place of this one, if it does."""
    try:
        with closing(_open(folder)) as database:
            first = next(_moves(database, folder), None)
    except sqlite3.Error:  # it does not exist yet, or cannot be read, which MLflow says itself
        return None
    return first.old.mlruns if first else None


def plan(folder: Path) -> list[Move]:
    """What `relocate` would rewrite; changes nothing."""
    with closing(_open(folder)) as database:
        return list(_moves(database, folder))


def relocate(folder: Path, dry_run: bool = False) -> str:
    """Rewrite every location that points to where mlruns/ was, all or none; a backup of the database comes first.

    Args:
        dry_run: only say what would be rewritten.

    Returns:
        What was done, in lines for a person.

    Raises:
        UserError: the database cannot be read or written.
    """
    path = folder / "mlflow.db"
    if not path.exists():
        return f"Nothing has moved: {path} does not exist yet."
    try:
        with locked(folder / LOCK, "MLflow's store"):
            moves, backup = (plan(folder), None) if dry_run else _rewrite(folder)
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"{path} cannot be repaired ({error}): stop what uses it, and try again.") from error
    if not moves:
        return f"Nothing has moved: the files are where {path} says."
    done = f"The backup of the database is {backup}." if backup else "A dry run: nothing has been rewritten."
    return "\n".join([*describe(moves, folder), done])


def describe(moves: list[Move], folder: Path) -> Iterator[str]:
    """From where to where, an example per column, and whose files are still in the old place."""
    for former in sorted({move.old.mlruns for move in moves}):
        copied = "; a project still exists there, and keeps its own" if _exists(former / "mlflow.db") else ""
        yield f"{former} -> {folder}{copied}"
    for column, group in groupby(moves, lambda move: move.column):
        rows = list(group)
        yield f"  {column}: {len(rows)}, such as {rows[0].old.location} -> {rows[0].new.location}"
    with_files = [move for move in moves if move.column in WITH_FILES]
    behind = Counter(m.old.mlruns for m in with_files if _exists(m.old.path) and not _exists(m.new.path))
    for former, count in sorted(behind.items()):
        bring = shlex.join(["cp", "-an", f"{former}/artifacts/.", f"{folder}/artifacts/"])
        yield f"The files of {count} runs or models are in {former} alone; to bring them here: {bring}"


def _moves(database: sqlite3.Connection, folder: Path) -> Iterator[Move]:
    is_former = _former(database, folder)
    for table, column in COLUMNS:
        if not database.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone():
            continue  # a database that is not created yet, or by an MLflow without such a table
        # sqlite skips what is in its place thirty times faster than Python
        rows = database.execute(
            f"SELECT rowid, {column} FROM {table} "
            f"WHERE instr({column}, '/mlruns/artifacts') AND substr({column}, 1, length(:here)) <> :here",
            {"here": f"{folder.as_uri()}/"},
        )
        for row, location in rows:
            old = Place.of(location)
            if old and old.mlruns != folder and is_former(old.mlruns):
                yield Move(f"{table}.{column}", row, old, old._replace(mlruns=folder))


def _former(database: sqlite3.Connection, folder: Path) -> Callable[[Path], bool]:
    """Whether this store was in another mlruns/ once; one that exists may hold artifacts on purpose.

    It was there if that folder no longer exists, if it was created there, or if that folder has a store of
    its own, of which this one is a copy.
    """

    @cache
    def is_former(mlruns: Path) -> bool:
        if mlruns.resolve() == folder.resolve():
            return False  # a link from the old place to this one will do
        if not _exists(mlruns) or _exists(mlruns / "mlflow.db"):
            return True
        made_at = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
        place = Place.of(made_at[0]) if made_at else None
        return place is not None and place.mlruns == mlruns

    return is_former


def _rewrite(folder: Path) -> tuple[list[Move], Path | None]:
    with closing(_open(folder)) as database, database:  # all of it, or nothing
        database.execute("BEGIN IMMEDIATE")
        moves = list(_moves(database, folder))
        if not moves:
            return moves, None
        backup = _back_up(folder)
        for move in moves:
            table, column = move.column.split(".")
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (move.new.location, move.row))
    return moves, backup


def _back_up(folder: Path) -> Path:
    path = folder / f"mlflow.db.before-relocate-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with (
        files.atomic_write(path) as partial,
        closing(_open(folder)) as database,
        closing(sqlite3.connect(partial)) as copy,
    ):
        database.backup(copy)
    return path


def _open(folder: Path) -> sqlite3.Connection:
    # "rw" creates none; "ro" could not read one in which a killed process has left an incomplete write
    return sqlite3.connect(
        f"file:{quote(str(folder / 'mlflow.db'))}?mode=rw", uri=True, isolation_level=None, timeout=20
    )


def _exists(path: Path) -> bool:
    return os.access(path, os.F_OK)  # Path.exists() raises where permission is missing
