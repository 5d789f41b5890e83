"""What a stage prints: a line per epoch, and within an epoch a progress bar, or a line now and then in a log."""

import sys
import threading
import time
from typing import Any

from captchalab.training.progress import Progress, Task

LOG_EVERY_S = 60.0


def log(task: Task, text: str) -> None:
    """A line of the stage's output."""
    print(f"{task.name} {task.kind}: {text}", flush=True)


def log_epoch(task: Task, progress: Progress, metrics: dict[str, float], images_per_s: float, seconds: float) -> None:
    best = " (best)" if progress.best_epoch == progress.epoch else ""
    log(
        task,
        f"epoch {progress.epoch}/{task.stage.epochs}  loss {metrics['train/loss']:.4f}  "
        f"val loss {metrics['val/loss']:.4f}  val exact {metrics['val/exact']:.2%}{best}  "
        f"{images_per_s:,.0f} images/s  {seconds:.0f} s",
    )
    if not progress.has_read:
        step = int(metrics["step"])
        until = task.stage.plateau_steps
        if step <= until:
            log(task, f"nothing read yet after {step:,} steps; such a plateau is normal until step {until:,}")
        else:
            log(
                task,
                f"nothing read after {step:,} steps, and past step {until:,} that is not normal: stop it, and "
                f"look at {task.name}.{task.kind}.learning_rate and the images (data/train/samples.png)",
            )


class Steps:
    """The steps of one epoch: a bar in a terminal, a line per minute in a log file."""

    def __init__(self, task: Task, epoch: int) -> None:
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())  # its own holds a semaphore, which a killed trial leaves behind with a warning
        self.task, self.epoch, self.steps = task, epoch, 0
        self.logged_at = time.monotonic()
        self.bar: Any = tqdm(
            total=task.stage.steps_per_epoch,
            desc=f"{task.name} {task.kind} epoch {epoch + 1}/{task.stage.epochs}",
            unit="step",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, loss: float) -> None:
        """Another step is done."""
        self.steps += 1
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.logged_at >= LOG_EVERY_S:
            self.logged_at = time.monotonic()
            stage = self.task.stage
            step = f"epoch {self.epoch + 1}/{stage.epochs}  step {self.steps:,}/{stage.steps_per_epoch:,}"
            log(self.task, f"{step}  loss {loss:.4f}")
