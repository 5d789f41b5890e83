"""fit(): one function for both stages; `finetune` starts from the best weights of `train`.

    captchalab train cnn          stage 1, at 1e-3
    captchalab finetune cnn       stage 2, at 1e-4

Both end with model.keras (the best epoch's weights) and the journal in models/<kind>/<stage>/.
Figures, times and hardware: the README's table of results.
"""

import contextlib
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from captchalab import files, sources
from captchalab.data import batches, dataset
from captchalab.errors import UserError
from captchalab.networks import backend, models
from captchalab.networks.backend import keras
from captchalab.params import NetworkParams, StageName, StageParams
from captchalab.processes import only_one
from captchalab.project import StagePaths
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.training.checkpoints import Checkpoint, State, fingerprint, weights_digest
from captchalab.training.journal import FILES, Journal
from captchalab.training.validation import validate


class Task(NamedTuple):
    """What to train."""

    name: StageName
    kind: Kind
    captcha: CaptchaParams
    network: NetworkParams
    stage: StageParams
    seed: int
    experiment: str
    workers: int = 0

    @property
    def steps(self) -> int:
        return self.stage.epochs * self.stage.steps_per_epoch


class Follower(Protocol):
    """Is told of a journal while it grows; never makes training wait or fail."""

    def begin(self, journal: Journal) -> None: ...
    def epoch(self) -> None: ...
    def end(self, status: str) -> None: ...


class Nobody:
    def begin(self, journal: Journal) -> None: ...
    def epoch(self) -> None: ...
    def end(self, status: str) -> None: ...


@dataclass
class Progress:
    """How far a stage has come; part of its checkpoint."""

    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-math.inf, -math.inf)  # compared in this order, larger is better
    epochs_without_better: int = 0
    has_read: bool = False  # off the plateau: at least one text of the valid split was right once

    def count(self, figures: dict[str, float], best_by: str) -> bool:
        """Take in an epoch's figures; True if it is the best so far."""
        self.epoch += 1
        self.has_read = self.has_read or figures["val/exact"] > 0
        exact, loss = figures["val/exact"], figures["val/loss"]
        score = (exact, -loss) if best_by == "exact" else (-loss, 0.0)
        if score > tuple(self.best):
            self.best, self.best_epoch, self.epochs_without_better = score, self.epoch, 0
            return True
        # on the plateau nothing can get better: patience starts where reading starts
        self.epochs_without_better += self.has_read
        return False

    def ended(self, stage: StageParams) -> str | None:
        """Why training ends here, if it does."""
        if self.epoch >= stage.epochs:
            return f"all {stage.epochs} epochs"
        if self.epochs_without_better >= stage.patience_epochs:
            return f"{self.epochs_without_better} epochs without a better one"
        return None


def fit(task: Task, paths: StagePaths, tags: dict[str, str], follower: Follower | None = None) -> None:
    """Train one stage to its end, from its last finished epoch if a killed one left off there.

    Raises:
        UserError: data or starting model missing or of other captchas; the loss is not a number;
            the same stage runs in another process.
    """
    follower = follower or Nobody()
    device = backend.start(task.seed)
    valid = dataset.load(paths.valid, task.captcha)
    source = _source(task, paths)
    network = _network(task, paths)
    key = fingerprint(
        {
            "task": [task.name, task.kind, task.captcha.model_dump(), task.network.model_dump()],
            "stage": task.stage.model_dump(),
            "seed": task.seed,
            "data": [source.digest, valid.meta["digest"]],
            "start": weights_digest(_arrays(network.model.variables)),
            "code": sources.version(__name__),
            "versions": backend.versions(),
        }
    )
    checkpoint = Checkpoint(paths.checkpoints / f"{task.kind}-{task.name}-{key[:16]}")
    with only_one(checkpoint.folder.with_suffix(".lock"), f"{task.name} {task.kind}"), _closing(source):
        optimizer = _compile(network, task.stage, device)
        journal = Journal(checkpoint.folder)
        progress, best = Progress(), []
        if state := checkpoint.load():
            progress, best = Progress(**state.progress), state.best
            _restore(network, optimizer, state)
            say(task, f"goes on after epoch {progress.epoch} of {task.stage.epochs}, where it was stopped")
        if journal.begun:
            journal.go_back_to(progress.epoch)
        else:
            about = _about(task, network, device, {**tags, "fingerprint": key, "data_digest": source.digest})
            journal = Journal.begin(checkpoint.folder, about)
            say(
                task,
                f"{network.model.count_params():,} parameters, {about['params']['images_at_most']:,} images at most, "
                f"learning rate {task.stage.learning_rate:g}, {device.name}, {device.backend}",
            )
        follower.begin(journal)
        try:
            while not (reason := progress.ended(task.stage)):
                figures, seconds = _epoch(task, network, optimizer, source, valid, progress.epoch)
                if progress.count(figures, task.stage.best_by):
                    best = _arrays(network.model.weights)
                images = task.stage.batch_size * task.stage.steps_per_epoch
                journal.add(figures, seconds, images)
                checkpoint.save(
                    State(
                        asdict(progress),
                        _arrays(network.model.variables),
                        _arrays(optimizer.variables),
                        best,
                    )
                )
                follower.epoch()
                _tell_epoch(task, progress, figures, images / seconds, seconds)
        except BaseException as error:
            follower.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        for variable, array in zip(network.model.weights, best, strict=True):
            variable.assign(array)
        best_figures = journal.epochs()[progress.best_epoch - 1].figures
        journal.end({"stopped": reason, "best_epoch": progress.best_epoch, "best": best_figures})
        models.save(network, checkpoint.folder / "model.keras")
        follower.end("FINISHED")
        with files.atomic_write(paths.out) as out:
            out.mkdir()
            for name in ("model.keras", *FILES):
                shutil.copyfile(checkpoint.folder / name, out / name)
        say(
            task,
            f"ends after {reason}; best epoch {progress.best_epoch}: "
            f"val exact {best_figures['val/exact']:.2%}, written to {paths.out}",
        )
        checkpoint.clear()


def say(task: Task, text: str) -> None:
    print(f"{task.name} {task.kind}: {text}", flush=True)


def _epoch(
    task: Task,
    network: models.Network,
    optimizer: Any,
    source: batches.Source,
    valid: dataset.SplitData,
    epoch: int,
) -> tuple[dict[str, float], float]:
    """Train one epoch and look at the valid split: its figures, and the seconds of training."""
    steps = task.stage.steps_per_epoch
    first, last = epoch * steps, (epoch + 1) * steps
    rates = [float(optimizer.learning_rate)]
    if first <= task.stage.warmup_steps < last:
        rates.append(task.stage.learning_rate)
    started = time.perf_counter()
    losses = []
    with _progress_bar(task, epoch) as bar:
        for batch in source.batches(first, steps):
            loss = float(network.model.train_on_batch(batch.images, batch.labels))
            losses.append(loss)
            if not math.isfinite(loss):
                raise UserError(
                    f"{task.name} {task.kind}: the loss is {loss} in epoch {epoch + 1}: lower "
                    f"{task.name}.{task.kind}.learning_rate = {task.stage.learning_rate:g}, or set clip_norm."
                )
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
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
        return batches.Stream(task.captcha, stage.batch_size, task.seed, task.name, task.workers)
    return batches.Pool(dataset.load(paths.train, task.captcha), stage.batch_size, task.seed, task.name)


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
    rate: Any = stage.learning_rate
    if stage.schedule == "cosine":
        steps = stage.epochs * stage.steps_per_epoch
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if stage.warmup_steps else stage.learning_rate,
            decay_steps=steps - stage.warmup_steps,
            alpha=stage.final_learning_rate / stage.learning_rate,
            warmup_target=stage.learning_rate if stage.warmup_steps else None,
            warmup_steps=stage.warmup_steps,
        )
    clip = {"global_clipnorm": stage.clip_norm} if stage.clip_norm else {}
    if stage.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay, amsgrad=stage.amsgrad, **clip)
    else:
        optimizer = keras.optimizers.Adam(rate, amsgrad=stage.amsgrad, **clip)
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


def _tell_epoch(task: Task, progress: Progress, figures: dict[str, float], images_per_s: float, seconds: float) -> None:
    best = " (best)" if progress.best_epoch == progress.epoch else ""
    say(
        task,
        f"epoch {progress.epoch}/{task.stage.epochs}  loss {figures['train/loss']:.4f}  "
        f"val loss {figures['val/loss']:.4f}  val exact {figures['val/exact']:.2%}{best}  "
        f"{images_per_s:,.0f} images/s  {seconds:.0f} s",
    )
    if not progress.has_read:
        step = int(figures["step"])
        until = task.stage.plateau_steps
        if step <= until:
            say(task, f"nothing read yet after {step:,} steps; such a plateau is normal until step {until:,}")
        else:
            say(
                task,
                f"nothing read after {step:,} steps, and past step {until:,} that is not normal: stop it, and "
                f"look at {task.name}.{task.kind}.learning_rate and the pictures (data/train/samples.png)",
            )


def _progress_bar(task: Task, epoch: int) -> Any:
    """Steps and loss in a terminal; nothing in a log file, where each epoch has its line."""
    from tqdm import tqdm

    return tqdm(
        total=task.stage.steps_per_epoch,
        desc=f"{task.name} {task.kind} epoch {epoch + 1}/{task.stage.epochs}",
        unit="step",
        leave=False,
        disable=not sys.stderr.isatty(),
    )
