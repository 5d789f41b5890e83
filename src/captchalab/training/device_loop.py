"""Many training steps in one call, for an accelerator that would otherwise wait for Python after each.

Images that fit stay on the device, as bytes, and a call is told only which of them each step takes. A step is the
step of Keras' `train_on_batch`; the losses come back together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from captchalab.data.dataset import SplitData
from captchalab.networks import backend

Run = Callable[..., np.ndarray]


def build(model: Any, optimizer: Any, loss: Callable[[Any, Any], Any], resident: SplitData | None = None) -> Run:
    """A function that trains for S steps and gives their S losses; model and optimizer are then up to date.

    It takes rows int32 (S, B) of what is resident, or without that images uint8 (S, B, H, W, C) and labels uint8
    (S, B, L). Another S or B compiles once more.

    Args:
        optimizer: built for the model's trainable variables.
        loss: (B,) of labels and logits.
        resident: the split that is copied to the device, for batches by row.
    """
    build = _jax if backend.ENGINE == "jax" else _tensorflow
    return build(model, optimizer, loss, resident)


def _jax(model: Any, optimizer: Any, loss: Callable[[Any, Any], Any], resident: SplitData | None) -> Run:
    import jax

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    pool = None if resident is None else tuple(map(jax.device_put, _arrays(resident)))

    def objective(trainable: Any, others: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        logits, others = model.stateless_call(trainable, others, images, training=True)
        return loss(labels, logits).mean(), others

    def step(pool: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        trainable, others, moments = state
        images, labels = batch if pool is None else (array[batch[0]] for array in pool)
        (value, others), gradients = jax.value_and_grad(objective, has_aux=True)(trainable, others, images, labels)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return (trainable, others, moments), value

    @partial(jax.jit, donate_argnums=0)
    def steps(state: Any, pool: Any, batches: Any) -> tuple[Any, Any]:
        return jax.lax.scan(partial(step, pool), state, batches)

    def run(*batches: np.ndarray) -> np.ndarray:
        state = tuple([variable.value for variable in group] for group in variables)
        state, losses = steps(state, pool, batches)
        for group, arrays in zip(variables, state, strict=True):
            for variable, array in zip(group, arrays, strict=True):
                variable.assign(array)
        return np.asarray(losses)

    return run


def _tensorflow(model: Any, optimizer: Any, loss: Callable[[Any, Any], Any], resident: SplitData | None) -> Run:
    import tensorflow as tf

    pool = None if resident is None else tuple(map(tf.constant, _arrays(resident)))

    @tf.function(reduce_retracing=True)
    def steps(*batches: Any) -> Any:
        n = tf.shape(batches[0])[0]
        losses = tf.TensorArray(tf.float32, n)
        for i in tf.range(n):
            images, labels = (x[i] for x in batches) if pool is None else (tf.gather(x, batches[0][i]) for x in pool)
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(labels, model(images, training=True)))
            optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
            losses = losses.write(i, value)
        return losses.stack()

    def run(*batches: np.ndarray) -> np.ndarray:
        return steps(*(tf.constant(batch) for batch in batches)).numpy()

    return run


def _arrays(data: SplitData) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(data.images), np.asarray(data.labels)
