"""A training that needs a GPU on a machine without one: how long it would take, before anything is trained."""

import time

import numpy as np

from captchalab.errors import UserError
from captchalab.networks import backend, models
from captchalab.training.progress import Task

STEPS = 3  # timed


def require_gpu(task: Task) -> None:
    """Refuse to train without an accelerator.

    Raises:
        UserError: the engine sees none; says how long the stage would take on what there is.
    """
    device = backend.start()
    if not device.accelerator:
        raise UserError(
            f"{task.name} {task.kind} is made for a GPU (runtime.needs = gpu), and {device.backend} sees none: on "
            f"{device.name} its {task.steps:,} steps would take up to {hours(seconds(task, device))}. To train "
            "nevertheless, set runtime.needs = any in params.yaml."
        )


def seconds(task: Task, device: backend.Device) -> float:
    """Seconds of training for all steps of a stage, validation not counted: a few steps on noise, timed."""
    network = models.build(task.kind, task.captcha, task.network)
    network.model.compile("adam", models.LOSSES[task.kind], jit_compile=device.jit_compile)
    rng, B, L = np.random.default_rng(0), task.stage.batch_size, task.captcha.length
    images = rng.integers(0, 256, (B, *task.captcha.image_shape), np.uint8)
    labels = rng.integers(0, len(task.captcha.alphabet), (B, L), np.uint8)
    network.model.train_on_batch(images, labels)  # compiles; the clock starts after it
    started = time.perf_counter()
    for _ in range(STEPS):
        network.model.train_on_batch(images, labels)
    return (time.perf_counter() - started) / STEPS * task.steps


def hours(seconds: float) -> str:
    """A long time in words."""
    if seconds < 2 * 3600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.0f} hours" if seconds < 3 * 86400 else f"{seconds / 86400:.0f} days"
