"""Logits -> text and confidence. NumPy only, so that any engine's logits are decoded the same way.

Shapes: B batch, T time steps, L characters, K classes (the CTC blank is class K).
Confidence is the probability the network gives the whole text; for CTC that is the sum over all
alignments (Graves et al., "Connectionist temporal classification", 2006, section 4.1).
"""

import numpy as np
from pydantic import Field

from captchalab.reading.alphabet import blank, decode, encode
from captchalab.reading.captcha import Kind, Strict

NEVER = -1e30  # log of probability 0; finite, so that sums stay numbers


class Prediction(Strict):
    """The text a network predicts for one image."""

    text: str
    confidence: float  # probability of the whole text
    characters: list[float] = Field(default_factory=list)  # of each character, given the others; empty if not asked


def greedy(kind: Kind, logits: np.ndarray, alphabet: str) -> list[Prediction]:
    """Greedy decoding: the most probable class at each position (CNN) or time step (CTC).

    Args:
        logits: (B, L, K) of a CNN, (B, T, K+1) of a CTC network.
    """
    log_probs = log_softmax(logits)
    best = log_probs.argmax(-1)
    if kind == "cnn":
        confidences = np.exp(log_probs.max(-1).sum(-1))
        return [
            Prediction(text=decode(row, alphabet), confidence=float(c))
            for row, c in zip(best, confidences, strict=True)
        ]
    texts = [decode(_collapse(row, blank(alphabet)), alphabet) for row in best]
    confidences = np.exp(text_log_probability(kind, logits, texts, alphabet))
    return [Prediction(text=text, confidence=float(c)) for text, c in zip(texts, confidences, strict=True)]


def text_log_probability(kind: Kind, logits: np.ndarray, texts: list[str], alphabet: str) -> np.ndarray:
    """log P(text | image) of one text per image, float64 (B,). Its negative mean is the loss.

    Args:
        logits: (B, L, K) of a CNN, (B, T, K+1) of a CTC network.
        texts: for a CNN, of exactly L characters.
    """
    log_probs = log_softmax(logits)
    if kind == "cnn":
        targets = np.stack([encode(text, alphabet) for text in texts])  # (B, L)
        return np.take_along_axis(log_probs, targets[..., None].astype(np.int64), -1).sum((1, 2))
    return _ctc_log_probability(log_probs, [encode(text, alphabet) for text in texts])


def exact_length(logits: np.ndarray, alphabet: str, length: int, beam_width: int = 10) -> list[Prediction]:
    """The best text of exactly `length` characters a CTC network allows, by prefix beam search.

    A prefix that cannot reach the length in the remaining steps is dropped, so the beams at the end
    all have it. Logits (B, T, K+1) with T >= 2 * length - 1.
    """
    log_probs = log_softmax(logits)
    B, T, _ = log_probs.shape
    K = blank(alphabet)
    # per beam: the prefix (padded with K), its length, and log P ending in a blank / in a character
    prefix = np.full((B, 1, length), K)
    used = np.zeros((B, 1), dtype=np.int64)
    in_blank, in_char = np.zeros((B, 1)), np.full((B, 1), NEVER)
    for t in range(T):
        now = log_probs[:, t]  # (B, K+1)
        W = used.shape[1]
        total = np.logaddexp(in_blank, in_char)
        last = np.take_along_axis(prefix, np.maximum(used - 1, 0)[..., None], 2)[..., 0]  # K where empty
        stay_blank = total + now[:, None, K]
        stay_char = np.where(used > 0, in_char + np.take_along_axis(now, last, 1), NEVER)
        # one more character: the same one again needs a blank in between
        repeats = np.arange(K) == last[..., None]  # (B, W, K)
        grown = np.where(repeats, in_blank[..., None], total[..., None]) + now[:, None, :K]
        grown = np.where((used < length)[..., None], grown, NEVER)
        # a grown prefix may be one that is already kept: add it there, not twice
        for w in range(W):
            parent = (used == used[:, w, None] - 1) & _same_but_last(prefix, prefix[:, w, None], used[:, w, None])
            char = last[:, w]
            rows, parents = np.nonzero(parent & (used[:, w, None] > 0))
            stay_char[rows, w] = np.logaddexp(stay_char[rows, w], grown[rows, parents, char[rows]])
            grown[rows, parents, char[rows]] = NEVER
        all_blank = np.concatenate([stay_blank, np.full((B, W * K), NEVER)], 1)
        all_char = np.concatenate([stay_char, grown.reshape(B, W * K)], 1)
        all_used = np.concatenate([used, np.repeat(used + 1, K, 1)], 1)
        score = np.logaddexp(all_blank, all_char)
        score = np.where(all_used + (T - t - 1) < length, NEVER * 2, score)
        keep = np.argsort(-score, 1, kind="stable")[:, :beam_width]
        come_from = np.where(keep < W, keep, (keep - W) // K)
        added = np.where(keep < W, K, (keep - W) % K)
        # where fewer texts are possible than beams are kept, the other beams are dead: no prefix at all
        alive = np.take_along_axis(score, keep, 1) > NEVER / 2
        prefix = np.take_along_axis(prefix, come_from[..., None], 1)
        used = np.where(alive, np.take_along_axis(all_used, keep, 1), -1)
        rows, beams = np.nonzero(alive & (added < K))
        prefix[rows, beams, used[rows, beams] - 1] = added[rows, beams]
        in_blank = np.take_along_axis(all_blank, keep, 1)
        in_char = np.take_along_axis(all_char, keep, 1)
    score = np.where(used == length, np.logaddexp(in_blank, in_char), NEVER * 2)
    winner = score.argmax(1)
    texts = [decode(prefix[b, w], alphabet) for b, w in enumerate(winner)]
    confidences = np.exp(text_log_probability("ctc", logits, texts, alphabet))
    return [Prediction(text=text, confidence=float(c)) for text, c in zip(texts, confidences, strict=True)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities over the last axis, float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _collapse(path: np.ndarray, blank_index: int) -> list[int]:
    """A CTC path without repeats, then without blanks."""
    changed = np.concatenate([[True], path[1:] != path[:-1]])
    return [int(k) for k in path[changed] if k != blank_index]


def _same_but_last(prefixes: np.ndarray, of: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Whether each prefix (B, W, L) equals `of` (B, 1, L) without its last of `used` (B, 1) characters."""
    places = np.arange(prefixes.shape[2])
    compared = places < used[..., None] - 1
    return ((prefixes == of) | ~compared).all(-1)


def _ctc_log_probability(log_probs: np.ndarray, targets: list[np.ndarray]) -> np.ndarray:
    """Forward algorithm over the states blank, c1, blank, c2, ..., blank; texts of any lengths."""
    B, T, classes = log_probs.shape
    blank_index = classes - 1
    lengths = np.array([len(target) for target in targets])
    S = 2 * max(int(lengths.max(initial=0)), 1) + 1
    states = np.full((B, S), blank_index)
    for b, target in enumerate(targets):
        states[b, 1 : 2 * len(target) : 2] = target
    # a state may be entered from two before, skipping a blank, unless both are the same character
    may_skip = np.zeros((B, S), dtype=bool)
    may_skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    emit = np.take_along_axis(log_probs, np.broadcast_to(states[:, None], (B, T, S)), 2)  # (B, T, S)
    alpha = np.full((B, S), NEVER)
    alpha[:, :2] = emit[:, 0, :2]
    for t in range(1, T):
        one = np.concatenate([np.full((B, 1), NEVER), alpha[:, :-1]], 1)
        two = np.concatenate([np.full((B, 2), NEVER), alpha[:, :-2]], 1)
        two = np.where(may_skip, two, NEVER)
        alpha = np.logaddexp(np.logaddexp(alpha, one), two) + emit[:, t]
    rows = np.arange(B)
    end = alpha[rows, 2 * lengths]
    before = np.where(lengths > 0, alpha[rows, np.maximum(2 * lengths - 1, 0)], NEVER)
    return np.logaddexp(end, before)
