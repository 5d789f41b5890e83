"""fit(): one function for both stages; `finetune` starts from the best weights of `train`.

    captchalab train cnn          stage 1, at 1e-3
    captchalab finetune cnn       stage 2, at 1e-4

Both end with model.keras (the best epoch's weights) and the journal in models/<kind>/<stage>/.
Results, times and hardware: the README's table.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from captchalab import files, sources
from captchalab.data import batches, dataset
from captchalab.errors import UserError
from captchalab.networks import backend, models
from captchalab.networks.backend import keras
from captchalab.params import StageParams
from captchalab.processes import only_one
from captchalab.project import StagePaths
from captchalab.training import optimizers, trainer
from captchalab.training.checkpoints import Checkpoints, State, fingerprint, weights_digest
from captchalab.training.console import Steps, log, log_epoch
from captchalab.training.journal import FILES, Journal
from captchalab.training.progress import Progress, Task
from captchalab.training.validation import validate


class Follower(Protocol):
    """Follows a journal while it grows, called after each change; never makes training wait or fail."""

    def begin(self, journal: Journal) -> None: ...
    def epoch(self) -> None: ...
    def end(self, status: str) -> None: ...


Stop = Callable[[Journal], str | None]  # why a stage should end before its time, asked after each epoch


class NoFollower:
    """Follows nothing."""

    def begin(self, journal: Journal) -> None: ...
    def epoch(self) -> None: ...
    def end(self, status: str) -> None: ...


def fit(
    task: Task, paths: StagePaths, tags: dict[str, str], follower: Follower | None = None, stop: Stop | None = None
) -> None:
    """Train one stage to its end; one that was stopped resumes after its last finished epoch, bit for bit.

    Args:
        stop: asked after each finished epoch, and again after the last one when the stage resumes; its reason ends
            the stage like any other end, with the best weights so far.

    Raises:
        UserError: data or starting model missing or of other captchas; the loss is not a number;
            the same stage runs in another process.
    """
    follower = follower or NoFollower()
    device = backend.start(task.seed)
    valid = dataset.load(paths.valid, task.captcha)
    source = _source(task, paths)
    network = models.with_precision(_network(task, paths), task.precision)
    key = fingerprint(
        {
            "task": [task.name, task.kind, task.captcha.model_dump(), task.network.model_dump()],
            "stage": task.stage.model_dump(),
            "precision": task.precision,
            "seed": task.seed,
            "data": [source.digest, valid.meta["digest"]],
            "start": weights_digest(_arrays(network.model.variables)),
            "code": sources.version(__name__),
            "versions": backend.versions(),
        }
    )
    checkpoints = Checkpoints(paths.checkpoints / f"{task.kind}-{task.name}-{key[:16]}")
    folder = checkpoints.folder
    with only_one(folder.with_suffix(".lock"), f"{task.name} {task.kind}"), _closing(source):
        optimizer = _compile(network, task.stage, device)
        journal = Journal(folder)
        progress, best = Progress(), []
        if state := _last_state(task, checkpoints, journal):
            progress, best = Progress(**state.progress), state.best
            _restore(network, optimizer, state)
            log(task, f"resumes after epoch {progress.epoch} of {task.stage.epochs}")
        if journal.begun:
            journal.go_back_to(progress.epoch)
        else:
            about = _about(task, network, device, {**tags, "fingerprint": key, "data_digest": source.digest})
            journal = Journal.begin(folder, about)
            log(
                task,
                f"{network.model.count_params():,} parameters, {about['params']['images_at_most']:,} images at most, "
                f"learning rate {task.stage.learning_rate:g}, {device.name}, {device.backend}",
            )
        follower.begin(journal)
        runner = trainer.build(network, optimizer, source, device)
        try:
            while not (reason := progress.ended(task.stage) or (stop and progress.epoch and stop(journal))):
                metrics, seconds = _epoch(task, network, optimizer, runner, valid, progress.epoch)
                if progress.count(metrics, task.stage.best_by):
                    best = _arrays(network.model.weights)
                images = task.stage.batch_size * task.stage.steps_per_epoch
                journal.add(metrics, seconds, images)
                checkpoints.save(
                    State(
                        asdict(progress),
                        _arrays(network.model.variables),
                        _arrays(optimizer.variables),
                        best,
                    )
                )
                follower.epoch()
                log_epoch(task, progress, metrics, images / seconds, seconds)
        except BaseException as error:
            follower.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        for variable, array in zip(network.model.weights, best, strict=True):
            variable.assign(array)
        best_metrics = journal.epochs()[progress.best_epoch - 1].figures
        journal.end({"stopped": reason, "best_epoch": progress.best_epoch, "best": best_metrics})
        models.save(models.with_precision(network, "float32"), folder / "model.keras")
        follower.end("FINISHED")
        with files.atomic_write(paths.out) as out:
            out.mkdir()
            for name in ("model.keras", *FILES):
                shutil.copyfile(folder / name, out / name)
        log(
            task,
            f"ends after {reason}; best epoch {progress.best_epoch}: "
            f"val exact {best_metrics['val/exact']:.2%}, written to {paths.out}",
        )
        checkpoints.clear()


def _epoch(
    task: Task,
    network: models.Network,
    optimizer: Any,
    runner: trainer.Trainer,
    valid: dataset.SplitData,
    epoch: int,
) -> tuple[dict[str, float], float]:
    """Train one epoch and validate: its metrics, and the seconds of training."""
    steps = task.stage.steps_per_epoch
    first, last = epoch * steps, (epoch + 1) * steps
    rates = [float(optimizer.learning_rate)]
    if first <= task.stage.warmup_steps < last:
        rates.append(task.stage.learning_rate)
    started = time.perf_counter()
    losses = []
    with Steps(task, epoch) as done:
        for loss in runner.losses(first, steps):
            losses.append(loss)
            if not math.isfinite(loss):
                raise UserError(
                    f"{task.name} {task.kind}: the loss is {loss} in epoch {epoch + 1}: lower "
                    f"{task.name}.{task.kind}.learning_rate = {task.stage.learning_rate:g}, or set clip_norm."
                )
            done.add(loss)
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "step": last,
        "images_seen": last * task.stage.batch_size,
        "learning_rate": max(*rates, float(optimizer.learning_rate)),
        "train/loss": sum(losses) / steps,
        **validate(network, valid),
    }, seconds


def _source(task: Task, paths: StagePaths) -> batches.Source:
    stage = task.stage
    if stage.source == "stream":
        return batches.Stream(task.captcha, stage.batch_size, task.seed, task.name, task.workers, task.weights)
    train = dataset.load(paths.train, task.captcha, task.weights)
    return batches.Pool(train, stage.batch_size, task.seed, task.name)


def _closing(source: batches.Source) -> contextlib.AbstractContextManager[Any]:
    return contextlib.closing(source) if isinstance(source, batches.Stream) else contextlib.nullcontext()


def _network(task: Task, paths: StagePaths) -> models.Network:
    if paths.start_from is None:
        return models.build(task.kind, task.captcha, task.network)
    network = models.load(paths.start_from)
    if (network.kind, network.captcha) != (task.kind, task.captcha):
        raise UserError(
            f"{paths.start_from} reads other captchas than params.yaml describes: run `dvc repro` to train it again."
        )
    return network


def _compile(network: models.Network, stage: StageParams, device: backend.Device) -> Any:
    optimizer = optimizers.build(stage)
    network.model.compile(optimizer, models.LOSSES[network.kind], jit_compile=device.jit_compile)
    optimizer.build(network.model.trainable_variables)
    return optimizer


def _restore(network: models.Network, optimizer: Any, state: State) -> None:
    for variables, arrays in (
        (network.model.variables, state.network),
        (optimizer.variables, state.optimizer),
    ):
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _last_state(task: Task, checkpoints: Checkpoints, journal: Journal) -> State | None:
    """The newest checkpoint that is intact and whose epochs the journal holds; says what is left out."""
    state, damaged = checkpoints.load()
    for path in damaged:
        log(task, f"{path} is damaged (its content does not match its digest): removed")
    if (state or journal.begun) and not journal.holds(state.progress["epoch"] if state else 0):
        log(task, f"the journal in {journal.folder} is damaged or lacks epochs: starts from scratch")
        checkpoints.clear()
        return None
    if damaged and not state:
        log(task, "no intact checkpoint is left: starts from scratch")
    return state


def _arrays(variables: list[Any]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _about(task: Task, network: models.Network, device: backend.Device, tags: dict[str, str]) -> dict[str, Any]:
    """What the journal says of a run before it starts."""
    return {
        "name": f"{task.kind} {task.name}",
        "kind": task.kind,
        "stage": task.name,
        "experiment": task.experiment,
        "device": device.name,
        "params": {
            **task.captcha.model_dump(),
            **task.network.model_dump(),
            **task.stage.model_dump(),
            "seed": task.seed,
            "precision": task.precision,
            "text_weights": task.weights or "uniform",
            "parameters": network.model.count_params(),
            "images_at_most": task.steps * task.stage.batch_size,
        },
        "tags": {
            "kind": task.kind,
            "stage": task.name,
            "device": device.name,
            "backend": device.backend,
            **tags,
        },
    }
