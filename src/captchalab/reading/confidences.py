"""How sure a network is of each character of the texts it predicts, given the other characters.

P(text) over the sum of P of the K texts that differ from it in this character at most. For a CNN that is
the softmax of the character; for CTC it is what that softmax would be.

Shapes: B batch, T time steps, L characters of the longest text, K classes (the CTC blank is class K).
"""

import numpy as np

from captchalab.reading.alphabet import blank, encode
from captchalab.reading.captcha import Kind
from captchalab.reading.decoding import log_softmax


def of_characters(kind: Kind, logits: np.ndarray, texts: list[str], alphabet: str) -> list[list[float]]:
    """The confidence of each character of one text per image.

    Args:
        logits: (B, L, K) of a CNN, (B, T, K+1) of a CTC network.
        texts: what greedy decoding makes of them.
    """
    lengths = np.array([len(text) for text in texts])
    labels = np.zeros((len(texts), lengths.max(initial=0)), dtype=np.int64)  # (B, L); 0 after the end of a text
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = encode(text, alphabet)
    shares = np.exp(log_softmax(logits)) if kind == "cnn" else _ctc_shares(logits, labels, lengths, blank(alphabet))
    own = np.take_along_axis(shares, labels[..., None], 2)[..., 0]  # (B, L)
    return [row[:n].tolist() for row, n in zip(own, lengths, strict=True)]


def _ctc_shares(logits: np.ndarray, labels: np.ndarray, lengths: np.ndarray, K: int) -> np.ndarray:
    """Of each character's place in a text, the share of each class; (B, L, K).

    One pass for all classes: paths come to a place from the left as to one of the whole text, and from the
    right as to one of the reversed text in reversed time; only between the two is the class another one.

    A time step's best class weighs 1. So the greedy text weighs at least 1, and what vanishes beside it in
    float64 does not matter; a sum overflows with 640 time steps at the earliest.
    """
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True)).swapaxes(0, 1)  # (T, B, K+1)
    L = labels.shape[1]
    mirrored = np.maximum(lengths[:, None] - 1 - np.arange(L), 0)  # (B, L): a place in the reversed text
    enter = _arrivals(weights, labels)
    leave = _arrivals(weights[::-1], np.take_along_axis(labels, mirrored, 1))[::-1]
    leave = np.take_along_axis(leave, mirrored[None, ..., None], 2)
    within = np.zeros((len(labels), L, K))  # paths that are at this place with this class
    through = np.zeros_like(within)
    for now, arrives, departs in zip(weights[:, :, None, :K], enter, leave, strict=True):
        within = (within + arrives) * now
        through += within * departs
    return through / np.maximum(through.sum(-1, keepdims=True), np.finfo(float).tiny)  # 0 after the end of a text


def _arrivals(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weight of the paths after which a class may start at a place in the text; (T, B, L, K).

    The forward algorithm (Graves et al., 2006, section 4.1) over the states blank, c1, blank, c2, ..., blank.

    Args:
        weights: of the classes at each time step, (T, B, K+1).
        labels: (B, L)
    """
    T, B, classes = weights.shape
    L, K = labels.shape[1], classes - 1
    states = np.full((B, 2 * L + 1), K)
    states[:, 1::2] = labels
    # a state may be entered from two before, skipping a blank, unless both are the same character
    may_skip = np.zeros(states.shape)
    may_skip[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    emitted = np.take_along_axis(weights, np.broadcast_to(states, (T, *states.shape)), 2)  # (T, B, S)
    paths = np.zeros((T + 1, B, 2 + 2 * L + 1))  # after t steps; two empty states in front
    paths[0, :, 2] = 1
    for t in range(T):
        before = paths[t]
        paths[t + 1, :, 2:] = (before[:, 2:] + before[:, 1:-1] + may_skip * before[:, :-2]) * emitted[t]
    in_blank, in_char = paths[:-1, :, 2:-1:2], paths[:-1, :, 1:-2:2]  # (T, B, L): just before a place
    arrivals = np.repeat((in_blank + in_char)[..., None], K, 3)
    # the same character again needs a blank in between
    np.put_along_axis(
        arrivals[:, :, 1:], np.broadcast_to(labels[:, :-1, None], (T, B, max(L - 1, 0), 1)), in_blank[:, :, 1:, None], 3
    )
    return arrivals
