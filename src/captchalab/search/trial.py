"""A trial's training, in a process of its own that knows neither Optuna nor MLflow.

After each epoch it tells the worker how far it has come, and asks whether to go on: the answer is a reason to end, or
None. Whatever happens to this process, the worker and the search outlive it, and its memory is given back.

The process is forked from a server that has imported TensorFlow and computed nothing yet: a trial does not pay for the
import, which takes as long as a tenth of its training. The worker itself never imports it.
"""

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from captchalab.errors import UserError
from captchalab.params import STAGES, Params, StageName
from captchalab.project import StagePaths
from captchalab.reading.captcha import Kind
from captchalab.training.journal import Journal
from captchalab.training.progress import Task


class Plan(NamedTuple):
    """What a trial trains, and where."""

    kind: Kind
    params: Params  # of `Space.short`
    train: Path  # split
    valid: Path  # split
    folder: Path  # the trial's own

    @property
    def max_s(self) -> float:
        return self.params.search.max_s

    def task(self, name: StageName) -> Task:
        return Task.of(self.params, name, self.kind, experiment="search")

    def paths(self, name: StageName) -> StagePaths:
        start_from = self.folder / "train" / "model.keras" if name == "finetune" else None
        return StagePaths(self.train, self.valid, start_from, self.folder / name, self.folder / "checkpoints")

    def ceiling_s(self, name: StageName) -> float:
        """Seconds of training that a stage may take: as large a share of `max_s` as of the images."""
        images = {stage: self.task(stage).steps * self.task(stage).stage.batch_size for stage in STAGES}
        return self.max_s * images[name] / sum(images.values())


class Network(NamedTuple):
    """Told first, before any training; the answer is as for `Epoch`."""

    parameters: int


class Latency(NamedTuple):
    """Told by a process that measures instead of training."""

    ms: float  # of one image with ONNX Runtime, 95th percentile


class Epoch(NamedTuple):
    """Told after each epoch; the answer is a reason to end the trial, or None."""

    images_seen: int  # over both stages
    score: float  # the best val/exact so far
    seconds: float  # of training so far


class Ended(NamedTuple):
    """Told last."""

    reason: str  # how both stages ended
    fit_s: float = 0.0  # seconds that `fit` took, validation and loading of data included


class Failed(NamedTuple):
    """Told last, instead."""

    reason: str


Message = Network | Latency | Epoch | Ended | Failed


def start(plan: Plan, measure: bool = False) -> tuple[ForkServerProcess, Connection]:
    """Begin, or resume, a trial in a process of its own; its messages come over the connection.

    Args:
        measure: measure the untrained network's latency instead. Its export hides a GPU from the whole process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "captchalab.training.fit"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(plan, theirs, measure), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def journal(folder: Path, name: StageName) -> Journal | None:
    """The journal of a trial's stage, wherever the stage is: under way, or at its end."""
    under_way = sorted((folder / "checkpoints").glob(f"*-{name}-*/"))
    found = [j for place in (folder / name, *under_way) if (j := Journal(place)).begun]
    return found[0] if found else None


def clear(folder: Path) -> None:
    """Remove what only a trial that goes on needs; journals and log stay."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for model in folder.glob("*/model.keras"):
        model.unlink(missing_ok=True)


def _run(plan: Plan, worker: Connection, measure: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the worker too, and the worker ends this process
    threading.Thread(target=_end_with_worker, daemon=True, name="end-with-worker").start()
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (plan.folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        last: Message = _latency(plan) if measure else _train(plan, worker)
    except UserError as error:
        last = Failed(str(error))
    except Exception as error:
        traceback.print_exc()
        last = Failed(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
    worker.send(last)


def _train(plan: Plan, worker: Connection) -> Message:
    from captchalab.networks import models
    from captchalab.training import fit

    network = models.build(plan.kind, plan.params.captcha, plan.params.network(plan.kind))
    reports, fit_s = _Reports(plan, worker), 0.0
    if reason := reports.tell(Network(network.model.count_params())):
        return Ended(reason)
    for name in STAGES:
        if not (plan.folder / name / "model.keras").exists():  # this stage has not ended yet
            shutil.rmtree(plan.folder / name, ignore_errors=True)
            started = time.monotonic()
            fit.fit(plan.task(name), plan.paths(name), {}, stop=partial(reports.stop, name))
            fit_s += time.monotonic() - started
        if reason := reports.tell_epochs(Journal(plan.folder / name)):
            return Ended(reason, fit_s)
        reports.next_stage()
    return Ended(
        "; ".join(f"{name}: {Journal(plan.folder / name).about['outcome']['stopped']}" for name in STAGES), fit_s
    )


class _Reports:
    """What the worker has been told so far."""

    def __init__(self, plan: Plan, worker: Connection) -> None:
        self.plan, self.worker = plan, worker
        self.told = 0  # epochs of this stage
        self.before = self.images_seen = 0  # images before this stage, and so far
        self.score = self.seconds = 0.0
        self.ended: str | None = None  # the reason, once an answer was one: `fit` ends its stage with it like any other

    def tell(self, message: Network | Epoch) -> str | None:
        """Tell, and wait for the answer: a reason to end the trial."""
        try:
            self.worker.send(message)
            self.ended = self.worker.recv()
        except (EOFError, OSError):
            raise SystemExit("the worker has gone: whoever runs this trial again resumes from here") from None
        return self.ended

    def tell_epochs(self, journal: Journal) -> str | None:
        """Tell each epoch that is new; after a kill that is all of them again, since it is another trial's."""
        for epoch in journal.epochs()[self.told :]:
            self.told += 1
            self.images_seen = self.before + int(epoch.figures["images_seen"])
            self.score = max(self.score, epoch.figures["val/exact"])
            self.seconds += epoch.seconds
            if self.tell(Epoch(self.images_seen, self.score, self.seconds)):
                break
        return self.ended

    def stop(self, name: StageName, journal: Journal) -> str | None:
        """Why a stage should end before its time."""
        if reason := self.tell_epochs(journal):
            return reason
        ceiling = self.plan.ceiling_s(name)
        if sum(epoch.seconds for epoch in journal.epochs()) >= ceiling:
            return f"its {ceiling:.0f} s of search.max_s"
        return None

    def next_stage(self) -> None:
        self.before, self.told = self.images_seen, 0


def _latency(plan: Plan) -> Message:
    from captchalab.networks import export, models
    from captchalab.reading import predictor
    from captchalab.registry import gate

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models.save(
            models.build(plan.kind, plan.params.captcha, plan.params.network(plan.kind)), folder / "model.keras"
        )
        export.export(folder / "model.keras", plan.valid, folder / "export")
        return Latency(gate.latency_ms(predictor.load(folder / "export" / "model.onnx")))


def _end_with_worker() -> None:
    worker = multiprocessing.parent_process()
    assert worker
    worker.join()
    os._exit(1)
