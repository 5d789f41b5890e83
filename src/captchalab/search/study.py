"""Optuna's side of a search: where studies are kept, how one is opened or refused, what samples and what prunes.

A study holds the trials of one kind of network. What makes its trials comparable (space, budget, data) is written into
it when it is made, and compared whenever it is opened.
"""

import contextlib
import json
import os
import uuid
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

from captchalab.errors import UserError
from captchalab.params import Params, SearchParams
from captchalab.processes import locked
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.search.space import Space
from captchalab.tracking import masking
from captchalab.tracking.store import Store

Sampler = Literal["tpe", "random"]
MADE_OF = "made_of"  # the user attribute of a study that says what it was made with
SILENT_HEARTBEATS = 3  # after so many that did not come a worker is dead
RETRIES = 1  # of a trial whose worker was killed
SQLITE_WAITS_S = 120.0  # for another process that writes

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Options(NamedTuple):
    """How one run of a search goes on with a study."""

    kind: Kind
    study: str
    trials: int  # that the study should have in all
    timeout_s: float | None = None  # no trial starts later
    sampler: Sampler = "tpe"
    pruning: bool = True


def address(project: Project) -> str:
    """The storage's address, from OPTUNA_STORAGE or below mlruns/; it may hold a password.

    Raises:
        UserError: it is MLflow's own database.
    """
    url = os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{project.studies}"
    if url == Store.of(project).uri:
        raise UserError(
            f"OPTUNA_STORAGE = {masking.mask(url)} is MLflow's database, and both keep a table of one name: give "
            "studies a database of their own."
        )
    return url


def open_storage(project: Project, heartbeat_s: int) -> RDBStorage:
    """The storage of studies, made at first use.

    A trial whose worker has been silent for three heartbeats is failed and put back in the queue, once.

    Raises:
        UserError: it cannot be reached.
    """
    url = address(project)
    sqlite = url.startswith("sqlite")
    # a server has few connections for many workers, who speak to it now and then: none is kept open
    engine = {"connect_args": {"timeout": SQLITE_WAITS_S}} if sqlite else {"poolclass": sqlalchemy.NullPool}
    project.mlruns.mkdir(parents=True, exist_ok=True)
    try:
        # two processes that make the same tables at once crash
        with locked(project.mlruns / "optuna.lock", "Optuna's storage"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=heartbeat_s,
                grace_period=SILENT_HEARTBEATS * heartbeat_s,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
    except UserError:
        raise
    except Exception as error:  # of SQLAlchemy, of a driver, or of Optuna for a database of another version
        root: BaseException = error
        while root.__cause__ or root.__context__:
            root = root.__cause__ or root.__context__ or root
        why = masking.redact(" ".join(str(root).split()), url)[:200]
        raise UserError(
            f"Studies at {masking.mask(url)} cannot be reached ({why}): start that database, or point OPTUNA_STORAGE "
            "elsewhere."
        ) from error


def default_name(kind: Kind) -> str:
    return f"captcha-{kind}"


def open_study(storage: RDBStorage, name: str, space: Space, data: dict[str, str]) -> optuna.Study:
    """The study of a name, made where there is none; the present parameters are the first in its queue.

    Args:
        data: digest of each split that trials read.

    Raises:
        UserError: it was made with another space, budget or data, or the space does not hold the present parameters.
    """
    refuse_other(storage, name, space, data)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    found = study.user_attrs.get(MADE_OF)
    if found is None:
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr(MADE_OF, {**_plain(space.describe()), "data": data})
    present = space.present()
    if len(present) == len(space.entries):
        study.enqueue_trial(present, skip_if_exists=True)
    elif found is None:
        missing = next(entry.name for entry in space.entries if entry.name not in present)
        print(
            f"search {space.kind}: search.space.{space.kind}.{missing} does not hold the present value, so the first "
            "trial takes another one there."
        )
        study.enqueue_trial(present, skip_if_exists=True)
    return study


def refuse_other(storage: RDBStorage, name: str, space: Space, data: dict[str, str] | None = None) -> None:
    """Refuse a study whose trials could not be compared with those of this space and data (None: not drawn yet).

    Raises:
        UserError: it was made with other ones.
    """
    if name not in optuna.get_all_study_names(storage):
        return
    found = dict(optuna.load_study(study_name=name, storage=storage).user_attrs.get(MADE_OF, {}))
    if data is None:
        found.pop("data", None)
    made_of = {**_plain(space.describe()), **({} if data is None else {"data": data})}
    if found and found != made_of:
        raise UserError(
            f"Study {name!r} was made with {_difference(found, made_of)}: its trials cannot be compared with new ones. "
            "Give the new search a name with --study NAME, or go back to the params.yaml of the old one."
        )


def existing(storage: RDBStorage, kinds: tuple[Kind, ...] = KINDS, name: str | None = None) -> list[optuna.Study]:
    """The studies of these kinds, or the one of a name.

    Raises:
        UserError: there is none.
    """
    names = optuna.get_all_study_names(storage)
    wanted = [name] if name else [default_name(kind) for kind in kinds]
    found = [optuna.load_study(study_name=one, storage=storage) for one in wanted if one in names]
    if not found:
        known = f"there are {', '.join(sorted(names))}" if names else "there is none yet"
        raise UserError(f"There is no study {' or '.join(wanted)} ({known}): `captchalab search run` makes one.")
    return found


def kind_of(study: optuna.Study) -> Kind:
    """The kind of network that a study searches.

    Raises:
        UserError: the study was not made by captchalab.
    """
    kind: Kind | None = study.user_attrs.get(MADE_OF, {}).get("kind")
    if kind not in KINDS:
        raise UserError(f"Study {study.study_name!r} was not made by `captchalab search`: name another with --study.")
    return kind


def id_of(study: optuna.Study) -> str:
    """What tells a study from an older one of its name, in a database that was removed."""
    found: str = study.user_attrs["id"]
    return found


@contextlib.contextmanager
def held(storage: RDBStorage, study_id: str) -> Iterator[None]:
    """Hold a study in PostgreSQL for one worker of all hosts, as a lock file does for those of one host."""
    if storage.engine.dialect.name != "postgresql":
        yield
        return
    key = {"study": study_id}
    with storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtextextended(:study, 0))"), key)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(hashtextextended(:study, 0))"), key)


def sampler(options: Options, budget: SearchParams, seed: int) -> optuna.samplers.BaseSampler:
    """What proposes a trial's values; to be made anew for each trial, or a resumed search repeats its proposals.

    Args:
        seed: that of params.yaml, plus the number of trials so far.
    """
    if options.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=budget.startup_trials, seed=seed)


def pruner(options: Options, budget: SearchParams) -> optuna.pruners.BasePruner:
    """What ends a trial that is behind the others after as many images.

    CTC reads no text at all for a while (the plateau: it puts a blank everywhere), and how long that lasts says little
    about how good it becomes. So nothing is pruned before `warmup_images`, which is past the usual plateau at the
    budget's learning rates. After that a trial that still reads nothing is behind the others, and ends.
    """
    if not options.pruning:
        return optuna.pruners.NopPruner()
    rules = budget.pruner
    return optuna.pruners.PercentilePruner(
        rules.percentile,
        n_startup_trials=rules.startup_trials,
        n_warmup_steps=getattr(rules.warmup_images, options.kind),
        n_min_trials=rules.min_trials,
    )


def step(space: Space, images_seen: int) -> int:
    """Where on the common axis of all trials a report belongs: images seen, to the nearest report.

    A batch size that does not divide the images between two reports moves a trial's own count by less than a batch
    per epoch; the pruner compares only what was reported at the very same step.
    """
    return round(round(images_seen / space.report_images) * space.report_images)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first thing that differs, in words."""
    for part in ("space", "budget", "captcha", "fixed", "data"):
        before, after = old.get(part, {}), new.get(part, {})
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                if part == "space":
                    return f"another space (search.space.{new['kind']}.{key})"
                if part == "data":
                    return f"other captchas (the digest of its {key} split differs)"
                where = {"budget": f"search.{key}", "captcha": f"captcha.{key}"}.get(part, key)
                return f"{where} = {before.get(key)!r}, and it is {after.get(key)!r} now"
    changed = next(key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key))
    return f"another {changed} ({old.get(changed)!r}, and {new.get(changed)!r} now)"


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def seed_of(present: Params, study: optuna.Study) -> int:
    """The sampler's seed for the next trial."""
    return present.seed + len(study.get_trials(deepcopy=False))
