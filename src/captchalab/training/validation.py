"""What a network is validated with after each epoch; the best epoch is chosen by it.

Nothing that is only reported belongs here: see `evaluation.metrics`.
"""

import numpy as np

from captchalab import statistics
from captchalab.data import dataset
from captchalab.networks import models
from captchalab.reading import decoding


def validate(network: models.Network, data: dataset.SplitData) -> dict[str, float]:
    """Loss, strict exact match with its 95 % interval, and character error rate on a split, as val/..."""
    alphabet = network.captcha.alphabet
    truths = data.texts()
    logits = network.logits(np.asarray(data.images))
    predictions = [found.text for found in decoding.greedy(network.kind, logits, alphabet)]
    exact = statistics.exact(truths, predictions)
    return {
        "val/loss": float(-decoding.text_log_probability(network.kind, logits, truths, alphabet).mean()),
        "val/exact": exact.value,
        "val/exact_low": exact.low,
        "val/exact_high": exact.high,
        "val/cer": statistics.cer(truths, predictions),
    }
