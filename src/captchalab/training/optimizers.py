"""The optimizers of params.yaml: Adam, AdamW, and Muon for convolution kernels.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a weight matrix by the
nearest orthogonal matrix, so that no direction of the gradient is drowned by the strong ones. As in Liu et al. 2025
(arXiv:2502.16982) the root mean square of an update is a constant, muon_rms, times the learning rate; they take 0.2,
what AdamW's updates have, and here more of it learns faster. What it gives: docs/training.md.
"""

from typing import Any

from captchalab.networks.backend import keras
from captchalab.params import StageParams

ops = keras.ops


class Muon(keras.optimizers.Muon):
    """Keras' Muon for convolution kernels, as matrices (H*W*C_in, C_out); AdamW for everything else.

    Keras' own takes 2-D variables only, which here are the recurrent and the dense kernels: those learn as well
    with AdamW.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) != 4

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))  # m <- momentum * m + gradient
        nesterov = ops.reshape(ops.add(gradient, self.momentum * m), (-1, variable.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(nesterov, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))


def build(stage: StageParams) -> Any:
    """A Keras optimizer with the stage's schedule, weight decay and clipping."""
    rate, clip = _learning_rate(stage), {"global_clipnorm": stage.clip_norm} if stage.clip_norm else {}
    if stage.optimizer == "muon":
        decay = stage.weight_decay
        return Muon(rate, weight_decay=decay, adam_weight_decay=decay, rms_rate=stage.muon_rms, **clip)
    if stage.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay, amsgrad=stage.amsgrad, **clip)
    return keras.optimizers.Adam(rate, amsgrad=stage.amsgrad, **clip)


def _learning_rate(stage: StageParams) -> Any:
    if stage.schedule == "constant":
        return stage.learning_rate
    steps = stage.epochs * stage.steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if stage.warmup_steps else stage.learning_rate,
        decay_steps=steps - stage.warmup_steps,
        alpha=stage.final_learning_rate / stage.learning_rate,
        warmup_target=stage.learning_rate if stage.warmup_steps else None,
        warmup_steps=stage.warmup_steps,
    )
