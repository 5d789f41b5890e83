"""What our training costs: the reference's networks through `fit`, and the reference's recipe in plain Keras.

    .venv/bin/python benchmarks/training.py        a quarter of an hour; --quick a minute

Each contestant trains in a process of its own, so that its peak memory is its own.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

import harness
import numpy as np

from captchalab import params, profiles, yaml
from captchalab.data import batches, dataset
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind

WARM_UP_STEPS = 2
OURS, PLAIN, XLA = "captchalab", "plain Keras", "plain Keras, XLA"
ABOUT = f"""Images per second and peak memory of training the networks of `profiles/reference.yaml`, batch size and
optimizer as there, on arrays in memory that are the same for all. `{OURS}` is the epoch of `fit` that `captchalab
train` runs; `{PLAIN}` is the same network and optimizer in a dozen lines, compiled and trained with `model.fit`,
without XLA (`jit_compile=False`) and with it. One training has all cores. The ratio is to the faster of the two."""


def measure(quick: bool) -> harness.Table:
    project = Project.find()
    text = profiles.merged(project.params.read_text(encoding="utf-8"), project, "reference")
    reference = params.check(yaml.parse(text))
    if quick:
        return compare(reference, batch_size=32, steps=4, rounds=1, contestants=(OURS, PLAIN))
    return compare(reference, batch_size=128, steps=12, rounds=3, contestants=(OURS, PLAIN, XLA))


def compare(
    all_params: params.Params, batch_size: int, steps: int, rounds: int, contestants: tuple[str, ...]
) -> harness.Table:
    turns = {
        f"{kind.upper()}, {contestant}": partial(in_process, contestant, kind, batch_size, steps, all_params)
        for kind in KINDS
        for contestant in contestants
    }
    found = harness.Table("Training", ABOUT, harness.take_turns(turns, rounds))
    for kind in KINDS:
        plain = [f"{kind.upper()}, {contestant}" for contestant in contestants if contestant != OURS]
        faster = max(plain, key=lambda row: statistics.median(found.values(row, "images/s")))
        found.baselines = {**found.baselines, f"{kind.upper()}, {OURS}": faster}
    return found


def in_process(contestant: str, kind: Kind, batch_size: int, steps: int, all_params: params.Params) -> harness.Figures:
    """`work` in a process of its own, with a thread per core."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(os.cpu_count()), "KERAS_BACKEND": "tensorflow"}
    given = json.dumps([contestant, kind, batch_size, steps, all_params.model_dump(mode="json")])
    command = [sys.executable, __file__, "--worker", given]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: harness.Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def work(contestant: str, kind: Kind, batch_size: int, steps: int, all_params: params.Params) -> harness.Figures:
    """Train some steps in this process: images/s and the peak memory of all it did."""
    from captchalab.networks import backend

    device = backend.start(all_params.seed)
    train = ours if contestant == OURS else plain
    rng = np.random.default_rng(1)
    n, captcha = batch_size * steps, all_params.captcha
    images = rng.integers(0, 256, (n, *captcha.image_shape), np.uint8)
    labels = rng.integers(0, len(captcha.alphabet), (n, captcha.length), np.uint8)
    jit_compile = device.jit_compile if contestant == OURS else contestant == XLA
    seconds = train(kind, all_params, images, labels, batch_size, jit_compile)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images/s": n / seconds, "peak memory, GiB": memory}


def ours(
    kind: Kind, all_params: params.Params, images: np.ndarray, labels: np.ndarray, batch_size: int, jit_compile: Any
) -> float:
    """Seconds of one epoch as `captchalab train` runs it, after a short one that compiles."""
    from captchalab.networks import backend, models
    from captchalab.training import fit, trainer
    from captchalab.training.progress import Task

    steps = len(images) // batch_size
    stage = all_params.stage("train", kind).model_copy(update={"batch_size": batch_size, "steps_per_epoch": steps})
    task = Task.of(all_params, "train", kind, "benchmark")._replace(stage=stage)
    warm_up = task._replace(stage=stage.model_copy(update={"steps_per_epoch": WARM_UP_STEPS}))
    data = dataset.SplitData(images, labels, {"alphabet": task.captcha.alphabet, "digest": ""})
    valid = data._replace(images=images[:8], labels=labels[:8])
    pool = batches.Pool(data, batch_size, task.seed, "train")
    network = models.build(kind, task.captcha, task.network)
    device = backend.start()
    optimizer = fit._compile(network, stage, device)
    runner = trainer.build(network, optimizer, pool, device)
    fit._epoch(warm_up, network, optimizer, runner, valid, 0)
    return fit._epoch(task, network, optimizer, runner, valid, 0)[1]


def plain(
    kind: Kind, all_params: params.Params, images: np.ndarray, labels: np.ndarray, batch_size: int, jit_compile: Any
) -> float:
    """Seconds of `model.fit` over the images, after a short one that compiles."""
    model, targets = plain_cnn(all_params, labels) if kind == "cnn" else plain_ctc(all_params, labels)
    model.jit_compile = jit_compile
    first = WARM_UP_STEPS * batch_size
    few = [target[:first] for target in targets] if isinstance(targets, list) else targets[:first]
    model.fit(images[:first], few, batch_size=batch_size, verbose=0)
    started = time.perf_counter()
    model.fit(images, targets, batch_size=batch_size, verbose=0)
    return time.perf_counter() - started


def plain_cnn(all_params: params.Params, labels: np.ndarray) -> tuple[Any, list[np.ndarray]]:
    """The reference's CNN, a softmax head per character, and its targets: one-hot, a list of (B, K)."""
    from captchalab.networks.backend import keras

    K = len(all_params.captcha.alphabet)
    inputs, x = _plain_trunk(all_params.captcha, all_params.models.cnn)
    x = keras.layers.Flatten()(x)
    outputs = [keras.layers.Dense(K, activation="softmax", name=f"c{i + 1}")(x) for i in range(labels.shape[1])]
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-3, amsgrad=True), ["categorical_crossentropy"] * len(outputs))
    return model, [np.eye(K, dtype=np.float32)[column] for column in labels.T]


def plain_ctc(all_params: params.Params, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    """The reference's CTC network, and its targets: (B, L), counted from 1, for Keras' blank is 0."""
    from captchalab.networks.backend import keras

    network = all_params.models.ctc
    inputs, x = _plain_trunk(all_params.captcha, network)
    x = keras.layers.Permute((2, 1, 3))(x)
    x = keras.layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    for _ in range(network.rnn_layers):
        x = keras.layers.Bidirectional(keras.layers.GRU(network.rnn_size, return_sequences=True))(x)
    model = keras.Model(inputs, keras.layers.Dense(len(all_params.captcha.alphabet) + 1)(x))
    model.compile(keras.optimizers.Adam(1e-3, amsgrad=True), keras.losses.CTC())
    return model, labels.astype(np.int32) + 1


def _plain_trunk(captcha: params.CaptchaParams, network: params.NetworkParams) -> tuple[Any, Any]:
    from captchalab.networks.backend import keras

    inputs = keras.Input(captcha.image_shape, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters, pool in zip(network.filters, network.pools, strict=True):
        for _ in range(network.conv_depth):
            x = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_uniform")(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.Activation("relu")(x)
        x = keras.layers.MaxPooling2D(pool)(x)
    return inputs, x


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        *given, values = json.loads(sys.argv[2])
        print(json.dumps(work(*given, params.Params.model_validate(values))))
    else:
        harness.main(measure)
